"""Ctrl-C as a process gets it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

PROGRAM = """
import sys, threading, time
from search.signals import interrupts

with interrupts() as found:
    found.at_once.append(lambda: print("first", flush=True))
    found.at_once.append(lambda: 1 / 0)
    found.at_once.append(lambda: time.sleep(60))
    found.at_once.append(lambda: print("last", flush=True))
    print("ready", flush=True)
    while not found.asked.is_set():
        time.sleep(0.02)
    print("asked", flush=True)
    for _ in range(3000):  # an orderly end that takes its time; a signal just before a long sleep would wait for it
        time.sleep(0.02)
"""


def _begin() -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "asked\n"
    return process


def test_a_second_one_ends_the_process_after_what_must_not_be_left_undone() -> None:
    process = _begin()
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=20)[0]
    assert process.returncode == 130 and said == "first\nlast\n", "one that fails or hangs does not stop the others"
    assert time.monotonic() - began < 9


def test_a_third_one_ends_it_whatever_is_going_on() -> None:
    process = _begin()
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.stdout and process.stdout.readline() == "first\n"
    process.send_signal(signal.SIGINT)
    process.wait(10)
    assert process.returncode == 130 and time.monotonic() - began < 2
