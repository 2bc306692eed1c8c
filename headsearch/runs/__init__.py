"""A run on disk: its directory, its study, and every way of reading them."""
