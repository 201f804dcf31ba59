"""Commands that overrun their deadline, in processes of their own, which end by it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_HEAD = """
import ctypes, sys, threading, time
from pathlib import Path
from trainables.watchdog import Watchdog

def tell(number, stack):
    Path(sys.argv[1]).write_text(f"{number} {stack}")

"""


def _run(code: str, told: Path) -> tuple[int, str, float]:
    """Exit status, standard error, and seconds from the moment that it says something."""
    with subprocess.Popen(
        [sys.executable, "-c", _HEAD + code, str(told)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=_ROOT,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        began = time.monotonic()
        _, errors = process.communicate(timeout=30)
        return process.returncode, errors, time.monotonic() - began


def test_the_stack_is_told_before_the_process_ends(tmp_path: Path) -> None:
    code = """
def stuck_in_here():
    time.sleep(60)

def command():
    with watchdog.over(7, 0.2):
        print("now", flush=True)
        stuck_in_here()

watchdog = Watchdog(tell)
worker = threading.Thread(target=command)  # as in a worker, not the main thread
worker.start()
worker.join()
"""
    status, _, took = _run(code, tmp_path / "told")
    told = (tmp_path / "told").read_text()
    assert status == 70 and took < 5
    assert told.startswith("7 ") and "in command" in told and told.endswith("in stuck_in_here")


def test_who_does_not_listen_is_not_waited_for(tmp_path: Path) -> None:
    code = """
import trainables.watchdog
trainables.watchdog._DELIVERY_S = 0.3

def deep(n):
    if n:
        deep(n - 1)
    else:
        time.sleep(60)

def deaf(number, stack):
    tell(number, stack)
    time.sleep(60)

with Watchdog(deaf).over(1, 0.1):
    print("now", flush=True)
    deep(100)
"""
    status, _, took = _run(code, tmp_path / "told")
    assert status == 70 and took < 5
    assert len((tmp_path / "told").read_text().splitlines()) <= 30  # the innermost ones


def test_code_that_keeps_the_interpreter_to_itself_is_ended_too(tmp_path: Path) -> None:
    code = """
def selfish():
    ctypes.PyDLL(None).sleep(60)

with Watchdog(tell, backstop=0.3).over(1, 0.2):
    print("now", flush=True)
    selfish()
"""
    status, errors, took = _run(code, tmp_path / "told")
    assert status == 1 and took < 5
    assert "in selfish" in errors and not (tmp_path / "told").exists()


def test_commands_in_time_and_pauses_end_nothing(tmp_path: Path) -> None:
    code = """
print("now", flush=True)
watchdog = Watchdog(tell, backstop=0.1)
for number in range(20):
    with watchdog.over(number, 0.2):
        time.sleep(0.02)
try:
    with watchdog.over(20, 0.2):
        raise ValueError
except ValueError:
    pass
with watchdog.paused():  # with nothing to pause
    time.sleep(0.4)
with watchdog.over(21, 0.25):
    with watchdog.paused():
        time.sleep(0.5)
    with watchdog.over(22, float("inf")):
        pass
time.sleep(0.5)
watchdog.renew()  # nothing is watched
with watchdog.over(23, 0.5):
    for _ in range(4):
        time.sleep(0.3)
        watchdog.renew()
time.sleep(0.7)
with watchdog.over(24, 0.3):
    time.sleep(0.15)
    with watchdog.paused():
        time.sleep(0.1)
    time.sleep(60)
"""
    status, _, took = _run(code, tmp_path / "told")
    assert status == 70 and took < 8
    assert (tmp_path / "told").read_text().startswith("24 ")
