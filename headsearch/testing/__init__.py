"""What tests of headsearch, and of extensions to it, can use: a toy objective, and suites that every implementation must pass."""
