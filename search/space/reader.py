"""Walking through a parsed file and collecting every mistake on the way (torch-free)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from petl.errors import nearest
from search.space.errors import Mistake, SpaceError, listed, shown
from search.space.yamlfile import Document, Path, at

LARGEST = 2**53
"""Whole numbers above this are no longer exact as real numbers, and no setting comes near."""


def is_number(value: Any) -> bool:
    """Whether `value` is a finite number of a size that settings have."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= LARGEST


class Reader:
    """Typed access to a `Document`. A wrong entry is noted and skipped, so that one run finds all mistakes.

    `origins` maps dotted paths that came from the command line to how they were said there (`--set x`).
    """

    def __init__(self, document: Document, origins: Mapping[Path, str]) -> None:
        self.document = document
        self._origins = origins
        self._mistakes: list[tuple[int, Mistake]] = [(0, mistake) for mistake in document.mistakes]

    def wrong(self, path: Path, message: str) -> None:
        """Note a mistake at `path`."""
        for end in range(len(path), 0, -1):
            if path[:end] in self._origins:
                self._mistakes.append((0, Mistake(self._origins[path[:end]], message)))
                return
        line = self.document.line(path) if path else None
        self._mistakes.append((line or 0, Mistake(at(line, path), message)))

    def typed(self, path: Path) -> bool:
        """Whether the entry at `path` came from the command line."""
        return path in self._origins

    def line(self, key: str) -> int | None:
        """Line of a key of `params` or `base`; None for one that came from the command line."""
        if ("base", key) in self._origins:
            return None
        lines = self.document.lines
        return lines.get(("params", key)) or lines.get(("base", key))

    def ok(self) -> bool:
        return not self._mistakes

    def stop_if_wrong(self) -> None:
        """Raise `SpaceError` with everything noted so far, in the order of the file."""
        if self._mistakes:
            ordered = sorted(self._mistakes, key=lambda pair: pair[0])
            raise SpaceError(self.document.file, dict.fromkeys(mistake for _, mistake in ordered))

    def mapping(self, value: Any, path: Path, allowed: Iterable[str] | None, example: str) -> dict[str, Any]:
        """`value` as a mapping with known keys only; {} when it is none."""
        if not isinstance(value, dict):
            self.wrong(path, f"a mapping is expected, such as {example}; found {shown(value)}")
            return {}
        known = None if allowed is None else list(allowed)
        good = {}
        for key, inner in value.items():
            if known is not None and key not in known:
                self.wrong((*path, key), f"unknown key{nearest(key, known)}; allowed: {listed(known)}")
            else:
                good[key] = inner
        return good

    def integer(self, value: Any, path: Path, default: int, low: int, high: int = LARGEST) -> int:
        """`value` as a whole number from `low` to `high`; the default when it is wrong or not given."""
        if value is None:
            return default
        if not isinstance(value, int) or isinstance(value, bool):
            self.wrong(path, f"a whole number is expected, found {shown(value)}")
        elif value < low:
            self.wrong(path, f"at least {low} is expected, found {value}")
        elif value > high:
            self.wrong(path, f"at most {high} is expected, found {shown(value)}")
        else:
            return value
        return default

    def number(self, value: Any, path: Path) -> float | None:
        """`value` as a number; None when it is none."""
        if is_number(value):
            return float(value)
        self.wrong(path, f"a number is expected, found {shown(value)}")
        return None

    def truth(self, value: Any, path: Path, default: bool) -> bool:
        """`value` as true or false."""
        if value is None:
            return default
        if isinstance(value, bool):
            return value
        self.wrong(path, f"true or false is expected, found {shown(value)}")
        return default

    def one_of(self, value: Any, path: Path, allowed: tuple[str, ...], default: str) -> str:
        """`value` as one of a few words."""
        if value is None:
            return default
        if value in allowed:
            return str(value)
        close = nearest(value, allowed) if isinstance(value, str) else ""
        self.wrong(path, f"found {shown(value)}{close}; allowed: {listed(allowed)}")
        return default
