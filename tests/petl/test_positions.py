"""Position embeddings for other patch grids."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from petl.positions import resized_positions

F, T, D = 3, 11, 4


@pytest.fixture
def positions() -> Tensor:
    return torch.randn(1, 2 + F * T, D, generator=torch.Generator().manual_seed(0))


def _grid(positions: Tensor, columns: int) -> Tensor:
    """(F, columns, D): patch f, t is token 2 + f·T + t."""
    return torch.stack([torch.stack([positions[0, 2 + f * columns + t] for t in range(columns)]) for f in range(F)])


@pytest.mark.parametrize("columns", [1, 2, 5, 6, 10])
def test_fewer_columns_are_cut_from_the_centre(positions: Tensor, columns: int) -> None:
    new = resized_positions(positions, (F, T), (F, columns))
    start = T // 2 - columns // 2
    assert torch.equal(new[:, :2], positions[:, :2])
    assert torch.equal(_grid(new, columns), _grid(positions, T)[:, start : start + columns])


def test_cut_of_the_published_grid() -> None:
    """AAT: 12 x 101 positions, [50 - t // 2, + t)."""
    table = torch.arange(2 + 12 * 101, dtype=torch.float32).view(1, -1, 1)
    new = resized_positions(table, (12, 101), (12, 39)).flatten()  # an input of 400 frames
    assert new[:2].tolist() == [0, 1]
    assert new[2:41].tolist() == list(range(2 + 50 - 19, 2 + 50 - 19 + 39))
    assert new[41].item() == 2 + 101 + 50 - 19


@pytest.mark.parametrize("columns", [12, 22, 30])
def test_more_columns_are_interpolated_along_time(positions: Tensor, columns: int) -> None:
    new = _grid(resized_positions(positions, (F, T), (F, columns)), columns)
    at = (np.arange(columns) + 0.5) * T / columns - 0.5  # the middles of the new columns among the old ones
    for f in range(F):
        for d in range(D):
            by_hand = np.interp(at, np.arange(T), _grid(positions, T)[f, :, d].numpy())
            np.testing.assert_allclose(new[f, :, d].numpy(), by_hand, rtol=1e-4, atol=1e-5)


def test_the_same_grid_is_the_same_tensor(positions: Tensor) -> None:
    assert resized_positions(positions, (F, T), (F, T), "zero") is positions


def test_zero_is_the_published_behaviour(positions: Tensor) -> None:
    new = resized_positions(positions, (F, T), (F, 5), "zero")
    assert new.shape == (1, 2 + F * 5, D) and not new.any()


@pytest.mark.parametrize("rows", [1, 2])
def test_fewer_rows_are_cut_from_the_centre(positions: Tensor, rows: int) -> None:
    new = resized_positions(positions, (F, T), (rows, T))
    start = F // 2 - rows // 2
    assert torch.equal(new[0, 2:].view(rows, T, D), _grid(positions, T)[start : start + rows])


@pytest.mark.parametrize(("rows", "columns"), [(5, 7), (5, 16), (2, 16), (2, 4)])
def test_both_axes(positions: Tensor, rows: int, columns: int) -> None:
    """Each axis by its own rule: a linear map along time, then one along frequency."""
    new = resized_positions(positions, (F, T), (rows, columns))
    grid = _grid(positions, T).numpy()
    along_time = np.stack([[_line(grid[f, :, d], columns) for d in range(D)] for f in range(F)])  # (F, D, columns)
    by_hand = np.stack(
        [[_line(along_time[:, d, t], rows) for d in range(D)] for t in range(columns)]
    )  # (columns, D, rows)
    assert torch.equal(new[:, :2], positions[:, :2])
    got = new[0, 2:].view(rows, columns, D).numpy()
    np.testing.assert_allclose(got, by_hand.transpose(2, 0, 1), rtol=1e-4, atol=1e-5)


def _line(values: np.ndarray, size: int) -> np.ndarray:
    have = len(values)
    if size < have:
        return values[have // 2 - size // 2 :][:size]
    return np.interp((np.arange(size) + 0.5) * have / size - 0.5, np.arange(have), values)


def test_square_grids_of_image_models() -> None:
    """AAT on DeiT: 24 x 24 for 512 frames is 12 rows from the middle, and 50 columns interpolated from 24."""
    table = torch.arange(24.0).repeat_interleave(24).view(1, -1, 1)  # the row's own number
    new = resized_positions(torch.cat([torch.tensor([[[-1.0], [-2.0]]]), table], dim=1), (24, 24), (12, 50))
    assert new[0, :2, 0].tolist() == [-1, -2]
    torch.testing.assert_close(new[0, 2:, 0].view(12, 50), torch.arange(6.0, 18.0).view(12, 1).expand(12, 50))


def test_precision_is_kept(positions: Tensor) -> None:
    new = resized_positions(positions.double(), (F, T), (F + 1, T + 4))
    assert new.dtype == torch.float64
