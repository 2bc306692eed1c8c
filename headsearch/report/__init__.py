"""Shows what a run found: figures, views and texts of a `Run`, and the report as one file. No torch here."""
