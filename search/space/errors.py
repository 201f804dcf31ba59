"""What is wrong with a space file, said once, completely and with line numbers (torch-free)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from petl.errors import UserError


@dataclass(frozen=True)
class Mistake:
    """One mistake: where it stands, and what was found, what is allowed and what to do."""

    where: str  # "line 12, params.moa.experts", "--set scheduler.eta", or "" for the file as a whole
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


class SpaceError(UserError):
    """A space file cannot be used. `mistakes` holds all that were found, in the order of the file."""

    def __init__(self, file: str, mistakes: Iterable[Mistake]) -> None:
        self.file = file
        first: dict[str, Mistake] = {}
        for mistake in mistakes:  # one cause may show in many places (every enqueued configuration): said once
            first.setdefault(mistake.message, mistake)
        self.mistakes = tuple(first.values())
        if len(self.mistakes) == 1:
            text = str(self.mistakes[0])
            joint = ", " if self.mistakes[0].where else ": "
            super().__init__(f"{file}{joint}{text}")
        else:
            lines = [f"{file}: {len(self.mistakes)} mistakes"]
            lines += [f"  {number}. {mistake}" for number, mistake in enumerate(self.mistakes, 1)]
            super().__init__("\n".join(lines))


def shown(value: Any) -> str:
    """A value the way a space file would spell it, cut when long."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        text = f"'{value}'"
    elif isinstance(value, float):
        text = _number(value)
    elif isinstance(value, (list, tuple)):
        text = f"[{', '.join(shown(v).strip() for v in value)}]"
    elif isinstance(value, dict):
        text = f"{{{', '.join(f'{k}: {shown(v)}' for k, v in value.items())}}}"
    else:
        text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."


def listed(values: Iterable[Any]) -> str:
    """Allowed values in one line: a, b, c."""
    return ", ".join(v if isinstance(v, str) else shown(v) for v in values)


def _number(value: float) -> str:
    if math.isfinite(value) and value == int(value) and abs(value) < 1e6:
        return str(int(value))
    return f"{value:g}"
