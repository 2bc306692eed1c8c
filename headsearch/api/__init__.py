"""headsearch from Python: what the commands do, as functions that give back objects to go on with.

`functions.py` holds the functions that `import headsearch` offers, `run.py` the `Run` that a search gives back. Importing this package
imports neither torch nor pandas.
"""
