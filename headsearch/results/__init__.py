"""What a search found: records of its trials, the ranking of its heads, the statistics of their gains, and tables. No torch here."""
