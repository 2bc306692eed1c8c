"""One thread a process: tests run side by side, and sums of floats do not depend on how many cores a machine has.

Ctrl-C is never ignored: a shell's background job inherits that, passes it on, and searches that a test interrupts would go on.
"""

import os
import signal

os.environ["OMP_NUM_THREADS"] = "1"

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
