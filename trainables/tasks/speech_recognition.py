"""What is said, as words: characters by CTC."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from petl.outputs import Output
from trainables.data.clips import Clip
from trainables.data.datasets.base import Target, TaskName
from trainables.tasks.ctc import CtcTask, rate_intervals, vocabulary


def output(target: Target, clips: Sequence[Clip], train: Sequence[int]) -> Output:
    """The characters of the training clips."""
    return vocabulary("characters", clips, train)


class SpeechRecognition(CtcTask):
    """Judged by wer and cer, of texts in lower case without punctuation."""

    name: ClassVar[TaskName] = "speech_recognition"

    def measure(self, answers: Sequence[Any], clips: Sequence[Clip]) -> dict[str, float]:
        from trainables import metrics

        return metrics.error_rates(self.references(clips), self.heard(answers))

    def intervals(self, answers: Sequence[Any], clips: Sequence[Clip]) -> dict[str, tuple[float, float]]:
        return rate_intervals(self.references(clips), self.heard(answers))
