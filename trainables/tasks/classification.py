"""One of several classes per clip: sounds, keywords, emotions, speakers, genres, intents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from petl.errors import ConfigError, UserError, nearest
from petl.outputs import Classes, Output
from trainables.data.clips import Clip
from trainables.data.datasets.base import Target, TaskName
from trainables.tasks.base import Targets, Task

if TYPE_CHECKING:
    from torch import Tensor


def output(target: Target, clips: Sequence[Clip], train: Sequence[int]) -> Output:
    """The classes, sorted: their numbers do not depend on any order."""
    return Classes(tuple(sorted({clip.label for clip in clips})))


class Classification(Task):
    """Cross-entropy with label smoothing; `loss: bce` takes every class as a yes or no of its own (AAT).

    Binary cross-entropy is the mean over the classes, as torch's `BCEWithLogitsLoss`.
    """

    name: ClassVar[TaskName] = "classification"

    def check_options(self) -> None:
        if self.options.loss == "am_softmax":
            raise ConfigError(
                "train.loss is 'am_softmax', which needs a task that compares voices (verification); classification "
                "has cross_entropy and bce",
                "train.loss",
            )

    def targets(self, clips: Sequence[Clip]) -> Targets:
        """`classes` (N,): positions in the labels."""
        import torch

        number = {label: i for i, label in enumerate(self.output.labels)}
        for clip in clips:
            if clip.label not in number:
                raise UserError(
                    f"{clip.title}: class '{clip.label}' is none of the {len(number)} that are "
                    f"learned{nearest(clip.label, number)}"
                )
        return Targets({"classes": torch.tensor([number[clip.label] for clip in clips], dtype=torch.long)})

    def losses(self, logits: Tensor, lengths_B: Tensor | None, targets: Targets) -> Tensor:
        from torch.nn import functional

        logits_BC, y_B = logits.float(), targets.values["classes"]
        smoothing = self.options.label_smoothing
        if self.options.loss == "bce":
            wanted_BC = functional.one_hot(y_B, logits_BC.shape[1]).float()
            wanted_BC = wanted_BC * (1 - smoothing) + smoothing / logits_BC.shape[1]
            return functional.binary_cross_entropy_with_logits(logits_BC, wanted_BC, reduction="none").mean(dim=1)
        return functional.cross_entropy(logits_BC, y_B, reduction="none", label_smoothing=smoothing)

    def right(self, logits: Tensor, lengths_B: Tensor | None, targets: Targets) -> Tensor | None:
        return (logits.argmax(dim=1) == targets.values["classes"]).sum()

    def judged_losses(self, logits: Tensor, lengths_B: Tensor | None, targets: Targets) -> Tensor | None:
        """Cross-entropy without smoothing, whatever is trained on: comparable between trials."""
        from torch.nn import functional

        return functional.cross_entropy(logits.float(), targets.values["classes"], reduction="none")

    def answers(self, logits: Tensor, lengths_B: Tensor | None) -> list[Any]:
        """The logits (C,) of each clip."""
        return list(logits.float().cpu())

    def measure(self, answers: Sequence[Any], clips: Sequence[Clip]) -> dict[str, float]:
        """accuracy, macro_f1 and weighted_f1."""
        from trainables import metrics

        found = metrics.single_label(*self._stacked(answers, clips))
        del found["loss"]
        return found

    def tables(self, answers: Sequence[Any], clips: Sequence[Clip]) -> dict[str, Any]:
        """`confusion`; `per_class`: label, clips, precision, recall, f1."""
        from trainables import metrics

        logits_BC, y_B = self._stacked(answers, clips)
        return {
            "confusion": {"labels": list(self.output.labels), "matrix": metrics.confusion(logits_BC, y_B)},
            "per_class": [row._asdict() for row in metrics.class_table(logits_BC, y_B, self.output.labels)],
        }

    def intervals(self, answers: Sequence[Any], clips: Sequence[Clip]) -> dict[str, tuple[float, float]]:
        """Of accuracy and macro_f1."""
        from torch.nn import functional

        from trainables import metrics

        logits_BC, y_B = self._stacked(answers, clips)
        answered_B = logits_BC.argmax(dim=1)
        accuracy = metrics.interval_of_mean((answered_B == y_B).numpy())
        # A quarter of the logits' size to pick clips from, with the same class in front.
        answered_BC = functional.one_hot(answered_B, logits_BC.shape[1]).char()
        macro_f1 = metrics.interval(lambda b: self._macro_f1(answered_BC[b], y_B[b]), len(clips))
        return {"accuracy": (accuracy.low, accuracy.high), "macro_f1": (macro_f1.low, macro_f1.high)}

    def _macro_f1(self, scores_BC: Tensor, y_B: Tensor) -> float:
        """That of `metrics.single_label`, ten times as fast."""
        from trainables import metrics

        f1 = [row.f1 for row in metrics.class_table(scores_BC, y_B, self.output.labels) if row.f1 is not None]
        return sum(f1) / len(f1)

    def _stacked(self, answers: Sequence[Any], clips: Sequence[Clip]) -> tuple[Tensor, Tensor]:
        import torch

        return torch.stack(list(answers)), self.targets(clips).values["classes"]
