"""Errors that are written for the person at the keyboard (torch-free)."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """The request cannot be carried out as asked.

    The message names the file, key or row, what was found, what is allowed and what to do. Command lines
    print it alone, without a traceback, and exit with status 2.
    """


class ConfigError(UserError):
    """A configuration key or value is wrong. `key` is the dotted name when one key is to blame."""

    def __init__(self, message: str, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key


def nearest(word: str, known: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" for the closest known word, or "" when nothing is close."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.55)
    return f" (did you mean '{close[0]}'?)" if close else ""
