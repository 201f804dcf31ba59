"""The wall clock of one process, which never jumps (torch-free).

Clocks are set: by a person, by a time server, by a machine that wakes up. A search that runs for days must not
record epochs before their trial began, nor spend a time budget in a second. So the wall clock is read once, and time
goes on from there by the monotonic clock.
"""

from __future__ import annotations

import time

_WALL, _MONOTONIC = time.time(), time.monotonic()


def now() -> float:
    """Seconds since 1970, never less than what an earlier call of this process returned."""
    return _WALL + (time.monotonic() - _MONOTONIC)


def not_before(seconds: float) -> None:
    """Go on from `seconds` since 1970 where the clock is behind: what is recorded from now on follows what was."""
    global _WALL
    _WALL += max(0.0, seconds - now())


def now_ms() -> int:
    """Milliseconds since 1970, as MLflow counts."""
    return int(now() * 1000)
