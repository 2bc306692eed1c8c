"""Any sampler and pruner of Optuna on HeadBench's real training curves: seconds instead of days.

PYTHONPATH=benchmarks python examples/headbench_optuna.py
"""

import optuna
from headbench.table import read_headbench

table = read_headbench("benchmarks/headbench/digits.csv.gz")
long = table[(table["part"] == "long") & table["control"].isna()]
curves = {head: rows.groupby("epoch")["knn"].mean() for head, rows in long.groupby("head_id")}


def objective(trial: optuna.Trial) -> float:
    """The k-NN accuracy of the base after the long schedule, looked up; ended early where the pruner wants no more."""
    curve = curves[trial.suggest_categorical("head", list(curves))]
    for epoch, knn in curve.items():
        trial.report(knn, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return float(curve.iloc[-1])


optuna.logging.set_verbosity(optuna.logging.WARNING)
study = optuna.create_study(
    direction="maximize",
    sampler=optuna.samplers.TPESampler(seed=0),
    pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=10),
)
study.optimize(objective, n_trials=12)
best = max(curve.iloc[-1] for curve in curves.values())
print(
    f"{study.best_params['head']}: {study.best_value:.1f}, {best - study.best_value:.1f} below the best head"
)
