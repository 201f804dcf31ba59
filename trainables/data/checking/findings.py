"""What a check found, for people and for programs (torch-free)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

Severity = Literal["error", "warning", "note"]
"""error: nothing can be trained as it is. warning: scores may mislead, or clips do not count. note: worth knowing."""

SEVERITIES: Final[tuple[Severity, ...]] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One kind of thing that was found, `count` times; `examples` are the first of them.

    `kind` is a word for programs; `message` says what is wrong, what is allowed and what to do.
    """

    severity: Severity
    kind: str
    message: str
    count: int = 1
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """Everything that is wrong with a copy of a data set, the errors first, and facts about it.

    `facts` has, as far as they are known: `clips`, `classes`, `speakers`, `symbols`; `splits` {split: {clips, classes,
    hours, per_class}} of the first fold where there are several; `folds` {fold: clips}; `seconds` {least, median, most,
    total}; `sample_rates` {Hz: clips}; `channels` {channels: clips}; `largest_class`, `smallest_class` [name, clips].
    """

    dataset: str
    path: Path
    target: str
    subset: str
    protocol: str
    task: str
    listened: bool
    findings: tuple[Finding, ...]
    facts: Mapping[str, Any]

    @property
    def usable(self) -> bool:
        """Whether a search can train on it as it is."""
        return not self.of("error")

    def of(self, severity: Severity) -> list[Finding]:
        return [finding for finding in self.findings if finding.severity == severity]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "dataset": self.dataset,
            "path": str(self.path),
            "target": self.target,
            "subset": self.subset,
            "protocol": self.protocol,
            "task": self.task,
            "listened": self.listened,
            "usable": self.usable,
            "findings": [asdict(finding) for finding in self.findings],
            "facts": dict(self.facts),
        }


@dataclass
class Findings:
    """Gathers findings, at most `shown` examples of each."""

    shown: int
    found: list[Finding] = field(default_factory=list)

    def add(self, severity: Severity, kind: str, message: str, examples: Sequence[str] = (), count: int = 0) -> None:
        """`count`: how many there are, where it is not the number of `examples`."""
        many = count or len(examples) or 1
        self.found.append(Finding(severity, kind, message, many, tuple(examples[: self.shown])))

    def sorted(self) -> tuple[Finding, ...]:
        """The errors first, otherwise as found."""
        return tuple(finding for severity in SEVERITIES for finding in self.found if finding.severity == severity)


def many(count: int, noun: str, plural: str = "") -> str:
    """ "1 clip", "1,234 clips"."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"
