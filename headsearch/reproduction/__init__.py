"""Does the paper's idea hold here? Reruns its claims on a base and images of one's own, and says of each whether it holds.

`plan` says what is run, `reproduce` does it and can be interrupted, `claims` makes figures and verdicts from the trials with the formulas of
`contrasts`, `text` writes them down. Importing this package is cheap.
"""
