"""A vector that says who speaks, to be compared with others."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from petl.errors import UserError
from petl.outputs.base import Output, Prediction

if TYPE_CHECKING:
    from torch import Tensor

_SHOWN = 4


@dataclass(frozen=True)
class Embedding(Prediction):
    """The voice of one clip as a vector of length 1; see `Speakers.similarity`."""

    vector: tuple[float, ...]

    @property
    def norm(self) -> float:
        return math.hypot(*self.vector)

    @property
    def shown(self) -> str:
        more = ", …" if len(self.vector) > _SHOWN else ""
        first = ", ".join(f"{value:.4f}" for value in self.vector[:_SHOWN])
        return f"vector of {len(self.vector)} numbers, length {self.norm:.3f}: {first}{more}"

    def to_json(self) -> dict[str, Any]:
        return {"vector": list(self.vector)}


@dataclass(frozen=True)
class Speakers(Output):
    """A vector for each clip, alike for clips of one speaker. `labels` are the speakers of the training clips.

    They are compared with each other only while training; whoever speaks afterwards need not be one of them.
    """

    kind: ClassVar[str] = "speakers"
    noun: ClassVar[str] = "speakers"
    embeds: ClassVar[bool] = True

    def check(self) -> None:
        if len(self.labels) < 2 or len(set(self.labels)) != len(self.labels):
            raise UserError(
                f"telling voices apart is learned from at least two speakers, all different; "
                f"found {list(self.labels)[:5]}"
            )

    def predictions(self, logits: Tensor, lengths_B: Tensor | None) -> list[Prediction]:
        return [Embedding(tuple(row)) for row in logits.float().tolist()]

    @staticmethod
    def similarity(one: Embedding, other: Embedding) -> float:
        """Cosine of the angle between two vectors, from -1 to 1: the larger, the more likely one speaker.

        From what value on it is one speaker depends on the model and on what mistakes cost. `UserError` for vectors
        of different models (other lengths), or of no length.
        """
        if len(one.vector) != len(other.vector):
            raise UserError(
                f"vectors of {len(one.vector)} and {len(other.vector)} numbers cannot be compared; "
                "both have to come from the same adapter"
            )
        lengths = one.norm * other.norm
        if not lengths:
            raise UserError("a vector of zeros has no direction to compare")
        return sum(a * b for a, b in zip(one.vector, other.vector, strict=True)) / lengths
