"""The proxy: a short schedule that trains a base with a head and scores both.

`loop` is the one training loop, also of a pretraining; `trainer` takes its steps, `schedules` and `optimizer` hold the recipe, `checkpoint` the
state on disk, `scorer` the scoring, and `proxy` puts them together into the `Evaluate` of a search.
"""
