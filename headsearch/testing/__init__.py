"""For tests of headsearch and of its extensions: a toy objective, and suites that every implementation must pass."""
