"""Lengths of time as people write them: `90s`, `30m`, `1h30m`, `2d` (torch-free)."""

from __future__ import annotations

import re

_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_LONGEST = 1e10  # seconds, three centuries
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([dhms])")


def parse_duration(value: str | float) -> float:
    """Seconds of `30m`, `1h30m`, `90s`; a bare number is seconds.

    Raises:
        ValueError: with what is allowed, when it is no length of time or not above zero.
    """
    seconds = 0.0
    if isinstance(value, str):
        text = value.strip().lower()
        parts = _PART.findall(text)
        if parts and _PART.sub("", text).strip() == "":
            seconds = sum(float(count) * _UNITS[unit] for count, unit in parts)
        elif re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
            seconds = float(text)
        else:
            raise ValueError(f"'{value}' is no length of time; write 90s, 30m, 1h30m or 2d")
    elif not isinstance(value, bool) and value <= _LONGEST:
        seconds = float(value)
    if not 0 < seconds <= _LONGEST:
        raise ValueError(f"'{value}' is no length of time above zero; write 90s, 30m, 1h30m or 2d")
    return seconds


def duration_text(seconds: float) -> str:
    """`1h30m` for 5400; `parse_duration` reads it back, to the second."""
    left, parts = round(seconds), []
    for unit, length in _UNITS.items():
        count, left = divmod(left, int(length))
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"
