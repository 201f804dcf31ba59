"""SpecAugment hides what it says, where it says, and the same for the same generator."""

from __future__ import annotations

import pytest
import torch

from trainables.augment import spec_augment


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_same_generator_gives_the_same_masks() -> None:
    x_BTM = torch.rand(4, 50, 32) + 1
    first, again = (spec_augment(x_BTM, 12, 20, _generator(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, spec_augment(x_BTM, 12, 20, _generator(4)))


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    spec_augment(torch.rand(4, 50, 32, generator=_generator()), 12, 20, _generator())
    assert torch.equal(before, torch.get_rng_state())


def test_the_input_is_left_as_it_was_and_no_mask_costs_nothing() -> None:
    x_BTM = torch.rand(4, 50, 32) + 1
    copy = x_BTM.clone()
    spec_augment(x_BTM, 12, 20, _generator())
    assert torch.equal(x_BTM, copy)
    assert spec_augment(x_BTM, 0, 0) is x_BTM


@pytest.mark.parametrize(("freq", "time"), [(24, 0), (0, 80), (24, 80), (1, 1), (500, 500)])
def test_masks_are_one_stretch_each_and_narrower_than_asked(freq: int, time: int) -> None:
    clips, frames, bins = 2000, 100, 64
    x_BTM = torch.ones(clips, frames, bins)
    hidden_BTM = spec_augment(x_BTM, freq, time, _generator()) == 0
    in_time_BT, in_freq_BM = hidden_BTM.all(2), hidden_BTM.all(1)
    # Everything hidden is a whole band or a whole stretch of time.
    rebuilt_BTM = torch.zeros_like(hidden_BTM)
    if time:
        rebuilt_BTM |= in_time_BT[:, :, None]
    if freq:
        rebuilt_BTM |= in_freq_BM[:, None, :]
    assert torch.equal(hidden_BTM, rebuilt_BTM)
    for mask_BS, widest, size in ((in_time_BT, time, frames), (in_freq_BM, freq, bins)):
        if min(freq, time) == 500:
            continue  # one mask may cover all, which hides the other's edges
        widths_B = mask_BS.sum(1)
        edges_B = (mask_BS[:, 1:] != mask_BS[:, :-1]).sum(1) + mask_BS[:, 0] + mask_BS[:, -1]
        assert ((edges_B == 2) | (widths_B == 0)).all()
        assert widths_B.max() == max(0, min(widest, size) - 1)
        if widest > 1:
            assert widths_B.float().mean() == pytest.approx((widest - 1) / 2, rel=0.1)
            assert mask_BS.any(0).all()  # every place gets its turn


def test_every_clip_has_masks_of_its_own() -> None:
    out_BTM = spec_augment(torch.ones(64, 100, 64), 24, 40, _generator())
    assert len({clip.numpy().tobytes() for clip in out_BTM}) > 55


def test_negative_widths_are_refused() -> None:
    with pytest.raises(ValueError, match="0 or more"):
        spec_augment(torch.ones(1, 10, 10), -1, 0)
