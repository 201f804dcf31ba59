"""One of several classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from petl.errors import UserError
from petl.outputs.base import Output, Prediction

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ClassPrediction(Prediction):
    """The most probable label of one clip, and the probability of every label in the head's order."""

    label: str
    probability: float
    probabilities: dict[str, float]

    @property
    def shown(self) -> str:
        return f"{self.label}  {self.probability:.3f}"

    def to_json(self) -> dict[str, Any]:
        return {"label": self.label, "probability": self.probability, "probabilities": self.probabilities}


@dataclass(frozen=True)
class Classes(Output):
    """Exactly one label holds; probabilities are the softmax of the logits."""

    kind: ClassVar[str] = "classes"

    def check(self) -> None:
        if len(self.labels) < 2 or len(set(self.labels)) != len(self.labels):
            raise UserError(f"a classifier needs at least two labels, all different; found {list(self.labels)[:5]}")

    def predictions(self, logits: Tensor, lengths_B: Tensor | None) -> list[Prediction]:
        return [self._prediction(row) for row in logits.float().softmax(-1).tolist()]

    def _prediction(self, probabilities: list[float]) -> ClassPrediction:
        values = dict(zip(self.labels, probabilities, strict=True))
        label = max(values, key=values.__getitem__)
        return ClassPrediction(label, values[label], values)
