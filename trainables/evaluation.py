"""How good a model is on a split: its answers, clip by clip, and what they measure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from petl.model import AudioModel
from trainables import batches
from trainables.collective import in_order, rank, world
from trainables.config import TrialConfig
from trainables.data import AudioData
from trainables.data.clips import Clip
from trainables.memory import noticing, pieces
from trainables.precision import choose
from trainables.tasks import Task


@dataclass
class Answers:
    """Answers to the clips of a split, in its order, and their losses where the task has any."""

    task: Task
    clips: tuple[Clip, ...]
    kept: list[Any]
    losses: list[float]

    def metrics(self) -> dict[str, float]:
        """The task's metrics, and the mean loss over the clips for which it is finite (without any, NaN)."""
        found = self.task.measure(self.kept, self.clips)
        if self.losses:
            finite = [loss for loss in self.losses if math.isfinite(loss)]
            found["loss"] = math.fsum(finite) / len(finite) if finite else math.nan
        return found

    def tables(self) -> dict[str, Any]:
        return self.task.tables(self.kept, self.clips)

    def intervals(self) -> dict[str, tuple[float, float]]:
        return self.task.intervals(self.kept, self.clips)


@torch.inference_mode()
def answers_on(config: TrialConfig, model: AudioModel, data: AudioData, split: str, parts: int = 1) -> Answers:
    """Ask a model about every clip of a split: the same on every worker.

    Batches are cut into `parts` pieces, padded as the whole batch is. Raises `OutOfMemory` when memory runs out.
    """
    device = next(iter(model.parameters())).device
    dtype, _ = choose(config.train.precision, device, model.adapted.shape.hidden)
    task = data.task(config.train)
    targets = None if task.output.embeds else task.targets(data.clips(split))
    model.eval()
    mine = batches.for_judging(config, data, split)[rank() :: world()]
    kept: list[Any] = []
    losses: list[float] = []
    for part, loaded in zip(
        mine,
        batches.prefetched(lambda part: data.batch(split, part), mine, batches.Waiting(), config.train.loaders),
        strict=True,
    ):
        cut = pieces(len(part), parts)
        with noticing(max(len(part[piece.clips]) for piece in cut), "judging"):
            x = loaded.to(device)
            for piece in cut:
                mask = None if x.mask is None else x.mask[piece.clips]
                with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
                    logits = model(x.values[piece.clips], mask)
                lengths_B = model.lengths(mask)
                kept += task.answers(logits, lengths_B)
                if targets is not None:
                    wanted = targets.at(part[piece.clips]).to(device)
                    losses_B = task.judged_losses(logits.float(), lengths_B, wanted)
                    losses += [] if losses_B is None else losses_B.tolist()
    places = torch.cat(mine).tolist() if mine else []
    known: list[float | None] = [*losses] if losses else [None] * len(kept)
    ordered = in_order(list(zip(kept, known, strict=True)), places)
    # A worker without a batch of its own learns from the others whether there are losses.
    every = [loss for _, loss in ordered if loss is not None]
    return Answers(task, data.clips(split), [answer for answer, _ in ordered], every)


def tables_of(repeats: Sequence[Answers]) -> dict[str, Any]:
    """Tables of the answers of all repeats; of vectors those of the first, for no two models' can be compared."""
    return _together(repeats).tables() if _comparable(repeats) else repeats[0].tables()


def intervals_of(repeats: Sequence[Answers]) -> dict[str, tuple[float, float]]:
    """Intervals over the clips of all repeats; none where repeats share clips, which are then not as many as it seems.

    So folds have intervals, and draws of training clips, which are all judged on the same clips, have none.
    """
    clips = [clip.order for part in repeats for clip in part.clips]
    if not _comparable(repeats) or len(set(clips)) < len(clips):
        return {}
    return _together(repeats).intervals()


def _comparable(repeats: Sequence[Answers]) -> bool:
    return len(repeats) == 1 or repeats[0].task.pools


def _together(parts: Sequence[Answers]) -> Answers:
    """The answers of several repeats as those to one long split."""
    first = parts[0]
    return Answers(
        first.task,
        tuple(clip for part in parts for clip in part.clips),
        [answer for part in parts for answer in part.kept],
        [loss for part in parts for loss in part.losses],
    )
