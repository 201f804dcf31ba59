"""Position embeddings of an AST for another patch grid.

An AST lays its tokens out as CLS, distillation token, then patches frequency-major: token 2 + f·T + t for
frequency row f and time column t of an F × T grid. A shorter or longer input changes T, other patch strides change
both, and an image transformer (DeiT) comes with a square grid. By the rule of AAT (arXiv 2401.10544), along time
first and then along frequency: fewer places are cut from the centre, more are interpolated bilinearly; the two
special tokens are kept. `zero` repeats what the published PETL code does, where a length other than the checkpoint's
silently gave all-zero positions, special tokens included.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Positions = Literal["interpolate", "zero"]


def resized_positions(
    positions_1ND: Tensor, old: tuple[int, int], new: tuple[int, int], mode: Positions = "interpolate"
) -> Tensor:
    """Position embeddings (1, 2 + F·T, D) of grid `old` = (F, T) for grid `new`.

    The same tensor comes back when the grids are equal.
    """
    if old == new:
        return positions_1ND
    rows, columns = new
    if mode == "zero":
        return positions_1ND.new_zeros(1, 2 + rows * columns, positions_1ND.shape[-1])
    special, patches = positions_1ND[:, :2], positions_1ND[:, 2:]
    grid_1DFT = patches.reshape(1, *old, -1).permute(0, 3, 1, 2)
    grid_1DFT = _resized(grid_1DFT, 3, columns)
    grid_1DFT = _resized(grid_1DFT, 2, rows)
    return torch.cat([special, grid_1DFT.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


def _resized(grid_1DFT: Tensor, axis: int, size: int) -> Tensor:
    """One axis of the grid, 2 (frequency) or 3 (time), cut from the centre or interpolated."""
    have = grid_1DFT.shape[axis]
    if size < have:
        return grid_1DFT.narrow(axis, have // 2 - size // 2, size)
    if size == have:
        return grid_1DFT
    rows, columns = grid_1DFT.shape[2:]
    target = (size, columns) if axis == 2 else (rows, size)
    return functional.interpolate(grid_1DFT, target, mode="bilinear", align_corners=False)
