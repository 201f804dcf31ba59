"""Ctrl-C once: end in an orderly way; twice: end now, leaving nothing behind; three times: end (torch-free)."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

_AT_ONCE_S = 8.0


class Interrupts:
    """What a person asked for while a search runs.

    `asked` is set by the first SIGINT or SIGTERM. `at_once` is what the second one has done before the process ends,
    in this order: each short, and safe in any state.
    """

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.at_once: list[Callable[[], None]] = []
        self._count = 0

    def signal(self, number: int, frame: Any) -> None:
        self._count += 1
        self.asked.set()
        if self._count == 2:
            # In a thread of its own: this one may hold any lock.
            threading.Thread(target=self._end, daemon=True, name="end-now").start()
        elif self._count > 2:
            os._exit(130)

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


def _quietly(act: Callable[[], None]) -> None:
    with contextlib.suppress(BaseException):
        act()
