"""A short trial and what it leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from trainables.checkpoints import CheckpointStore
from trainables.session import Session


def flat_of(root: Path, backbone: Path, **more: Any) -> dict[str, Any]:
    """The configuration of a short trial on a manifest."""
    return {
        "dataset": "manifest",
        "data": str(root),
        "backbone": str(backbone),
        "method": "lora",
        "lora.rank": 2,
        "epochs": 1,
        "train.precision": "float32",
        **more,
    }


def trained(flat: dict[str, Any], place: Path, monitor: tuple[str, str] = ("val/accuracy", "max")) -> tuple[Any, Any]:
    """The report of the last epoch and its checkpoint."""
    session = Session(CheckpointStore(str(place)), torch.device("cpu"), None, monitor)
    report = session.epoch("t", flat)
    while not report["done"]:
        report = session.epoch("t", flat)
    checkpoint = CheckpointStore(str(place)).read("t", "last")
    assert checkpoint is not None
    return report, checkpoint
