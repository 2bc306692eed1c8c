"""The dashboard: pages over run directories, also while a search runs. It only reads. No torch, no ray, and no Optuna where the study is SQLite."""
