"""Ctrl-C as a process gets it."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.search.own_ray import without_tokens
from tests.search.running import ROOT, end_processes_of

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


RAY = """
import sys, time
import ray
from search import environment, ray_access
environment.quiet_libraries()
from search.signals import interrupts
from search.workforce import connect
with ray_access.local_token(), interrupts() as found:
    connect({"num_cpus": 0})
    print("ready", flush=True)
    while not found.asked.is_set():
        time.sleep(0.02)
    time.sleep(5)  # an orderly end
    ray.shutdown()
print("ended", flush=True)
"""


def _begin() -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "asked\n"
    time.sleep(0.3)
    return process


@pytest.mark.parametrize("again", [signal.SIGTERM, signal.SIGHUP])
def test_one_request_may_come_as_several_signals(again: signal.Signals) -> None:
    """GNU timeout sends one to its child and one to the child's group; a launcher passes them on besides."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(again, signal.SIG_DFL),  # who runs the tests may have it ignored
    )
    assert process.stdout and process.stdout.readline() == "ready\n"
    for _ in range(4):
        process.send_signal(again)
        time.sleep(0.2)
    assert process.stdout.readline() == "asked\n"
    time.sleep(0.5)
    assert process.poll() is None
    process.kill()
    process.communicate()


@pytest.mark.slow
def test_a_driver_on_ray_hears_sigterm_and_ends_in_its_own_time(tmp_path: Path) -> None:
    folder = tempfile.mkdtemp(prefix="ray")
    environment = without_tokens(tmp_path, RAY_TMPDIR=folder, PYTHONPATH=str(ROOT))
    process = subprocess.Popen([sys.executable, "-c", RAY], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout and process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=60)[0] == "ended\n" and process.returncode == 0
    finally:
        process.kill()
        end_processes_of(folder)
        shutil.rmtree(folder, ignore_errors=True)


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
    process.send_signal(signal.SIGINT)
    assert process.stdout and process.stdout.readline() == "first\n"
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    process.wait(10)
    assert process.returncode == 130 and time.monotonic() - began < 2
