"""How a trial is scored: discrepancy between base and head, probes of the base, collapse guards, and the cost of a head.

Every module here is usable on its own on plain tensors; `docs/measures.md` says what each number means and where it misleads.
"""
