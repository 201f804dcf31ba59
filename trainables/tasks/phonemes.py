"""What is said, as phones, by CTC."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from petl.outputs import Output
from trainables.data.clips import Clip
from trainables.data.datasets.base import Target, TaskName
from trainables.tasks.ctc import CtcTask, vocabulary


def output(target: Target, clips: Sequence[Clip], train: Sequence[int]) -> Output:
    """The phones of the training clips."""
    return vocabulary("phones", clips, train)


class PhonemeRecognition(CtcTask):
    """Judged by per. Repeats along the best path are one phone; SURE's code counts each (and learns an end symbol)."""

    name: ClassVar[TaskName] = "phonemes"

    def measure(self, answers: Sequence[Any], clips: Sequence[Clip]) -> dict[str, float]:
        from trainables import metrics

        return metrics.phones(*self._sequences(answers, clips))

    def intervals(self, answers: Sequence[Any], clips: Sequence[Clip]) -> dict[str, tuple[float, float]]:
        from trainables import metrics

        _, low, high = metrics.interval_of_ratio(*metrics.edits(*self._sequences(answers, clips)))
        return {"per": (low, high)}

    def _sequences(self, answers: Sequence[Any], clips: Sequence[Clip]) -> tuple[list[list[str]], list[list[str]]]:
        references, heard = self.references(clips), self.heard(answers)
        return [text.split() for text in references], [text.split() for text in heard]
