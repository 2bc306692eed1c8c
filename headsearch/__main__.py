"""`python -m headsearch`: the same as the command `headsearch`."""

from headsearch.cli import main

main()
