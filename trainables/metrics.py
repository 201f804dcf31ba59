"""What is measured on a split: loss, accuracy, macro F1 and the confusion matrix, over all workers."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_f1_score


def classification(logits_BC: Tensor, targets_B: Tensor) -> dict[str, float]:
    """Accuracy (share of clips right), macro F1 (mean over classes that occur) and mean cross-entropy (nats)."""
    classes = logits_BC.shape[1]
    predicted = logits_BC.argmax(dim=1)
    return {
        "accuracy": float(multiclass_accuracy(predicted, targets_B, classes, average="micro")),
        "macro_f1": float(multiclass_f1_score(predicted, targets_B, classes, average="macro")),
        "loss": float(torch.nn.functional.cross_entropy(logits_BC.float(), targets_B)),
    }


def confusion(logits_BC: Tensor, targets_B: Tensor) -> list[list[int]]:
    """counts[true class][predicted class]."""
    classes = logits_BC.shape[1]
    cells = targets_B * classes + logits_BC.argmax(dim=1)
    return torch.bincount(cells, minlength=classes * classes).reshape(classes, classes).tolist()


def gathered(logits_BC: Tensor, targets_B: Tensor, order_B: Tensor) -> tuple[Tensor, Tensor]:
    """Join every worker's share, sorted by `order_B` (positions in the split), each clip once."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        shares: list[tuple[Tensor, Tensor, Tensor] | None] = [None] * dist.get_world_size()
        dist.all_gather_object(shares, (logits_BC, targets_B, order_B))
        whole = [share for share in shares if share is not None]
        logits_BC, targets_B, order_B = (torch.cat([share[i] for share in whole]) for i in range(3))
    by_position = torch.argsort(order_B)
    return logits_BC[by_position], targets_B[by_position]
