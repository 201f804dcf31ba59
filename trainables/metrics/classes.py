"""One class for each clip: accuracy, F1, cross-entropy, confusion (B clips, C classes)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_f1_score

_PLAIN = ("accuracy", "macro_f1", "loss")


class ClassRow(NamedTuple):
    """How one class fares. None: nothing to divide by (never predicted, no clips, or neither)."""

    label: str
    clips: int  # that are of the class
    precision: float | None  # share right of the clips given this label
    recall: float | None  # share found of the clips of the class
    f1: float | None


def single_label(logits_BC: Tensor, targets_B: Tensor) -> dict[str, float]:
    """accuracy, macro_f1, weighted_f1 and loss of class scores (B, C) against class numbers (B,); NaN without clips.

    macro_f1 is the mean over the classes that occur, as target or as prediction; weighted_f1 weighs each class by its
    clips (what SURE's code reports, under the name macro). loss is the mean cross-entropy in nats. Of equal scores the
    first class counts as predicted.
    """
    if not len(targets_B):
        return dict.fromkeys(("accuracy", "macro_f1", "weighted_f1", "loss"), float("nan"))
    predicted_B = logits_BC.argmax(dim=1)
    classes = max(logits_BC.shape[1], 2)  # torchmetrics refuses 1; a class that never occurs changes nothing
    return {
        "accuracy": float(multiclass_accuracy(predicted_B, targets_B, classes, average="micro")),
        "macro_f1": float(multiclass_f1_score(predicted_B, targets_B, classes, average="macro")),
        "weighted_f1": float(multiclass_f1_score(predicted_B, targets_B, classes, average="weighted")),
        "loss": float(torch.nn.functional.cross_entropy(logits_BC.float(), targets_B)),
    }


def classification(logits_BC: Tensor, targets_B: Tensor) -> dict[str, float]:
    """Accuracy (share of clips right), macro F1 (mean over classes that occur) and mean cross-entropy (nats)."""
    measured = single_label(logits_BC, targets_B)
    return {name: measured[name] for name in _PLAIN}


def confusion(logits_BC: Tensor, targets_B: Tensor) -> list[list[int]]:
    """counts[true class][predicted class]."""
    return _counts(logits_BC, targets_B).tolist()


def class_table(logits_BC: Tensor, targets_B: Tensor, labels: Sequence[str]) -> list[ClassRow]:
    """One row for each of the C `labels`, in their order, those without clips included."""
    counts_CC = _counts(logits_BC, targets_B)
    right_C, actual_C, predicted_C = counts_CC.diagonal(), counts_CC.sum(dim=1), counts_CC.sum(dim=0)
    return [
        ClassRow(label, actual, _share(right, predicted), _share(right, actual), _share(2 * right, actual + predicted))
        for label, right, actual, predicted in zip(
            labels, right_C.tolist(), actual_C.tolist(), predicted_C.tolist(), strict=True
        )
    ]


def _counts(logits_BC: Tensor, targets_B: Tensor) -> Tensor:
    classes = logits_BC.shape[1]
    cells_B = targets_B * classes + logits_BC.argmax(dim=1)
    return torch.bincount(cells_B, minlength=classes * classes).reshape(classes, classes)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
