"""Signals that ask for an end: each is as gentle as Ctrl-C, one is enough, and what was ignored stays ignored."""

import signal
import subprocess
import sys

import pytest

from headsearch.signals import ENDING

WAITING = """
import signal, sys, time
from headsearch.signals import exit_code, interrupted_once, like_ctrl_c
# Whatever the process that runs the tests ignores.
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
    signal.signal(number, signal.SIG_DFL)
if sys.argv[1] == "ignored":
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
with like_ctrl_c():
    try:
        with interrupted_once():
            try:
                print("ready", flush=True)
                time.sleep(3600)
            finally:
                # Cleaning up: one more signal must not interrupt it.
                print("ending", flush=True)
                sys.stdin.readline()
                print("clean", flush=True)
    except KeyboardInterrupt:
        sys.exit(exit_code())
"""


def waiting(how: str = "") -> "subprocess.Popen[str]":
    # As a terminal does it, whatever this process ignores.
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING, how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        restore_signals=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", ENDING)
def test_every_signal_interrupts_once_and_the_exit_code_names_it(number: signal.Signals) -> None:
    process = waiting()
    process.send_signal(number)
    assert process.stdout is not None
    assert process.stdout.readline() == "ending\n"
    for other in ENDING:
        process.send_signal(other)
    rest, _ = process.communicate("they were sent\n", timeout=300)
    assert rest == "clean\n"
    assert process.returncode == 128 + number


def test_what_was_ignored_before_stays_ignored() -> None:
    process = waiting("ignored")
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=300)
    assert process.returncode == 143
