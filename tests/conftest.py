"""One thread a process: tests run side by side, and sums of floats do not depend on how many cores a machine has."""

import os

os.environ["OMP_NUM_THREADS"] = "1"
