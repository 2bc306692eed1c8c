"""The search: which head is tried next, where it runs, and what is remembered.

- `run.py`: from an `Experiment` to a finished run directory; what the command line calls.
- `coordinator.py`: the stages (controls, heads, replicates of the finalists); the single writer.
- `proposer.py`: the next head, drawn from the space by an Optuna sampler.
- `ledger.py`: the study, the only truth about the trials of a run.
- `stopping.py`: which trials may go on past a rung.
- `executors/`: where a trial runs. They evaluate and report, and never see the study.
"""
