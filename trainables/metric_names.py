"""The numbers a search can optimise, by name (torch-free)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class MetricInfo:
    """What a metric is: its good direction, and whether every epoch reports it or it is known beforehand."""

    name: str
    mode: Literal["max", "min"]
    meaning: str
    per_epoch: bool = True


METRICS: dict[str, MetricInfo] = {
    info.name: info
    for info in (
        MetricInfo("val/accuracy", "max", "share of validation clips labelled right"),
        MetricInfo("val/macro_f1", "max", "F1 on the validation clips, mean over the classes"),
        MetricInfo("val/loss", "min", "mean cross-entropy on the validation clips, nats"),
        MetricInfo("train/accuracy", "max", "share of training clips labelled right during the epoch"),
        MetricInfo("train/loss", "min", "mean cross-entropy over the training clips of the epoch, nats"),
        MetricInfo("trainable_params", "min", "numbers that are trained, head included", per_epoch=False),
    )
}
"""Metric name -> what it is. Test metrics are missing on purpose: no search may look at the test split."""
