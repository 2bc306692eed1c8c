"""The proxy: a short schedule that trains a base with a head and scores both.

`schedules` and `optimizer` hold the recipe, `trainer` one training run step by step, `checkpoint` its state on disk, `rungs` the
scoring, and `proxy` puts them together into the `Evaluate` of a search.
"""
