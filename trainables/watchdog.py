"""What ends a worker whose command overruns its deadline, and tells where it hung (torch-free, Ray-free).

A thread of Python takes the stack, has it delivered and ends the process. Code that never gives the interpreter's lock
back stops that thread, too; `faulthandler`, whose thread needs no lock, then writes all stacks to the standard error
and ends the process a little later.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator

EXIT_CODE = 70
_LINES = 30  # of the stack, the innermost ones
_DELIVERY_S = 5.0
_LONGEST_S = 1e7  # longer than any training; clocks overflow somewhere beyond
_STDERR = 2  # the descriptor: `sys.stderr` may be something without one


class Watchdog:
    """Watches the command that is being executed, one at a time.

    Args:
        tell: is given the number of the overdue command and the stack it hung in, as text; at most 5 s are waited
            for it.
        backstop: seconds after the deadline at which the process ends even if no Python code can run.
    """

    def __init__(self, tell: Callable[[int, str], object], backstop: float = 10.0) -> None:
        self._tell, self._backstop = tell, backstop
        self._changed = threading.Condition()
        self._number, self._thread, self._seconds = 0, 0, 0.0
        self._due: float | None = None
        threading.Thread(target=self._watch, daemon=True, name="watchdog").start()

    @contextlib.contextmanager
    def over(self, number: int, seconds: float) -> Iterator[None]:
        """Watch the calling thread execute command `number`, for at most `seconds`."""
        self._number, self._thread, self._seconds = number, threading.get_ident(), seconds
        self._arm(seconds)
        try:
            yield
        finally:
            self._disarm()

    def renew(self) -> None:
        """The command has shown that it gets on: its whole time begins again. Safe from any thread."""
        with self._changed:
            if self._due is not None:
                self._arm(self._seconds)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """The time in here does not count; for waits that have a limit of their own."""
        left = self._disarm()
        try:
            yield
        finally:
            if left is not None:
                self._arm(left)

    def _arm(self, seconds: float) -> None:
        seconds = min(max(0.0, seconds), _LONGEST_S)
        with self._changed:
            self._due = time.monotonic() + seconds
            self._changed.notify_all()
        faulthandler.dump_traceback_later(seconds + self._backstop, exit=True, file=_STDERR)

    def _disarm(self) -> float | None:
        with self._changed:  # not while the watching thread finds the command overdue
            left = None if self._due is None else self._due - time.monotonic()
            self._due = None
            self._changed.notify_all()
        faulthandler.cancel_dump_traceback_later()
        return left

    def _watch(self) -> None:
        with self._changed:
            while True:
                left = None if self._due is None else self._due - time.monotonic()
                if left is not None and left <= 0:
                    break
                self._changed.wait(left)
            # With the lock held: from here on the command cannot end any more, only the process can.
            number, stack = self._number, _stack_of(self._thread)
            telling = threading.Thread(target=self._told, args=(number, stack), daemon=True)
            telling.start()
            telling.join(_DELIVERY_S)
            os._exit(EXIT_CODE)

    def _told(self, number: int, stack: str) -> None:
        with contextlib.suppress(Exception):  # whoever should hear of it may be gone; the process ends all the same
            self._tell(number, stack)


def _stack_of(thread: int) -> str:
    frame = sys._current_frames().get(thread)
    if frame is None:
        return ""
    return "\n".join("".join(traceback.format_stack(frame)).splitlines()[-_LINES:])
