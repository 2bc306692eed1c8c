"""The search: which head is tried next, where it runs, and what is remembered.

- `session.py`: from an `Experiment` to a finished run directory; what the command line calls.
- `coordinator.py`: hands out trainings and writes down what comes back; the single writer.
- `stages.py`, `funnel.py`, `late.py`: what is to be trained next (controls, heads, screens, replicates of the finalists, anchors).
- `proposer.py`: the next head, drawn from the space by an Optuna sampler.
- `ledger.py`: the study, the only truth about the trials of a run.
- `stopping.py`: which trainings may go on past a rung.
- `executors/`: where a training runs. They evaluate and report, and never see the study.
"""
