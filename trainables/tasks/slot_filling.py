"""What is said, and which part of it fills which slot: characters and markers by CTC."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from petl.outputs import Output
from petl.outputs.tokens import is_marker
from trainables.data.clips import Clip
from trainables.data.datasets.base import Target, TaskName
from trainables.tasks.ctc import CtcTask, rate_intervals, vocabulary


def output(target: Target, clips: Sequence[Clip], train: Sequence[int]) -> Output:
    """The characters and slot markers of the training clips."""
    return vocabulary("slots", clips, train)


class SlotFilling(CtcTask):
    """Judged by slot_type_f1 and slot_value_cer, and by wer and cer of the words without the markers."""

    name: ClassVar[TaskName] = "slot_filling"

    def measure(self, answers: Sequence[Any], clips: Sequence[Clip]) -> dict[str, float]:
        from trainables import metrics

        references, heard = self.references(clips), self.heard(answers)
        words = metrics.error_rates([_words(text) for text in references], [_words(text) for text in heard])
        return {**metrics.slot_filling(references, heard), **words}

    def intervals(self, answers: Sequence[Any], clips: Sequence[Clip]) -> dict[str, tuple[float, float]]:
        """Of all four."""
        from trainables import metrics

        references, heard = self.references(clips), self.heard(answers)
        single = [metrics.slot_filling([wanted], [found]) for wanted, found in zip(references, heard, strict=True)]
        # A clip's rate is edits over characters of its values: both are needed to resample the rate of all clips.
        sizes = [sum(len(v) for values in metrics.slot_spans(r).values() for v in values) for r in references]
        wrong = [clip["slot_value_cer"] * size if size else 0.0 for clip, size in zip(single, sizes, strict=True)]
        found = {
            "slot_type_f1": metrics.interval_of_mean([clip["slot_type_f1"] for clip in single]),
            "slot_value_cer": metrics.interval_of_ratio(wrong, sizes),
        }
        slots = {name: (low, high) for name, (_, low, high) in found.items()}
        return {**slots, **rate_intervals([_words(text) for text in references], [_words(text) for text in heard])}


def _words(text: str) -> str:
    return " ".join(word for word in text.split() if not is_marker(word))
