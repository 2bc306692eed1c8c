"""HeadBench: tables of real training curves, and what is computed from them: `table` reads them, `prediction` judges scores, `curves` and `simulation` try search policies."""
