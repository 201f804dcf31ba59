"""What a task is: how clips become targets, what a wrong answer costs, and how answers are judged.

A task is one module with one class. What it answers with is a `petl.outputs.Output`, made from the clips by its
function `output` without torch; everything else needs torch.

B clips of a batch, T tokens along time, C numbers of the head.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from petl.outputs import Output
from trainables.config import TrainOptions
from trainables.data.clips import Clip
from trainables.data.datasets.base import TaskName

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Targets:
    """What is to be answered for some clips: tensors whose first dimension counts the clips."""

    values: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(next(iter(self.values.values())))

    def at(self, positions: Tensor) -> Targets:
        """Those of some of the clips."""
        return Targets({name: value[positions] for name, value in self.values.items()})

    def to(self, device: torch.device | str) -> Targets:
        return Targets({name: value.to(device, non_blocking=True) for name, value in self.values.items()})


class Task(ABC):
    """One task on one data set, `output` being what is answered.

    Answers are what is kept of a clip to judge it by, one object per clip (its logits, say), on the CPU.
    """

    name: ClassVar[TaskName]
    pools: ClassVar[bool] = True
    """Whether answers of several models can be judged together: decisions can, scores of their own scales cannot."""
    mixes: ClassVar[bool] = True
    """Whether two clips can be mixed: the loss of the mixture is then that of both, weighted."""

    def __init__(self, output: Output, options: TrainOptions) -> None:
        self.output = output
        self.options = options
        self.check_options()

    def check_options(self) -> None:  # noqa: B027 - most tasks take all options
        """Raise `ConfigError` for options of the loop that mean nothing here."""

    @abstractmethod
    def targets(self, clips: Sequence[Clip]) -> Targets:
        """What is to be answered for these clips."""

    @abstractmethod
    def losses(self, logits: Tensor, lengths_B: Tensor | None, targets: Targets) -> Tensor:
        """The loss of every clip (B,), float32, what is trained on. Logits as a model gives them in training mode."""

    def right(self, logits: Tensor, lengths_B: Tensor | None, targets: Targets) -> Tensor | None:
        """How many clips of the batch are answered right (a tensor without dimensions); None: nobody counts that."""
        return None

    @abstractmethod
    def answers(self, logits: Tensor, lengths_B: Tensor | None) -> list[Any]:
        """What to keep of a batch, clip by clip. Logits as a model gives them in evaluation mode."""

    def judged_losses(self, logits: Tensor, lengths_B: Tensor | None, targets: Targets) -> Tensor | None:
        """The loss of every clip (B,) in evaluation mode; None where there is none."""
        return self.losses(logits, lengths_B, targets)

    @abstractmethod
    def measure(self, answers: Sequence[Any], clips: Sequence[Clip]) -> dict[str, float]:
        """The metrics of answers to clips, without the loss and without the name of the split."""

    def tables(self, answers: Sequence[Any], clips: Sequence[Clip]) -> dict[str, Any]:
        """More that a person wants to see of the winner, as plain values; see `search.report` for what is shown.

        `confusion`: {"labels": […], "matrix": counts[true][answered]}; `per_class`: a list of rows.
        """
        return {}

    def intervals(self, answers: Sequence[Any], clips: Sequence[Clip]) -> dict[str, tuple[float, float]]:
        """95 % bootstrap intervals over the clips, of the metrics where that makes sense."""
        return {}
