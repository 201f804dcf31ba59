"""Speed, mixup, noise and gain do to waveforms what they say, clip by clip, the same for the same generator."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchaudio.functional import resample

from petl.frontend import AstFrontEnd, FrontEnd, WaveformFrontEnd, WhisperFrontEnd
from trainables.augment import (
    augmented_waveforms,
    mixed,
    samples_needed,
    with_gain,
    with_noise,
    with_speed,
)
from trainables.config import AugOptions

_ALL = AugOptions(mixup=0.5, noise=0.5, speed=0.1, gain=6.0)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _batch(clips: int = 8, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noise of 200 to 1000 samples, padded with zeros."""
    generator = _generator(seed)
    lengths_B = torch.randint(200, 1001, (clips,), generator=generator)
    lengths_B[0] = 1000
    waves_BS = torch.randn(clips, 1000, generator=generator) * 0.1 + 0.01
    return waves_BS * (torch.arange(1000) < lengths_B[:, None]), lengths_B


def _all(waves_BS: Tensor, lengths_B: Tensor, seed: int = 0, partners: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    front_end = WaveformFrontEnd(sample_rate=4000)
    return augmented_waveforms(
        waves_BS, lengths_B, _ALL, front_end, _generator(seed), _batch(len(waves_BS), seed=partners)
    )


def test_the_same_generator_gives_the_same_batch_and_nothing_else_is_touched() -> None:
    waves_BS, lengths_B = _batch(32)
    copies, state = (waves_BS.clone(), lengths_B.clone()), torch.get_rng_state()
    first, again, other = _all(waves_BS, lengths_B), _all(waves_BS, lengths_B), _all(waves_BS, lengths_B, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[1], other[1]) and not torch.equal(first[2], other[2])
    assert torch.equal(waves_BS, copies[0]) and torch.equal(lengths_B, copies[1])
    assert torch.equal(state, torch.get_rng_state())


def test_a_clip_does_not_depend_on_what_the_others_sound_like() -> None:
    waves_BS, lengths_B = _batch(16)
    others_BS = -3 * waves_BS
    others_BS[5] = waves_BS[5]
    first, second = _all(waves_BS, lengths_B), _all(others_BS, lengths_B)
    assert torch.equal(first[1], second[1]) and torch.equal(first[2], second[2])
    assert torch.equal(first[0][5], second[0][5])
    assert not torch.equal(first[0][6], second[0][6])


def test_what_is_behind_a_clip_stays_silent() -> None:
    found_BS, lengths_B, _ = _all(*_batch(64))
    assert found_BS.shape[1] == int(lengths_B.max())
    behind_BS = torch.arange(found_BS.shape[1]) >= lengths_B[:, None]
    assert bool((found_BS[behind_BS] == 0).all()) and bool(behind_BS.any())
    assert bool(torch.isfinite(found_BS).all())


def test_nothing_asked_for_is_nothing_done() -> None:
    waves_BS, lengths_B = _batch()
    found = augmented_waveforms(waves_BS, lengths_B, AugOptions(), AstFrontEnd(), _generator())
    assert found.waves_BS is waves_BS and found.lengths_B is lengths_B
    assert torch.equal(found.weights_B, torch.ones(8))


def test_mixup_needs_partners() -> None:
    with pytest.raises(ValueError, match=r"aug.mixup is 0.5, but there are no partners"):
        augmented_waveforms(*_batch(), AugOptions(mixup=0.5), AstFrontEnd(), _generator())


@pytest.mark.parametrize("speed", [0.1, 0.05, 0.135])
def test_speed_is_resampling_of_each_clip_alone(speed: float) -> None:
    waves_BS, lengths_B = _batch(60)
    found_BS, changed_B = with_speed(waves_BS, lengths_B, speed, _generator())
    counts = {-1: 0, 0: 0, 1: 0}
    for before_S, samples, after_S, after in zip(waves_BS, lengths_B, found_BS, changed_B, strict=True):
        [sign] = [s for s in counts if int(after) == math.ceil(round(1000 * int(samples) / (1 + s * speed), 6) / 1000)]
        counts[sign] += 1
        alone_S = resample(before_S[:samples], round(200 * (1 + sign * speed)), 200)
        torch.testing.assert_close(after_S[:after], alone_S[:after], atol=1e-6, rtol=0)
    assert min(counts.values()) > 8


def test_speed_moves_the_pitch_and_keeps_the_level() -> None:
    rate = 8000
    tone_S = torch.sin(2 * torch.pi * 1000 * torch.arange(rate) / rate)
    found_BS, lengths_B = with_speed(tone_S.repeat(30, 1), torch.full((30,), rate), 0.1, _generator())
    pitches = set()
    for found_S, samples in zip(found_BS, lengths_B.tolist(), strict=True):
        spectrum_F = torch.fft.rfft(found_S[:samples]).abs()
        pitches.add(round(int(spectrum_F.argmax()) * rate / samples))
        assert float(found_S[200 : samples - 200].abs().max()) == pytest.approx(1, abs=0.01)
    assert pitches == {900, 1000, 1100}


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 99), st.lists(st.integers(1, 400), min_size=1, max_size=5), st.integers(1, 60))
def test_lengths_after_a_change_of_speed(half_percents: int, lengths: list[int], shortest: int) -> None:
    waves_BS = torch.ones(len(lengths), 400) * (torch.arange(400) < torch.tensor(lengths)[:, None])
    found_BS, changed_B = with_speed(
        waves_BS, torch.tensor(lengths), half_percents / 200, _generator(), shortest=shortest
    )
    for before, after in zip(lengths, changed_B.tolist(), strict=True):
        allowed = {before, *(-(-before * 200 // (200 + s * half_percents)) for s in (-1, 1))}
        assert after in allowed
        assert after >= min(before, shortest)
    assert found_BS.shape[1] >= int(changed_B.max())


@pytest.mark.parametrize(
    "front_end", [AstFrontEnd(frames=60), WhisperFrontEnd(frames=60), WaveformFrontEnd(frames=60)], ids=lambda f: f.kind
)
def test_no_slowed_clip_of_a_sequence_loses_its_end(front_end: FrontEnd) -> None:
    """One that would become longer than the input keeps its speed; the others are slowed as they were drawn."""
    full = next(n for n in range(9000, 20000) if front_end.frames_of(n + 1) > 60)  # the longest that fits
    lengths_B = torch.tensor([full, 60 * 144, 3000, 3000])
    waves_BS = torch.zeros(4, full)
    waves_BS[0, -800:] = 0.5  # the last word
    seen: set[tuple[int, ...]] = set()
    for seed in range(60):
        cut = augmented_waveforms(waves_BS, lengths_B, AugOptions(speed=0.1), front_end, _generator(seed))
        whole = augmented_waveforms(waves_BS, lengths_B, AugOptions(speed=0.1), front_end, _generator(seed), whole=True)
        for before, after, freely in zip(
            *(x.tolist() for x in (lengths_B, whole.lengths_B, cut.lengths_B)), strict=True
        ):
            assert front_end.frames_of(after) <= 60
            assert after == (freely if front_end.frames_of(freely) <= 60 else before)
        seen.add(tuple(cut.lengths_B.tolist()[:1]))
    assert len(seen) == 3  # slower, too


def test_gain_is_uniform_in_decibels() -> None:
    waves_BS = torch.full((20000, 2), 0.5)
    decibels_B = 20 * torch.log10(with_gain(waves_BS, 6.0, _generator())[:, 0] / 0.5)
    assert float(decibels_B.abs().max()) <= 6.0001
    assert float(decibels_B.mean()) == pytest.approx(0, abs=0.1)
    assert float(decibels_B.var()) == pytest.approx(12**2 / 12, rel=0.03)


def test_the_noise_has_the_ratio_that_was_drawn() -> None:
    waves_BS, lengths_B = _batch(3000)
    noise_BS = with_noise(waves_BS, lengths_B, 0.5, 10.0, _generator()) - waves_BS
    hit_B = noise_BS.abs().sum(dim=1) > 0
    assert float(hit_B.float().mean()) == pytest.approx(0.5, abs=0.03)
    ratio_B = 10 * torch.log10(waves_BS.square().sum(dim=1) / noise_BS.square().sum(dim=1))[hit_B]
    draws_2B = torch.rand(2, 3000, generator=_generator(), dtype=torch.float64)
    torch.testing.assert_close(ratio_B.double(), 10 + 30 * draws_2B[1][hit_B], atol=0.01, rtol=0)
    assert float(ratio_B.min()) > 9.99 and float(ratio_B.max()) < 40.01
    assert float(ratio_B.mean()) == pytest.approx(25, abs=0.7) and float(ratio_B.var()) == pytest.approx(75, rel=0.1)
    white_BS = noise_BS[hit_B] / noise_BS[hit_B].square().mean(dim=1, keepdim=True).sqrt()
    neighbours = (white_BS[:, 1:] * white_BS[:, :-1]).mean()
    assert float(neighbours) == pytest.approx(0, abs=0.01)
    assert float(white_BS.mean()) == pytest.approx(0, abs=0.01)


def test_silence_stays_silent_under_noise() -> None:
    waves_BS, lengths_B = _batch()
    waves_BS[3] = 0
    found_BS = with_noise(waves_BS, lengths_B, 1.0, 10.0, _generator())
    assert not found_BS[3].any()
    assert bool((found_BS != waves_BS).any(dim=1).sum() == 7)


def test_the_noise_of_a_clip_does_not_depend_on_how_it_is_padded() -> None:
    waves_BS, lengths_B = _batch(6)
    padded_BS = torch.nn.functional.pad(waves_BS, (0, 500))
    first_BS = with_noise(waves_BS, lengths_B, 1.0, 0.0, _generator())
    second_BS = with_noise(padded_BS, lengths_B, 1.0, 0.0, _generator())
    torch.testing.assert_close(second_BS[:, :1000], first_BS, atol=1e-7, rtol=1e-6)
    assert not second_BS[:, 1000:].any()


@pytest.mark.parametrize("alpha", [10.0, 0.5])
def test_weights_are_beta(alpha: float) -> None:
    waves_BS, lengths_B = torch.ones(40000, 1), torch.ones(40000, dtype=torch.long)
    _, weights_B = mixed(waves_BS, lengths_B, waves_BS, lengths_B, 0.6, alpha, _generator())
    drawn = weights_B[weights_B != 1]
    assert len(drawn) / 40000 == pytest.approx(0.6, abs=0.01)
    assert float(drawn.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(drawn.var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.03)


def test_mixup_by_hand() -> None:
    # The partner of the first is longer and cut (its mean of 2 taken off before), that of the second is padded.
    waves_BS = torch.tensor([[1.0, 3.0, 0.0, 0.0], [4.0, 0.0, 4.0, 0.0]])
    partners_BS = torch.tensor([[4.0, 0.0, 2.0], [5.0, 7.0, 0.0]])
    found_BS, weights_B = mixed(
        waves_BS, torch.tensor([2, 4]), partners_BS, torch.tensor([3, 2]), 1.0, 10.0, _generator()
    )
    w, v = weights_B.tolist()
    # [1, 3] - 2 and [4, 0, 2] - 2, cut to [2, -2]: the mix has mean 0.
    # [4, 0, 4, 0] - 2 and [5, 7] - 6, padded with zeros: so has this one.
    wanted_BS = torch.tensor(
        [
            [-w + 2 * (1 - w), w - 2 * (1 - w), 0, 0],
            [2 * v - (1 - v), -2 * v + (1 - v), 2 * v, -2 * v],
        ]
    )
    torch.testing.assert_close(found_BS, wanted_BS)
    assert 0 < w < 1 and 0 < v < 1 and w != v


def test_the_mean_of_a_mix_is_taken_off_where_cutting_left_one() -> None:
    found_BS, weights_B = mixed(
        torch.tensor([[1.0, -1.0]]),
        torch.tensor([2]),
        torch.tensor([[1.0, 1.0, -2.0]]),
        torch.tensor([3]),
        1.0,
        10.0,
        _generator(),
    )
    torch.testing.assert_close(found_BS, weights_B[:, None] * torch.tensor([[1.0, -1.0]]))


def test_clips_that_are_not_mixed_stay_as_they_are() -> None:
    waves_BS, lengths_B = _batch(40)
    found_BS, weights_B = mixed(waves_BS, lengths_B, *_batch(40, seed=1), 0.5, 10.0, _generator())
    alone_B = weights_B == 1
    assert 8 < int(alone_B.sum()) < 32
    assert torch.equal(found_BS[alone_B], waves_BS[alone_B])
    assert not (found_BS[~alone_B] == waves_BS[~alone_B]).all(dim=1).any()
    same_BS, ones_B = mixed(waves_BS, lengths_B, waves_BS, lengths_B, 0.0, 10.0, _generator())
    assert same_BS is waves_BS and torch.equal(ones_B, torch.ones(40))


@pytest.mark.parametrize(
    "front_end", [AstFrontEnd(frames=20), WhisperFrontEnd(frames=20), WaveformFrontEnd(frames=20)], ids=lambda f: f.kind
)
def test_every_family_takes_augmented_waveforms(front_end: FrontEnd) -> None:
    rate = front_end.sample_rate
    waves_BS = 0.1 * torch.randn(4, rate, generator=_generator())
    lengths_B = torch.tensor([rate, front_end.window, rate // 2, front_end.window + 10])  # too short to run faster
    waves_BS = waves_BS * (torch.arange(rate) < lengths_B[:, None])
    for seed in range(6):
        options = AugOptions(mixup=1.0, noise=1.0, speed=0.4, gain=6.0)
        found = augmented_waveforms(waves_BS, lengths_B, options, front_end, _generator(seed), (waves_BS, lengths_B))
        x = front_end.collate_waveforms(found.waves_BS, found.lengths_B)
        assert bool(torch.isfinite(x.values).all())
        needed = samples_needed(options, front_end)
        assert needed >= front_end.samples_in(20)
        options = options.model_copy(update={"mixup": 0.0, "noise": 0.0})  # which look at whole clips
        whole, cut = (
            augmented_waveforms(waves_BS[:, :size], lengths_B.clamp(max=size), options, front_end, _generator(seed))
            for size in (rate, needed)
        )
        first = front_end.collate_waveforms(whole.waves_BS, whole.lengths_B)
        second = front_end.collate_waveforms(cut.waves_BS, cut.lengths_B)
        torch.testing.assert_close(first.values, second.values, atol=1e-5, rtol=0)
