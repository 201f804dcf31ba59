"""What the journal of a run says, read without the search's own reader, and whether it agrees with itself."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Metrics = dict[str, float | None]  # None: not a finite number


@dataclass
class Trial:
    """One trial, as its lines have it. `status` is "running" before its end."""

    id: str
    number: int
    name: str
    params: dict[str, Any]
    status: str = "running"
    reason: str = ""
    epochs: dict[int, Metrics] = field(default_factory=dict)

    def best(self, metric: str, mode: str) -> tuple[int, float] | None:
        """The first epoch with the best finite value, and that value."""
        sign = -1.0 if mode == "max" else 1.0
        found = [(sign * v, e) for e, metrics in self.epochs.items() if (v := metrics.get(metric)) is not None]
        return None if not found else (min(found)[1], sign * min(found)[0])


@dataclass
class Told:
    """The whole search. `over`: the winner was chosen and nothing happened to any trial since."""

    search_id: str
    directory: Path
    info: dict[str, Any]
    objectives: list[dict[str, Any]]
    trials: dict[str, Trial] = field(default_factory=dict)
    winner: str | None = None
    test: dict[str, float] = field(default_factory=dict)
    over: bool = False

    @property
    def objective(self) -> tuple[str, str]:
        """Metric and mode that trials are ranked by."""
        trained = [o for o in self.objectives if o["metric"] != "trainable_params"]
        first = (trained or self.objectives)[0]
        return first["metric"], first["mode"]


def read(directory: Path) -> tuple[Told, list[str]]:
    """What the journal tells, and where it contradicts itself."""
    told: Told | None = None
    wrong: list[str] = []
    lines = (directory / "journal.jsonl").read_bytes().split(b"\n")
    if lines[-1]:
        wrong.append("journal: its last line is torn")
    for number, line in enumerate(lines[:-1], start=1):
        try:
            event = json.loads(line)
        except ValueError:
            wrong.append(f"journal, line {number}: not JSON")
            continue
        if event["event"] == "search":
            info = event["info"]
            identity = str(info.get("search_id") or directory)
            told = Told(identity, directory, dict(info), event["objectives"])
        elif told is None:
            wrong.append(f"journal, line {number}: before the line of the search")
        else:
            wrong += [f"journal, line {number}: {what}" for what in _take(told, event)]
    if told is None:
        raise ValueError(f"{directory / 'journal.jsonl'} has no line of a search")
    return told, wrong + _whole(told)


def same(a: Any, b: Any) -> bool:
    """Equal numbers; what is not finite, or not there, is all one."""
    a, b = (None if isinstance(v, float) and not math.isfinite(v) else v for v in (a, b))
    if a is None or b is None:
        return a is b
    return math.isclose(a, b, rel_tol=1e-12, abs_tol=1e-300)


def _take(told: Told, event: dict[str, Any]) -> list[str]:
    kind = event["event"]
    if kind == "finished":
        told.winner, told.test, told.over = event["winner"], event["test"], True
        told.info |= event.get("info", {})
        return []
    if kind not in ("trial", "epoch", "end"):
        return []
    told.over = False
    id = event["trial"]
    if kind == "trial":
        if id in told.trials:
            return [f"{id} begins a second time"]
        told.trials[id] = Trial(id, event["number"], event["name"], event["params"])
        return []
    trial = told.trials.get(id)
    if trial is None:
        return [f"{kind} of {id}, which never began"]
    if trial.status != "running":
        return [f"{kind} of {id}, which was {trial.status} already"]
    if kind == "end":
        trial.status, trial.reason = event["status"], event["reason"]
        return []
    epoch = event["epoch"]
    if epoch in trial.epochs:
        return [f"{id} has epoch {epoch} twice"]
    trial.epochs[epoch] = event["metrics"]
    return []


def _whole(told: Told) -> list[str]:
    wrong = []
    for trial in told.trials.values():
        if list(trial.epochs) != list(range(1, len(trial.epochs) + 1)):
            wrong.append(f"journal: epochs of {trial.id} are {list(trial.epochs)}, not 1 to {len(trial.epochs)}")
        if trial.status in ("complete", "stopped") and not trial.epochs:
            wrong.append(f"journal: {trial.id} is {trial.status} without an epoch")
        if told.over and trial.status == "running":
            wrong.append(f"journal: {trial.id} still runs in a search that is over")
    numbers = [trial.number for trial in told.trials.values()]
    first = min(numbers, default=0)
    if sorted(numbers) != list(range(first, first + len(numbers))):
        wrong.append(f"journal: trials are numbered {sorted(numbers)}")
    return wrong + (_chosen(told) if told.over else [])


def _chosen(told: Told) -> list[str]:
    metric, mode = told.objective
    values = {t.id: best[1] for t in told.trials.values() if t.status != "failed" and (best := t.best(metric, mode))}
    top = (max if mode == "max" else min)(values.values(), default=None)
    if told.winner not in values:
        return [f"journal: the winner {told.winner} is no trial with a value of {metric}"]
    if values[told.winner] != top:
        return [f"journal: the winner {told.winner} has {metric} {values[told.winner]}, the best is {top}"]
    return []
