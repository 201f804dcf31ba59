"""What a worker answers, as plain values that any serialiser takes (torch-free but for what it is given)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trainables.checkpoints import Checkpoint
from trainables.config import TrialConfig
from trainables.loop import Report
from trainables.memory import OutOfMemory

Answer = dict[str, Any]
Past = Sequence[dict[str, Any]]


def reported(report: Report, parts: int, notes: list[str], past: Past | None) -> Answer:
    """A new epoch. `past`: the epochs before it, for who does not know them."""
    return _epoch(report.epoch, report.seconds, report.over, report.metrics, parts, notes, past)


def repeated(last: Checkpoint, config: TrialConfig, notes: list[str], past: Past | None) -> Answer:
    """The report of an epoch that was trained before."""
    meta = last.meta
    over = bool(meta.get("over", False)) or meta["epoch"] >= config.epochs
    return _epoch(meta["epoch"], meta["seconds"], over, meta["metrics"], parts_of(last), notes, past)


def out_of_memory(error: OutOfMemory, parts: int) -> Answer:
    """`oom` with the clips that were computed at a time (`micro`); `error` where there is nothing left to cut."""
    if error.clips > 1:
        return {"oom": str(error), "micro": error.clips, "parts": parts}
    return {"error": f"{error}; a batch of one clip cannot be made smaller: it needs a device with more memory"}


def past_of(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    """All epochs up to the checkpoint's own: {"epoch", "seconds", "metrics"}."""
    return list(checkpoint.meta.get("history", []))


def parts_of(checkpoint: Checkpoint | None) -> int:
    """In how many parts what is computed at a time had to be cut so far."""
    return int(checkpoint.meta.get("parts", 1)) if checkpoint is not None else 1


def _epoch(
    number: int, seconds: float, over: bool, metrics: dict[str, float], parts: int, notes: list[str], past: Past | None
) -> Answer:
    answer: Answer = {
        "epoch": number,
        "seconds": seconds,
        "done": over,
        **metrics,
    }
    if parts > 1:
        answer["parts"] = parts
    if notes:
        answer["notes"] = notes
    if past is not None:
        answer["past"] = [epoch for epoch in past if epoch["epoch"] < number]
    return answer
