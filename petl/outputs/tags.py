"""Any number of labels for each clip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from petl.errors import UserError
from petl.outputs.base import Output, Prediction

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TagPrediction(Prediction):
    """The labels of one clip, the most probable first, and the probability of every label in the head's order."""

    labels: tuple[str, ...]
    probabilities: dict[str, float]

    @property
    def shown(self) -> str:
        if not self.labels:
            likeliest = max(self.probabilities, key=self.probabilities.__getitem__)
            return f"(no label; likeliest {likeliest} {self.probabilities[likeliest]:.3f})"
        return ", ".join(f"{label} {self.probabilities[label]:.3f}" for label in self.labels)

    def to_json(self) -> dict[str, Any]:
        return {"labels": list(self.labels), "probabilities": self.probabilities}


@dataclass(frozen=True)
class Tags(Output):
    """Each label holds or not, whatever the others do; probabilities are sigmoids of the logits.

    A label is answered with when its probability is above `threshold`.
    """

    kind: ClassVar[str] = "tags"
    noun: ClassVar[str] = "tags"

    threshold: float = 0.5

    def check(self) -> None:
        if not self.labels or len(set(self.labels)) != len(self.labels):
            raise UserError(f"a tagger needs at least one label, all different; found {list(self.labels)[:5]}")
        if not 0 < self.threshold < 1:
            raise UserError(f"the threshold of tags is a probability between 0 and 1; found {self.threshold}")

    def predictions(self, logits: Tensor, lengths_B: Tensor | None) -> list[Prediction]:
        return [self._prediction(row) for row in logits.float().sigmoid().tolist()]

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "threshold": self.threshold}

    @classmethod
    def read(cls, labels: tuple[str, ...], values: Mapping[str, Any]) -> Self:
        threshold = values.get("threshold", cls.threshold)
        if isinstance(threshold, bool) or not isinstance(threshold, (int, float)):
            raise UserError(f"the threshold of tags is {threshold!r}; a number between 0 and 1 is needed")
        try:
            return cls(labels, float(threshold))
        except OverflowError:
            raise UserError("the threshold of tags is huge; a number between 0 and 1 is needed") from None

    def _prediction(self, probabilities: list[float]) -> TagPrediction:
        values = dict(zip(self.labels, probabilities, strict=True))
        above = [label for label, probability in values.items() if probability > self.threshold]
        return TagPrediction(tuple(sorted(above, key=lambda label: -values[label])), values)
