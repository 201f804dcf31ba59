"""One label of each of several kinds, such as action, object and location."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from petl.errors import UserError
from petl.outputs.base import Output, Prediction

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SlotPrediction(Prediction):
    """The most probable label of each slot; `probability` is the product of theirs.

    `probabilities`: slot -> label -> probability, both in the head's order.
    """

    values: dict[str, str]
    probability: float
    probabilities: dict[str, dict[str, float]]

    @property
    def shown(self) -> str:
        return "  ".join(f"{slot}={label}" for slot, label in self.values.items()) + f"  {self.probability:.3f}"

    def to_json(self) -> dict[str, Any]:
        return {"slots": self.values, "probability": self.probability, "probabilities": self.probabilities}


@dataclass(frozen=True)
class Slots(Output):
    """Exactly one label holds in each slot; probabilities are softmaxes over the slots' own logits.

    `slots` are (name, number of labels), one after the other along the head. `labels` hold the slot's name, too:
    "action=increase", so that slots may have labels in common ("none", say) and no two numbers of the head share a
    name. A slot's name has no "=", a label may have one. See `of`.
    """

    kind: ClassVar[str] = "slots"
    noun: ClassVar[str] = "slot values"

    slots: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(cls, values: Mapping[str, Sequence[str]]) -> Self:
        """From the labels of each slot, without the slot's name in them."""
        labels = tuple(f"{slot}={label}" for slot, own in values.items() for label in own)
        return cls(labels, tuple((slot, len(own)) for slot, own in values.items()))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.slots)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Numbers of the head that each slot has, in their order; they add up to C."""
        return tuple(size for _, size in self.slots)

    def values(self) -> dict[str, tuple[str, ...]]:
        """Slot -> its labels, without its name."""
        found: dict[str, tuple[str, ...]] = {}
        first = 0
        for name, size in self.slots:
            found[name] = tuple(label.removeprefix(f"{name}=") for label in self.labels[first : first + size])
            first += size
        return found

    def check(self) -> None:
        if not self.slots or len(set(self.names)) != len(self.slots) or any("=" in n or not n for n in self.names):
            raise UserError(f"slots need names, all different and without '='; found {list(self.names)[:5]}")
        if min(self.sizes) < 1 or max(self.sizes) < 2 or sum(self.sizes) != len(self.labels):
            raise UserError(
                "every slot needs a label, one of them two, and all labels belong to a slot; found "
                + ", ".join(f"{size} in '{name}'" for name, size in self.slots)
                + f" and {len(self.labels)} in all"
            )
        if len(set(self.labels)) != len(self.labels):
            raise UserError(f"the labels of a slot are all different; found {list(self.labels)[:5]}")
        of_slot = [name for name, size in self.slots for _ in range(size)]
        for label, name in zip(self.labels, of_slot, strict=True):
            if not label.startswith(f"{name}="):
                raise UserError(f"label '{label}' stands among those of slot '{name}', which begin with '{name}='")

    def predictions(self, logits: Tensor, lengths_B: Tensor | None) -> list[Prediction]:
        parts = [part.softmax(-1).tolist() for part in logits.float().split(self.sizes, dim=-1)]
        return [self._prediction(rows) for rows in zip(*parts, strict=True)]

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "slots": [[name, size] for name, size in self.slots]}

    @classmethod
    def read(cls, labels: tuple[str, ...], values: Mapping[str, Any]) -> Self:
        slots = values.get("slots")
        if not isinstance(slots, list) or not all(_is_slot(slot) for slot in slots):
            raise UserError(f"the slots are {slots!r}; a list of [name, number of labels] is needed")
        return cls(labels, tuple((name, size) for name, size in slots))

    def _prediction(self, rows: Sequence[list[float]]) -> SlotPrediction:
        probabilities = {
            name: dict(zip(own, row, strict=True)) for (name, own), row in zip(self.values().items(), rows, strict=True)
        }
        best = {name: max(own, key=own.__getitem__) for name, own in probabilities.items()}
        return SlotPrediction(
            best, math.prod(probabilities[name][label] for name, label in best.items()), probabilities
        )


def _is_slot(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], int)
        and not isinstance(value[1], bool)
    )
