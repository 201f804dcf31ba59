"""Position embeddings of an AST for inputs of another length.

An AST lays its tokens out as CLS, distillation token, then patches frequency-major: token 2 + f·T + t for
frequency row f and time column t of an F × T grid. Fewer columns are cut from the centre, more are
interpolated bilinearly along time (the rule of AAT, arXiv 2401.10544); the two special tokens are kept.
`zero` repeats what the published PETL code does, where a length other than the checkpoint's silently gave
all-zero positions, special tokens included.
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
    """Position embeddings (1, 2 + F·T, D) of grid `old` = (F, T) for grid `new` with the same F.

    The same tensor comes back when the grids are equal.
    """
    if old == new:
        return positions_1ND
    (rows, columns), (new_rows, new_columns) = old, new
    if rows != new_rows:
        raise ValueError(f"the grid has {rows} frequency rows, {new_rows} were asked for")
    if mode == "zero":
        return positions_1ND.new_zeros(1, 2 + new_rows * new_columns, positions_1ND.shape[-1])
    special, patches = positions_1ND[:, :2], positions_1ND[:, 2:]
    grid_1DFT = patches.reshape(1, rows, columns, -1).permute(0, 3, 1, 2)
    if new_columns < columns:
        start = columns // 2 - new_columns // 2
        grid_1DFT = grid_1DFT[..., start : start + new_columns]
    else:
        grid_1DFT = functional.interpolate(grid_1DFT, (new_rows, new_columns), mode="bilinear", align_corners=False)
    return torch.cat([special, grid_1DFT.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)
