"""From the tokens of a backbone's output to one vector per clip.

B batch, N tokens, T tokens of the body, D width (or that of a head's projection), S input positions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from petl.layout import Layout, masked_mean
from petl.shape import AST_TYPE, BackboneShape

MASKED = ("masked_mean", "stats")
"""Poolings that leave padding out."""

_EPS = 1e-5


def pooled(x_BND: Tensor, layout: Layout, how: str) -> Tensor:
    """Pool an output as `MethodConfig.pooling` says: (B, D), or (B, 2 D) for `stats`.

    * `mean`: all tokens, those of padding too; `cls`: the first; `cls+dist`: half the sum of the first two;
    * `patches`, `speech`: the mean of the body, padding too (two names of one thing);
    * `prompts`: the mean of the prompts; `prompts+speech`: of prompts and body;
    * `masked_mean`: the mean of the body without padding;
    * `stats`: the same, and behind it the standard deviation (with 1e-5 under the root).
    """
    if how == "mean":
        return x_BND.mean(dim=1)
    if how == "cls":
        return x_BND[:, 0]
    if how == "cls+dist":
        return (x_BND[:, 0] + x_BND[:, 1]) / 2
    if how == "prompts":
        return x_BND[:, layout.special : layout.special + layout.prompts].mean(dim=1)
    if how == "prompts+speech":
        return x_BND[:, layout.special :].mean(dim=1)
    _, x_BTD = layout.split(x_BND)
    if how in ("patches", "speech"):
        return x_BTD.mean(dim=1)
    if how == "masked_mean":
        return masked_mean(x_BTD, layout.mask_BT)
    if how == "stats":
        mean_BD = masked_mean(x_BTD, layout.mask_BT)
        variance_BD = masked_mean((x_BTD - mean_BD[:, None]).square(), layout.mask_BT)
        return torch.cat([mean_BD, (variance_BD + _EPS).sqrt()], dim=1)
    raise ValueError(f"unknown pooling '{how}'")


def along_time(x_BND: Tensor, layout: Layout) -> Tensor:
    """The tokens of the body in the order of time (B, T, D): of a grid, the mean over each column of patches."""
    _, x_BTD = layout.split(x_BND)
    rows, columns = layout.grid
    return x_BTD if rows == 1 else x_BTD.unflatten(1, (rows, columns)).mean(dim=1)


def body_mask(mask_BS: Tensor, layout: Layout, shape: BackboneShape) -> Tensor:
    """Which tokens of the body are recording, from the same about input positions: bool (B, T).

    As many tokens count as the recording alone would give: those whose patch, or whose window of the convolutions in
    front of the transformer, lies in it. Whisper's convolutions pad what they read, so that there a token counts when
    the frame in the middle of its five is recording, and the last may have read two frames behind it: 7 frames give 4
    tokens. The first token (or first column of patches) always counts.
    """
    length_B = mask_BS.sum(dim=1)
    if shape.family == AST_TYPE:
        rows, columns = layout.grid
        length_B = (length_B - shape.patch) // shape.time_stride + 1
    else:
        rows, columns = 1, layout.body
        for conv in shape.convs:
            length_B = (length_B + 2 * conv.padding - conv.kernel) // conv.stride + 1
    real_BT = torch.arange(columns, device=mask_BS.device) < length_B.clamp(min=1)[:, None]
    return real_BT.repeat(1, rows)  # rows of equal frequency follow each other
