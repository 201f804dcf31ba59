"""Ctrl-C once: end in an orderly way; twice: end now, leaving nothing behind; three times: end (torch-free)."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

_AT_ONCE_S = 8.0
_ONE_REQUEST_S = {signal.SIGINT: 0.2}
"""Signals within so many seconds are one request: a terminal, `uv run` and `timeout` may each send the same one."""
_OF_MACHINES_S = 2.0


class Interrupts:
    """What a person asked for while a search runs.

    `asked` is set by the first SIGINT, SIGTERM or SIGHUP. `at_once` is what the second one has done before the process
    ends, in this order: each short, and safe in any state.
    """

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.at_once: list[Callable[[], None]] = []
        self._count = 0
        self._last = float("-inf")

    def signal(self, number: int, frame: Any) -> None:
        now = time.monotonic()
        again = now - self._last < _ONE_REQUEST_S.get(signal.Signals(number), _OF_MACHINES_S)
        if again and self._count:
            return
        self._last = now
        self._count += 1
        self.asked.set()
        if self._count == 2:
            self.end_now()
        elif self._count > 2:
            os._exit(130)

    def end_now(self) -> None:
        """What the second signal does. In a thread of its own: the calling one may hold any lock."""
        threading.Thread(target=self._end, daemon=True, name="end-now").start()

    def _end(self) -> None:
        """Do what there is to do, in threads that nobody waits for longer than a few seconds, and end the process."""
        for act in self.at_once:
            doing = threading.Thread(target=_quietly, args=(act,), daemon=True)
            doing.start()
            doing.join(_AT_ONCE_S / len(self.at_once))
        os._exit(130)


@contextlib.contextmanager
def interrupts() -> Iterator[Interrupts]:
    """While it lasts, SIGINT, SIGTERM and SIGHUP ask the search to end."""
    found = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield found
        return
    # SIGHUP: the terminal was closed. Whoever wants a search to outlive it starts it with nohup, which ignores that.
    hangup = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    wanted = [signal.SIGINT, signal.SIGTERM, *hangup]
    before = {s: signal.signal(s, found.signal) for s in wanted}
    try:
        yield found
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Around what puts handlers of its own in the place of Python's.

    Ray's puts one for SIGTERM there that ends the process three seconds later, whatever it is doing.
    """
    here = threading.current_thread() is threading.main_thread()
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)} if here else {}
    try:
        yield
    finally:
        for which, handler in before.items():
            if handler is not None:
                signal.signal(which, handler)


def _quietly(act: Callable[[], None]) -> None:
    with contextlib.suppress(BaseException):
        act()
