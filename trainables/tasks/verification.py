"""Whether two clips are of one speaker, learned from the voices of others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from petl.errors import ConfigError
from petl.outputs import Output
from petl.outputs.speakers import Speakers
from trainables.data.clips import Clip
from trainables.data.datasets.base import Target, TaskName
from trainables.tasks.base import Targets, Task
from trainables.tasks.trials import Pairs, Trial, drawn, listed

if TYPE_CHECKING:
    from torch import Tensor

UNKNOWN = -1
_AT_ONCE = 4096  # pairs whose vectors are copied out


def output(target: Target, clips: Sequence[Clip], train: Sequence[int]) -> Output:
    """The speakers of the training clips, sorted; those of the other clips are nobody's business."""
    return Speakers(tuple(sorted({clips[i].label for i in train})))


class Verification(Task):
    """Additive-margin softmax (Wang et al. 2018, arXiv 1801.05599) over the speakers of the training clips.

    The loss of a clip of speaker y is the cross-entropy of `train.scale` (cos - `train.margin` [y]); `loss:
    cross_entropy` leaves the margin out. Answers are the clips' vectors, judged by the cosines of pairs: those of the
    list `trials`, where the data bring one with pairs of these clips, else those of `trainables.tasks.trials.drawn`.
    """

    name: ClassVar[TaskName] = "verification"
    pools: ClassVar[bool] = False
    trials: tuple[Trial, ...] = ()
    """Listed pairs, those of each split's list that are of clips of that split; whoever makes the task sets them."""

    def check_options(self) -> None:
        if self.options.loss == "bce":
            raise ConfigError(
                "train.loss is 'bce', which knows no margin between one speaker and the next; verification has "
                "am_softmax and cross_entropy",
                "train.loss",
            )

    def targets(self, clips: Sequence[Clip]) -> Targets:
        """`speakers` (N,): positions in the labels, -1 for those that are not learned."""
        import torch

        number = {label: i for i, label in enumerate(self.output.labels)}
        return Targets({"speakers": torch.tensor([number.get(c.label, UNKNOWN) for c in clips], dtype=torch.long)})

    def losses(self, logits: Tensor, lengths_B: Tensor | None, targets: Targets) -> Tensor:
        from torch.nn import functional

        cosines_BC, y_B = logits.float(), targets.values["speakers"]
        margin = 0.0 if self.options.loss == "cross_entropy" else self.options.margin
        less_BC = margin * functional.one_hot(y_B, cosines_BC.shape[1])
        return functional.cross_entropy(
            self.options.scale * (cosines_BC - less_BC),
            y_B,
            reduction="none",
            label_smoothing=self.options.label_smoothing,
        )

    def right(self, logits: Tensor, lengths_B: Tensor | None, targets: Targets) -> Tensor | None:
        """How many clips are nearest to their own speaker, without a margin."""
        return (logits.argmax(dim=1) == targets.values["speakers"]).sum()

    def answers(self, logits: Tensor, lengths_B: Tensor | None) -> list[Any]:
        """The vector (E,) of each clip."""
        return list(logits.float().cpu())

    def judged_losses(self, logits: Tensor, lengths_B: Tensor | None, targets: Targets) -> Tensor | None:
        """None: a loss says nothing of speakers that are not learned."""
        return None

    def measure(self, answers: Sequence[Any], clips: Sequence[Clip]) -> dict[str, float]:
        """eer and min_dcf of the pairs' cosines."""
        from trainables import metrics

        pairs = self._pairs(clips)
        return metrics.same_or_different(_cosines(answers, pairs), pairs.same_N)

    def tables(self, answers: Sequence[Any], clips: Sequence[Clip]) -> dict[str, Any]:
        """`trials`: what was compared."""
        pairs = self._pairs(clips)
        same = int(pairs.same_N.sum())
        return {
            "trials": {
                "speakers": len({clip.label for clip in clips}),
                "clips": len(clips),
                "same": same,
                "different": len(pairs.same_N) - same,
                "from": pairs.origin,
            }
        }

    def intervals(self, answers: Sequence[Any], clips: Sequence[Clip]) -> dict[str, tuple[float, float]]:
        """Of eer, over the speakers rather than the clips: pairs share both, and other speakers are the question.

        A pair counts as often as both its speakers are drawn, multiplied; a pair of one speaker as often as that one.
        """
        from trainables import metrics

        pairs = self._pairs(clips)
        scores_N = _cosines(answers, pairs)
        number = {label: i for i, label in enumerate(sorted({clip.label for clip in clips}))}
        speaker_B = np.array([number[clip.label] for clip in clips], dtype=np.int64)
        one_N, other_N = speaker_B[pairs.one_N], speaker_B[pairs.other_N]

        def of(speakers: NDArray[np.int64]) -> float:
            drawn_S = np.bincount(speakers, minlength=len(number))
            times_N = np.where(pairs.same_N, drawn_S[one_N], drawn_S[one_N] * drawn_S[other_N])
            return metrics.eer(np.repeat(scores_N, times_N), np.repeat(pairs.same_N, times_N))

        found = metrics.interval(of, len(number))
        return {"eer": (found.low, found.high)}

    def _pairs(self, clips: Sequence[Clip]) -> Pairs:
        """Of a list for the test only, none is left for the validation: its pairs are drawn."""
        found = listed(self.trials, clips)
        return found if len(found.same_N) else drawn(clips)


def _cosines(answers: Sequence[Any], pairs: Pairs) -> NDArray[np.float64]:
    """(N,): the vectors have length 1."""
    import torch

    vectors_BE = torch.stack(list(answers)).double().numpy()
    parts = range(0, len(pairs.same_N), _AT_ONCE)
    return np.concatenate(
        [np.zeros(0)]
        + [
            np.einsum(
                "ne,ne->n", vectors_BE[pairs.one_N[i : i + _AT_ONCE]], vectors_BE[pairs.other_N[i : i + _AT_ONCE]]
            )
            for i in parts
        ]
    )
