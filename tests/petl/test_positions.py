"""Position embeddings for other input lengths."""

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


def test_frequency_rows_are_fixed(positions: Tensor) -> None:
    with pytest.raises(ValueError, match="frequency rows"):
        resized_positions(positions, (F, T), (F + 1, T))
