"""What a search knows of its trials: plain records for journal, tracker, live view and report (torch-free)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Status(StrEnum):
    """Where a trial stands. RUNNING in a journal without a live search means interrupted: it can be resumed."""

    RUNNING = "running"
    COMPLETE = "complete"  # trained to its last epoch
    STOPPED = "stopped"  # ended early by the scheduler
    FAILED = "failed"


@dataclass(frozen=True)
class Objective:
    """One metric to optimise; `bound_max` / `bound_min` reject configurations outside (known before training)."""

    metric: str
    mode: str  # "max" | "min"
    bound_max: float | None = None
    bound_min: float | None = None

    def better(self, a: float, b: float) -> bool:
        return a > b if self.mode == "max" else a < b


@dataclass
class Incident:
    """Something that went wrong with a trial and was dealt with."""

    kind: str  # "node" | "worker" | "hung" | "error" | "memory" | "gave up" | "checkpoint" | "proxy"
    reason: str
    time: float  # seconds since 1970
    epoch: int  # the trial's last one then; 0 before the first
    stack: str = ""  # where it stood, if it hung or failed


@dataclass
class EpochRecord:
    epoch: int  # counted from 1
    metrics: dict[str, float]  # "train/loss", "val/accuracy", ...
    seconds: float


@dataclass
class TrialRecord:
    id: str  # "t0042"
    number: int  # 42
    name: str  # "t0042-soft_moa-e7-r128"
    params: dict[str, Any]  # active sampled parameters, dotted keys
    trainable_params: int
    enqueued: bool = False
    status: Status = Status.RUNNING
    reason: str = ""  # why stopped or failed
    epochs: list[EpochRecord] = field(default_factory=list)
    started: float = 0.0  # seconds since 1970
    ended: float | None = None
    incidents: list[Incident] = field(default_factory=list)

    def best(self, objective: Objective) -> EpochRecord | None:
        """The epoch with the best value of `objective` (the first one among equals), None before any report."""
        chosen: EpochRecord | None = None
        for record in self.epochs:
            value = record.metrics.get(objective.metric)
            if value is None or not math.isfinite(value):
                continue
            if chosen is None or objective.better(value, chosen.metrics[objective.metric]):
                chosen = record
        return chosen

    def value(self, objective: Objective) -> float | None:
        """Value of the objective at this trial's best epoch; `trainable_params` is known without training."""
        if objective.metric == "trainable_params":
            return float(self.trainable_params)
        best = self.best(objective)
        return None if best is None else best.metrics[objective.metric]


@dataclass
class SearchRecord:
    """Everything the report needs. `info` holds plain facts: space name, backbone, data set, digests, versions."""

    name: str
    directory: str
    objectives: list[Objective]
    info: dict[str, Any]
    trials: list[TrialRecord] = field(default_factory=list)
    rejected: list[dict[str, Any]] = field(
        default_factory=list
    )  # {"params": ..., "trainable_params": ... (None: does not fit the backbone), "reason": ...}
    test: dict[str, float] = field(default_factory=dict)  # test metrics of the winner
    winner: str | None = None  # trial id
    seconds: float = 0.0

    def ranked(self) -> list[TrialRecord]:
        """Trials that reported and did not fail, best value of the first objective first."""
        first = self.objectives[0]
        sound = [t for t in self.trials if t.status is not Status.FAILED]
        scored = [(t.value(first), t) for t in sound if t.best(first) is not None]
        return [t for _, t in sorted(scored, key=lambda p: p[0] or 0.0, reverse=first.mode == "max")]
