"""One split's outputs from all workers (B clips, C classes)."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def gathered(logits_BC: Tensor, targets_B: Tensor, order_B: Tensor) -> tuple[Tensor, Tensor]:
    """Join every worker's share, sorted by `order_B` (positions in the split), each clip once."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        shares: list[tuple[Tensor, Tensor, Tensor] | None] = [None] * dist.get_world_size()
        dist.all_gather_object(shares, (logits_BC, targets_B, order_B))
        whole = [share for share in shares if share is not None]
        logits_BC, targets_B, order_B = (torch.cat([share[i] for share in whole]) for i in range(3))
    by_position = torch.argsort(order_B)
    return logits_BC[by_position], targets_B[by_position]
