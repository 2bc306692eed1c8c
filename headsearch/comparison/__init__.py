"""Is the head worth it? Pretrains with and without it under one budget, several seeds each, and evaluates all the bases alike.

`plan` says what is trained and evaluated, `compare` does it and can be interrupted, `outcome` makes the table and the verdict.
Importing this package is cheap.
"""
