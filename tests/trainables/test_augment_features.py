"""Noise, roll and the level of masks on features, and what a backbone without a spectrogram cannot have."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from petl.errors import ConfigError
from petl.frontend import AstFrontEnd, FrontEnd, ModelInput, WaveformFrontEnd, WhisperFrontEnd
from trainables.augment import augmented, check, check_masks, noisy_features, rolled, spec_augment
from trainables.config import AugOptions

_AST = AstFrontEnd(frames=50, mean=-6.0, std=3.0)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _ast(*frames: int) -> ModelInput:
    return _AST.collate([torch.randn(count, 128, generator=_generator(count)) - 6 for count in frames])


def test_the_level_of_masks() -> None:
    x = _ast(50, 50, 30)
    for fill, level in (("mean", 0.0), ("zero", 1.0)):  # (0 - -6) / (2 * 3)
        options = AugOptions(freq_mask=40, time_mask=20, mask_fill=fill)  # type: ignore[arg-type]
        found = augmented(x, options, _AST, _generator())
        hidden_BTM = spec_augment(torch.ones(3, 50, 128), 40, 20, _generator()) == 0
        assert 0 < int(hidden_BTM.sum()) < hidden_BTM.numel()
        assert bool((found.values[hidden_BTM] == level).all())
        assert torch.equal(found.values[~hidden_BTM], x.values[~hidden_BTM])


def test_the_level_of_masks_on_log10_features() -> None:
    front_end = WhisperFrontEnd(frames=30)
    x = front_end.collate([torch.randn(32, 80, generator=_generator()) - 3])
    found = augmented(x, AugOptions(time_mask=28, mask_fill="zero"), front_end, _generator(1))
    hidden_BMT = found.values != x.values
    assert bool(hidden_BMT.any()) and bool((found.values[hidden_BMT] == 1.0).all())  # (0 + 4) / 4
    assert bool((hidden_BMT.all(dim=1) == hidden_BMT.any(dim=1)).all())


def test_noise_on_features_is_the_product_of_two_uniform_numbers() -> None:
    noise_BTM = noisy_features(torch.zeros(4000, 10, 10), 0.1, _generator())
    largest_B = noise_BTM.amax(dim=(1, 2))  # nearly u itself
    assert float(noise_BTM.min()) >= 0 and float(noise_BTM.max()) < 0.1
    assert float(largest_B.mean()) == pytest.approx(0.05 * 100 / 101, rel=0.03)
    assert float(largest_B.var()) == pytest.approx(0.1**2 / 12, rel=0.07)
    within_BTM = noise_BTM / largest_B[:, None, None]
    assert float(within_BTM.mean()) == pytest.approx(0.5 * 101 / 100, rel=0.01)
    assert float(within_BTM.var()) == pytest.approx(1 / 12, rel=0.03)


def test_one_clip_does_not_depend_on_the_others() -> None:
    x = _ast(50, 30, 40)
    others = ModelInput(torch.cat([x.values[:1] * 2 + 1, x.values[1:2], x.values[2:] - 1]), x.mask)
    options = AugOptions(freq_mask=20, time_mask=10, feature_noise=0.1, roll=10)
    first, second = augmented(x, options, _AST, _generator()), augmented(others, options, _AST, _generator())
    assert torch.equal(first.values[1], second.values[1])
    assert not torch.equal(first.values[0], second.values[0])
    again = augmented(x, options, _AST, _generator())
    assert torch.equal(first.values, again.values)
    assert not torch.equal(first.values, augmented(x, options, _AST, _generator(1)).values)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_rolling_is_a_permutation(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 12))
    lengths = data.draw(st.lists(st.integers(1, size), min_size=1, max_size=4))
    shifts = data.draw(st.lists(st.integers(-30, 30), min_size=len(lengths), max_size=len(lengths)))
    x_BS = torch.arange(len(lengths) * size).reshape(len(lengths), size)
    found_BS = rolled(x_BS, torch.tensor(shifts), torch.tensor(lengths))
    for found_S, x_S, length, shift in zip(found_BS, x_BS, lengths, shifts, strict=True):
        assert torch.equal(found_S[:length], torch.roll(x_S[:length], shift))
        assert torch.equal(found_S[length:], x_S[length:])
    whole_BS = rolled(x_BS, torch.tensor(shifts))
    assert all(torch.equal(a, torch.roll(b, s)) for a, b, s in zip(whole_BS, x_BS, shifts, strict=True))


def test_spectrograms_roll_by_minus_roll_to_roll_minus_one_over_the_whole_input() -> None:
    clips = 2000
    ramp_BTM = torch.arange(50.0)[None, :, None].expand(clips, 50, 128)
    x = ModelInput(ramp_BTM, torch.arange(50) < torch.full((clips, 1), 30))
    found = augmented(x, AugOptions(roll=3), _AST, _generator())
    shift_B = found.values[:, :, 0].argmin(dim=1)
    assert shift_B.unique().tolist() == [0, 1, 2, 47, 48, 49]  # the last three are -3, -2, -1
    assert all(270 < int((shift_B == shift).sum()) < 400 for shift in (0, 1, 2, 47, 48, 49))
    assert found.mask is not None
    # The mask still begins in front: it ends where the clip now ends.
    lengths_B = torch.where(shift_B > 25, 30 + shift_B - 50, 30 + shift_B)
    assert torch.equal(found.mask, torch.arange(50) < lengths_B[:, None])


def test_the_mask_of_a_clip_that_fills_the_input_stays_full() -> None:
    x = _ast(50, 49, 2)
    found = augmented(x, AugOptions(roll=10), _AST, _generator(3))
    assert x.mask is not None and found.mask is not None
    assert bool(found.mask[0].all())
    assert bool((found.mask.sum(dim=1) >= 1).all())


def test_waveforms_roll_within_their_own_length() -> None:
    front_end = WaveformFrontEnd(sample_rate=1000, masks=True)
    waves = [torch.arange(1.0, 101), torch.arange(1.0, 61)]
    x = front_end.collate([wave[:, None] for wave in waves])
    shifts = set()
    for seed in range(200):
        found = augmented(x, AugOptions(roll=2), front_end, _generator(seed))
        assert found.mask is x.mask
        assert torch.equal(found.values[1, 60:], torch.zeros(40))
        for before_S, after_S in ((x.values[0], found.values[0]), (x.values[1, :60], found.values[1, :60])):
            shift = int(after_S.argmin())
            assert torch.equal(torch.roll(before_S, shift), after_S)
            shifts.add(shift if shift < 30 else shift - len(before_S))
    assert shifts == set(range(-20, 20))  # 2 frames of 10 samples, of 1 kHz


def test_nothing_asked_for_is_nothing_done() -> None:
    x = _ast(50, 30)
    assert augmented(x, AugOptions(), _AST, _generator()) is x
    assert augmented(x, AugOptions(mixup=0.5, gain=3.0, mask_fill="zero"), _AST, _generator()) is x
    whisper = WhisperFrontEnd(frames=30)
    x = whisper.collate([torch.zeros(32, 80)])
    assert augmented(x, AugOptions(), whisper, _generator()) is x


def test_noise_and_roll_find_the_time_axis_of_every_family() -> None:
    front_end = WhisperFrontEnd(frames=30)
    x = front_end.collate([torch.randn(32, 80, generator=_generator()) - 3])
    shifts = {
        shift
        for seed in range(40)
        for shift in range(-2, 2)
        if torch.equal(augmented(x, AugOptions(roll=2), front_end, _generator(seed)).values, x.values.roll(shift, 2))
    }
    assert shifts == {-2, -1, 0, 1}
    noise = augmented(x, AugOptions(feature_noise=0.1), front_end, _generator()).values - x.values
    assert noise.shape == (1, 80, 30) and float(noise.min()) > -1e-6 and 0 < float(noise.max()) < 0.1


@pytest.mark.parametrize(("name", "words"), [("freq_mask", "to mask"), ("feature_noise", "to add noise to")])
def test_what_needs_a_spectrogram_is_refused_for_waveforms(name: str, words: str) -> None:
    options = AugOptions(**{name: 1})
    with pytest.raises(ConfigError, match=rf"aug\.{name} is 1.*reads waveforms, which have no spectrogram {words}"):
        check(options, WaveformFrontEnd())
    with pytest.raises(ConfigError, match=rf"aug\.{name}"):
        check_masks(options, spectrogram=False)
    for front_end in (AstFrontEnd(), WhisperFrontEnd()):
        check(options, front_end)


def test_a_gain_is_refused_where_every_waveform_is_scaled() -> None:
    front_end = WaveformFrontEnd()
    waves_BS = torch.randn(2, 16000, generator=_generator())
    lengths_B = torch.tensor([16000, 9000])
    quiet, loud = (front_end.collate_waveforms(level * waves_BS, lengths_B).values for level in (0.1, 1.0))
    torch.testing.assert_close(quiet, loud, rtol=1e-3, atol=1e-4)  # the reason
    with pytest.raises(ConfigError, match=r"aug\.gain is 6, .* each scaled to deviation 1 .* set it to 0") as caught:
        check(AugOptions(gain=6.0), front_end)
    assert caught.value.key == "aug.gain"
    check(AugOptions(mixup=0.5, noise=0.5, roll=10, speed=0.1), front_end)


_PLAIN = WaveformFrontEnd(normalize=False)


@pytest.mark.parametrize("front_end", [AstFrontEnd(), WhisperFrontEnd(), _PLAIN], ids=lambda f: f.kind)
def test_waveform_augmentations_are_for_all(front_end: FrontEnd) -> None:
    check(AugOptions(mixup=0.5, noise=0.5, roll=10, speed=0.1, gain=6.0), front_end)
