"""Any number of labels per clip: sound events, instruments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from petl.errors import ConfigError, UserError, nearest
from petl.outputs import Output
from petl.outputs.tags import Tags
from trainables.data.clips import Clip
from trainables.data.datasets.base import Target, TaskName
from trainables.tasks.base import Targets, Task

if TYPE_CHECKING:
    from torch import Tensor

_SCORES = 4 * 10**7  # that a bootstrap may sort, about a minute
_RESAMPLES = 1000
_FEWEST = 200  # resamples that an interval is worth anything from


def output(target: Target, clips: Sequence[Clip], train: Sequence[int]) -> Output:
    """The labels that hold for any clip, sorted. What is only ever known not to hold cannot be learned."""
    return Tags(tuple(sorted({label for clip in clips for label in clip.labels})))


class Tagging(Task):
    """Binary cross-entropy, the mean over the labels that are known for the clip.

    All labels of a clip are known unless it says which do not hold: then those, and the ones that do. A clip of which
    nothing is known costs nothing. Label smoothing e moves a yes to 1 - e/2 and a no to e/2, as for any choice of two.
    """

    name: ClassVar[TaskName] = "tagging"
    pools: ClassVar[bool] = False

    def check_options(self) -> None:
        if self.options.loss not in ("auto", "bce"):
            raise ConfigError(
                f"train.loss is '{self.options.loss}', which needs clips of one class each; tagging, where any number "
                "of labels may hold, has bce",
                "train.loss",
            )

    def targets(self, clips: Sequence[Clip]) -> Targets:
        """`wanted` (N, C): 1 where the label holds, float32; `observed` (N, C): whether that is known."""
        import torch

        number = {label: i for i, label in enumerate(self.output.labels)}
        wanted_NC = np.zeros((len(clips), len(number)), dtype=np.float32)
        observed_NC = np.ones((len(clips), len(number)), dtype=np.bool_)
        for row, clip in enumerate(clips):
            held = _numbers(clip, number)
            wanted_NC[row, held] = 1
            if clip.negatives is not None:
                _no_contradiction(clip)
                observed_NC[row] = False
                observed_NC[row, held] = True
                observed_NC[row, [number[label] for label in clip.negatives if label in number]] = True
        return Targets({"wanted": torch.from_numpy(wanted_NC), "observed": torch.from_numpy(observed_NC)})

    def losses(self, logits: Tensor, lengths_B: Tensor | None, targets: Targets) -> Tensor:
        return _known_mean(logits, targets, self.options.label_smoothing)

    def judged_losses(self, logits: Tensor, lengths_B: Tensor | None, targets: Targets) -> Tensor | None:
        """Without smoothing: comparable between trials."""
        return _known_mean(logits, targets, 0.0)

    def answers(self, logits: Tensor, lengths_B: Tensor | None) -> list[Any]:
        """The logits (C,) of each clip: they keep an order where sigmoids have all become 1."""
        return list(logits.float().cpu())

    def measure(self, answers: Sequence[Any], clips: Sequence[Clip]) -> dict[str, float]:
        """map, mauc, d_prime, mid_precision, mid_recall: see `trainables.metrics.multi_label`."""
        from trainables import metrics

        return metrics.multi_label(*self._stacked(answers, clips))

    def tables(self, answers: Sequence[Any], clips: Sequence[Clip]) -> dict[str, Any]:
        """`per_class`: label, positives, negatives, average_precision, auc."""
        from trainables import metrics

        logits_BC, wanted_BC, observed_BC = self._stacked(answers, clips)
        rows = metrics.tag_table(logits_BC, wanted_BC, self.output.labels, observed_BC)
        return {"per_class": [row._asdict() for row in rows]}

    def intervals(self, answers: Sequence[Any], clips: Sequence[Clip]) -> dict[str, tuple[float, float]]:
        """Of map; none for splits so large that 200 resamples would take more than a minute."""
        from trainables import metrics

        logits_BC, wanted_BC, observed_BC = self._stacked(answers, clips)
        resamples = min(_RESAMPLES, _SCORES // logits_BC.numel())
        if resamples < _FEWEST:
            return {}
        found = metrics.map_interval(logits_BC, wanted_BC, observed_BC, resamples=resamples)
        return {"map": (found.low, found.high)}

    def _stacked(self, answers: Sequence[Any], clips: Sequence[Clip]) -> tuple[Tensor, Tensor, Tensor]:
        import torch

        values = self.targets(clips).values
        return torch.stack(list(answers)), values["wanted"], values["observed"]


def _known_mean(logits_BC: Tensor, targets: Targets, smoothing: float) -> Tensor:
    from torch.nn import functional

    wanted_BC = targets.values["wanted"] * (1 - smoothing) + smoothing / 2
    known_BC = targets.values["observed"].float()
    each_BC = functional.binary_cross_entropy_with_logits(
        logits_BC.float(), wanted_BC, weight=known_BC, reduction="none"
    )
    return each_BC.sum(dim=1) / known_BC.sum(dim=1).clamp(min=1)


def _numbers(clip: Clip, number: dict[str, int]) -> list[int]:
    for label in clip.labels:
        if label not in number:
            raise UserError(
                f"{clip.title}: label '{label}' is none of the {len(number)} that are learned{nearest(label, number)}"
            )
    return [number[label] for label in clip.labels]


def _no_contradiction(clip: Clip) -> None:
    both = sorted(set(clip.labels) & set(clip.negatives or ()))
    if both:
        raise UserError(f"{clip.title}: {', '.join(both)} is given both as holding and as not holding")
