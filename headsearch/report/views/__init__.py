"""The views of a run: each a function from the view model to components, the same for the dashboard and the report."""
