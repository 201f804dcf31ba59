"""How long work on data tells that it gets on (torch-free)."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Takes (clips done, all clips), after every clip."""

Busy = Callable[[], None]
"""Called after every step, for who only wants to know that there was one."""


def idle() -> None:
    """A `Busy` for which nobody waits."""
