"""What weights of a base are worth: probes of the frozen base, fine-tuning, segmentation, and whether a detector can use them.

Comes in: an `EvaluationSpec` and the names of weights. Goes out: an `Evaluation`, one row for each probe and weights with the interval
of its score and of its difference to the first weights. One file per probe; `headsearch.evaluation.intervals` says what the intervals cover.
Importing this package is cheap.
"""
