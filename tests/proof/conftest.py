"""What is frozen lies beside the tests; how it was made, and how it is read, is a module there."""

import sys
from pathlib import Path

FIXTURES = str(Path(__file__).parents[1] / "fixtures")
if FIXTURES not in sys.path:
    # Test modules import from there when they are collected.
    sys.path.insert(0, FIXTURES)
