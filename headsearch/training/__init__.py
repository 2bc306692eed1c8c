"""One kind of training: a short schedule that trains a base with one candidate or several, and scores each.

`trial` says what a training is and what comes out of it; `proxy` is the `Evaluate` of a search, which puts the rest together. `loop` is the one
training loop, also of a pretraining, `candidates` that of a search with its rungs; `trainer` takes the steps, `schedules` and `optimizer` hold the
recipe, `checkpoint` the state on disk, `scorer` the scoring, `ranks` what processes that train together have in
common, `team` starts those of a trial and listens to them.
"""
