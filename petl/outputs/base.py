"""What the numbers of a head mean: one class per kind of answer (torch-free to import).

An output knows how many numbers a head gives, whether it gives them once per clip or for every token, and how to turn
them into predictions for people. It is written into `petl_config.json` and read back from there.

B clips, T tokens, C numbers of the head.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    from torch import Tensor


class Prediction(ABC):
    """The answer for one clip."""

    @property
    @abstractmethod
    def shown(self) -> str:
        """It in a line of text."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """It as plain values, without the path of the clip."""


@dataclass(frozen=True)
class Output(ABC):
    """`labels` name what is answered with.

    `sequence`: the head answers for every token of the body, in their order. `embeds`: it answers with cosines to the
    labels while training, and with a vector of length 1 afterwards.
    """

    kind: ClassVar[str]
    sequence: ClassVar[bool] = False
    embeds: ClassVar[bool] = False
    noun: ClassVar[str] = "classes"  # what people call the labels

    labels: tuple[str, ...]

    @property
    def size(self) -> int:
        """C, the numbers that the head gives."""
        return len(self.labels)

    @abstractmethod
    def check(self) -> None:
        """Raise `UserError` when nothing can be learned with it."""

    @abstractmethod
    def predictions(self, logits: Tensor, lengths_B: Tensor | None) -> list[Prediction]:
        """Answers for a batch: what a model gives in evaluation mode.

        (B, C); vectors (B, E) where it embeds; (B, T, C) for sequences, the first `lengths_B` of each recording.
        """

    def to_json(self) -> dict[str, Any]:
        """The kind and whatever else `from_json` needs; `labels` are written apart."""
        return {"kind": self.kind}

    def files(self) -> dict[str, bytes]:
        """More files for an adapter's directory, by name: what other programs need to read the answers."""
        return {}

    @classmethod
    def read(cls, labels: tuple[str, ...], values: Mapping[str, Any]) -> Self:
        """The reverse of `to_json`; raises `UserError` or `ValueError` for values that do not belong there."""
        return cls(labels)
