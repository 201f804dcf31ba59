"""Attention masks for sequences that got longer: what comes in is attended to by every token.

transformers hands a layer one of these, depending on the attention implementation: nothing; a boolean mask
(B, 1, N, N) or (B, 1, 1, N), True where attention goes; a float mask of these shapes that is added to the scores; a
padding mask (B, N), 1 or True for real tokens (flash attention, WavLM); or a `BlockMask` (flex attention).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask


def extended_mask(mask: Any, count: int, *, at: int = 0, drop: int = 0, queries: bool = False) -> Any:
    """The mask with `count` more keys behind the first `at` ones, where `drop` keys are left out.

    With `queries` the new tokens also ask: they attend to whatever any token attends to. Without, only the keys
    grow, which is what prefixes need. A padding mask has no queries of its own.
    """
    if mask is None:
        return None
    if isinstance(mask, BlockMask):
        return _extended_blocks(mask, count, at, drop, queries)
    columns = torch.cat([mask[..., :at], _attended(mask, count), mask[..., at + drop :]], dim=-1)
    if not queries or columns.ndim < 3 or columns.shape[-2] == 1:
        return columns
    seen = columns.any(-2, keepdim=True) if columns.dtype == torch.bool else columns.amax(-2, keepdim=True)
    rows = seen.expand(*seen.shape[:-2], count, seen.shape[-1])
    return torch.cat([columns[..., :at, :], rows, columns[..., at + drop :, :]], dim=-2)


def _attended(mask: Tensor, count: int) -> Tensor:
    """Columns that say "attend" in the language of this mask."""
    shape = (*mask.shape[:-1], count)
    return mask.new_zeros(shape) if mask.ndim > 2 and mask.is_floating_point() else mask.new_ones(shape)


def _extended_blocks(mask: BlockMask, count: int, at: int, drop: int, queries: bool) -> BlockMask:
    asking, keys = mask.seq_lengths
    return create_block_mask(
        _moved(mask.mask_mod, count, at, drop, queries),
        B=mask.kv_num_blocks.shape[0],
        H=None if mask.kv_num_blocks.shape[1] == 1 else mask.kv_num_blocks.shape[1],
        Q_LEN=asking + (count - drop if queries else 0),
        KV_LEN=keys + count - drop,
        device=mask.kv_num_blocks.device,
        BLOCK_SIZE=mask.BLOCK_SIZE,
    )


def _moved(inner: Callable[..., Tensor], count: int, at: int, drop: int, queries: bool) -> Callable[..., Tensor]:
    """`inner` for the new positions. New queries see what the first token sees (all tokens, but for padding)."""

    def old(index: Tensor) -> Tensor:
        return torch.where(index < at, index, (index - count + drop).clamp(min=0))

    def allowed(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        new = (k >= at) & (k < at + count)
        if queries:
            q = torch.where((q >= at) & (q < at + count), 0, old(q))
        return new | inner(b, h, q, old(k))

    return allowed
