"""What the reader of a data set has to say besides its clips (torch-free).

A reader raises `Problems` with everything that is wrong with one of its tables. Who wants to know what is wrong with
all of them, and with the clips of the good rows besides, reads with `keep_going`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from trainables.data.datasets.base import Problems


@dataclass
class Reading:
    """`left_out`: what is not taken as it is, a sentence each. `problems`: only with `keep_going`."""

    keep_going: bool = False
    left_out: list[str] = field(default_factory=list)
    problems: list[Problems] = field(default_factory=list)


_current: ContextVar[Reading | None] = ContextVar("reading", default=None)


@contextmanager
def reading(*, keep_going: bool = False) -> Iterator[Reading]:
    """Gather what readers say in here."""
    found = Reading(keep_going)
    before = _current.set(found)
    try:
        yield found
    finally:
        _current.reset(before)


def tell(message: str) -> None:
    """Say something that is worth knowing and no error: what was left out, or taken for something else."""
    current = _current.get()
    if current is not None and message not in current.left_out:
        current.left_out.append(message)


def refuse(where: Path | str, found: Sequence[str]) -> None:
    """Raise `Problems`; but where all that is wrong is wanted, note it and return, to go on with what is good."""
    problems = Problems(where, found)
    current = _current.get()
    if current is None or not current.keep_going:
        raise problems
    current.problems.append(problems)
