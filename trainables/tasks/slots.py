"""Several labels per clip, one of each kind: what a spoken command wants done, with what, and where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

from petl.errors import ConfigError, UserError, nearest
from petl.outputs import Output
from petl.outputs.slots import Slots
from trainables.data.clips import Clip
from trainables.data.datasets.base import Target, TaskName
from trainables.tasks.base import Targets, Task

if TYPE_CHECKING:
    from torch import Tensor


def output(target: Target, clips: Sequence[Clip], train: Sequence[int]) -> Output:
    """The labels of each slot of the target, sorted; `UserError` for a clip without one label for each."""
    for clip in clips:
        _one_for_each(clip, target.slots)
    return Slots.of({slot: sorted({clip.labels[k] for clip in clips}) for k, slot in enumerate(target.slots)})


class SlotIntent(Task):
    """The sum of the slots' cross-entropies, each with label smoothing (SURE: six actions, 14 objects, 4 places).

    K slots.
    """

    name: ClassVar[TaskName] = "slots"

    def check_options(self) -> None:
        if self.options.loss not in ("auto", "cross_entropy"):
            raise ConfigError(
                f"train.loss is '{self.options.loss}', but of each slot exactly one label holds; slots have "
                "cross_entropy",
                "train.loss",
            )

    @property
    def slots(self) -> Slots:
        return cast(Slots, self.output)

    def targets(self, clips: Sequence[Clip]) -> Targets:
        """`classes` (N, K): positions among the slot's own labels."""
        import torch

        values = self.slots.values()
        numbers = [{label: i for i, label in enumerate(own)} for own in values.values()]
        rows = []
        for clip in clips:
            _one_for_each(clip, self.slots.names)
            for slot, label, number in zip(values, clip.labels, numbers, strict=True):
                if label not in number:
                    raise UserError(
                        f"{clip.title}: '{label}' is none of the {len(number)} labels of slot '{slot}' that are "
                        f"learned{nearest(label, number)}"
                    )
            rows.append([number[label] for label, number in zip(clip.labels, numbers, strict=True)])
        return Targets({"classes": torch.tensor(rows, dtype=torch.long).reshape(len(clips), len(numbers))})

    def losses(self, logits: Tensor, lengths_B: Tensor | None, targets: Targets) -> Tensor:
        return self._sum(logits, targets, self.options.label_smoothing)

    def judged_losses(self, logits: Tensor, lengths_B: Tensor | None, targets: Targets) -> Tensor | None:
        """Without smoothing: comparable between trials."""
        return self._sum(logits, targets, 0.0)

    def right(self, logits: Tensor, lengths_B: Tensor | None, targets: Targets) -> Tensor | None:
        """The mean over the slots, as val/accuracy: a clip with two of three slots right counts 2/3."""
        return (self._predicted(logits) == targets.values["classes"]).float().mean(dim=1).sum()

    def answers(self, logits: Tensor, lengths_B: Tensor | None) -> list[Any]:
        """The logits (C,) of each clip."""
        return list(logits.float().cpu())

    def measure(self, answers: Sequence[Any], clips: Sequence[Clip]) -> dict[str, float]:
        """exact_match, and accuracy as the mean over the slots."""
        from trainables import metrics

        logits_BC, y_BK = self._stacked(answers, clips)
        return metrics.multi_slot(self._predicted(logits_BC), y_BK)

    def tables(self, answers: Sequence[Any], clips: Sequence[Clip]) -> dict[str, Any]:
        """`per_slot`: slot, labels (how many), accuracy; `per_class`: label ("slot=label"), clips, precision, …"""
        from trainables import metrics

        logits_BC, y_BK = self._stacked(answers, clips)
        accuracy = metrics.per_slot(self._predicted(logits_BC), y_BK, self.slots.names)
        per_class: list[dict[str, Any]] = []
        first = 0
        for part_BC, y_B in zip(logits_BC.split(self.slots.sizes, dim=1), y_BK.T, strict=True):
            labels = self.output.labels[first : first + part_BC.shape[1]]
            per_class += [row._asdict() for row in metrics.class_table(part_BC, y_B, labels)]
            first += len(labels)
        per_slot = [{"slot": name, "labels": size, "accuracy": accuracy[name]} for name, size in self.slots.slots]
        return {"per_slot": per_slot, "per_class": per_class}

    def intervals(self, answers: Sequence[Any], clips: Sequence[Clip]) -> dict[str, tuple[float, float]]:
        """Of exact_match and accuracy."""
        from trainables import metrics

        logits_BC, y_BK = self._stacked(answers, clips)
        right_BK = self._predicted(logits_BC) == y_BK
        exact = metrics.interval_of_mean(right_BK.all(dim=1).double().numpy())
        accuracy = metrics.interval_of_mean(right_BK.double().mean(dim=1).numpy())
        return {"exact_match": (exact.low, exact.high), "accuracy": (accuracy.low, accuracy.high)}

    def _sum(self, logits: Tensor, targets: Targets, smoothing: float) -> Tensor:
        import torch
        from torch.nn import functional

        parts = logits.float().split(self.slots.sizes, dim=1)
        return torch.stack(
            [
                functional.cross_entropy(part_BC, y_B, reduction="none", label_smoothing=smoothing)
                for part_BC, y_B in zip(parts, targets.values["classes"].T, strict=True)
            ]
        ).sum(dim=0)

    def _predicted(self, logits_BC: Tensor) -> Tensor:
        """Class numbers (B, K)."""
        import torch

        return torch.stack([part_BC.argmax(dim=1) for part_BC in logits_BC.split(self.slots.sizes, dim=1)], dim=1)

    def _stacked(self, answers: Sequence[Any], clips: Sequence[Clip]) -> tuple[Tensor, Tensor]:
        import torch

        return torch.stack(list(answers)), self.targets(clips).values["classes"]


def _one_for_each(clip: Clip, slots: Sequence[str]) -> None:
    if len(clip.labels) != len(slots):
        raise UserError(
            f"{clip.title}: {len(clip.labels)} labels ({', '.join(clip.labels)}); one is needed for each of "
            f"{', '.join(slots)}, in this order"
        )
