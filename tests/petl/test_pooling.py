"""Pooling: which tokens count, whatever the backbone and wherever the padding is."""

from __future__ import annotations

import pytest
import torch

from petl.layout import Layout
from petl.pooling import body_mask, pooled
from petl.shape import BackboneShape, Conv

X = torch.arange(2 * 9 * 3, dtype=torch.float64).view(2, 9, 3).square()  # 2 special, 3 prompts, 4 of the body
LAYOUT = Layout(special=2, prompts=3, body=4, grid=(1, 4))
MASK = torch.tensor([[True, True, True, False], [True, False, False, False]])
PADDED = Layout(2, 3, 4, (1, 4), MASK)


def _spoilt() -> torch.Tensor:
    x = X.clone()
    x[0, 8], x[1, 6:] = torch.nan, torch.inf
    return x


@pytest.mark.parametrize("layout", [LAYOUT, PADDED])
def test_which_tokens_are_averaged(layout: Layout) -> None:
    expected = {
        "mean": X.sum(1) / 9,
        "cls": X[:, 0],
        "cls+dist": (X[:, 0] + X[:, 1]) / 2,
        "patches": X[:, 5:].sum(1) / 4,
        "speech": X[:, 5:].sum(1) / 4,
        "prompts": X[:, 2:5].sum(1) / 3,
        "prompts+speech": X[:, 2:].sum(1) / 7,
    }
    for how, value in expected.items():
        torch.testing.assert_close(pooled(X, layout, how), value)


def test_padding_is_left_out() -> None:
    expected = torch.stack([X[0, 5:8].sum(0) / 3, X[1, 5]])
    torch.testing.assert_close(pooled(_spoilt(), PADDED, "masked_mean"), expected)
    torch.testing.assert_close(pooled(X, LAYOUT, "masked_mean"), X[:, 5:].mean(1))


def test_mean_and_deviation() -> None:
    found = pooled(_spoilt(), PADDED, "stats")
    assert found.shape == (2, 6)
    torch.testing.assert_close(found[0, 3:], (X[0, 5:8].var(0, correction=0) + 1e-5).sqrt())
    torch.testing.assert_close(found[1, 3:], torch.full((3,), 1e-5, dtype=torch.float64).sqrt())
    torch.testing.assert_close(pooled(X, LAYOUT, "stats")[:, 3:], (X[:, 5:].var(1, correction=0) + 1e-5).sqrt())
    x = X.clone().requires_grad_()
    pooled(x, PADDED, "stats").sum().backward()
    assert x.grad is not None and bool(torch.isfinite(x.grad).all())
    assert not x.grad[1, 6:].any()


def test_an_unknown_pooling() -> None:
    with pytest.raises(ValueError, match="unknown pooling 'median'"):
        pooled(X, LAYOUT, "median")


def test_frames_of_a_waveform_are_real_when_all_their_samples_are() -> None:
    shape = BackboneShape(samples=True, family="wav2vec2", convs=(Conv(1, 4, 10, 5), Conv(4, 4, 3, 2)))
    layout = Layout(0, 0, shape.tokens(100), (1, shape.tokens(100)))
    for length in (1, 20, 25, 29, 30, 31, 77, 100):
        mask_BS = (torch.arange(100) < length)[None]
        assert int(body_mask(mask_BS, layout, shape).sum()) == max(1, shape.tokens(length)), length


def test_frames_of_whisper_are_two_to_a_token() -> None:
    shape = BackboneShape(family="whisper", convs=(Conv(8, 4, 3, 1, padding=1), Conv(4, 4, 3, 2, padding=1)))
    layout = Layout(0, 0, 5, (1, 5))
    for length, tokens in ((1, 1), (2, 1), (3, 2), (4, 2), (7, 4), (9, 5), (10, 5)):
        assert body_mask((torch.arange(10) < length)[None], layout, shape)[0].tolist() == [i < tokens for i in range(5)]


def test_patches_are_real_column_by_column() -> None:
    shape = BackboneShape(mel_bins=32, max_frames=64, frequency_stride=16, time_stride=16)
    rows, columns = shape.grid()
    layout = Layout(2, 0, rows * columns, (rows, columns))
    for length, real in ((5, 1), (16, 1), (31, 1), (32, 2), (63, 3), (64, 4)):
        mask = body_mask((torch.arange(64) < length)[None], layout, shape)[0].view(rows, columns)
        assert mask.tolist() == [[column < real for column in range(columns)]] * rows
