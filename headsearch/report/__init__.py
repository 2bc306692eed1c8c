"""Shows what a run found: one view model of a run, figures and views over it, and the report that can be mailed. No torch here."""
