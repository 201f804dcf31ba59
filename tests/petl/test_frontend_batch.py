"""Features of a batch of waveforms are those of the clips one by one, and those of torchaudio and transformers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torchaudio.compliance import kaldi
from transformers import ASTFeatureExtractor, WhisperFeatureExtractor

from petl.frontend import AstFrontEnd, AudioError, FrontEnd, WaveformFrontEnd, WhisperFrontEnd, inputs, waveform_store
from petl.frontend.kaldi import fbank_batch

_SECONDS = (0.5, 0.025, 1.28, 0.0777, 1.0, 0.64)


def _waves(seconds: tuple[float, ...] = _SECONDS, rate: int = 16000) -> list[Tensor]:
    """Tone with noise, faint noise on an offset, pure tone, silence, half silence, noise."""
    found = []
    for number, length in enumerate(seconds):
        time_S = torch.arange(round(length * rate)) / rate
        noise_S = torch.randn(len(time_S), generator=torch.Generator().manual_seed(number))
        tone_S = torch.sin(2 * torch.pi * 700 * time_S)
        kinds = (
            0.3 * tone_S + 0.05 * noise_S,
            0.1 + 0.01 * noise_S,
            0.9 * tone_S,
            0 * tone_S,
            noise_S * (time_S < length / 2),
            0.2 * noise_S,
        )
        found.append(kinds[number % len(kinds)])
    return found


def _padded(waves: list[Tensor], behind: float = 0.0) -> tuple[Tensor, Tensor]:
    waves_BS = torch.full((len(waves), max(len(wave) for wave in waves)), behind)
    for padded_S, wave_S in zip(waves_BS, waves, strict=True):
        padded_S[: len(wave_S)] = wave_S
    return waves_BS, torch.tensor([len(wave) for wave in waves])


_FRONT_ENDS: dict[str, FrontEnd] = {
    "ast": AstFrontEnd(frames=128),
    "ast, cut": AstFrontEnd(frames=40, mel_bins=64, mean=-6.6, std=5.4),
    "ast, 22.05 kHz": AstFrontEnd(frames=100, sample_rate=22050),
    "whisper": WhisperFrontEnd(frames=200),
    "whisper, cut": WhisperFrontEnd(frames=50, mel_bins=128),
    "whisper, 1 s": WhisperFrontEnd(frames=100, chunk=1),
    "waveform": WaveformFrontEnd(),
    "waveform, raw": WaveformFrontEnd(normalize=False),
    "waveform, fixed": WaveformFrontEnd(frames=60, fixed=True),
    "waveform, fixed and long": WaveformFrontEnd(frames=200, fixed=True),
}


@pytest.fixture(params=[1, 2, 100], ids=lambda count: f"{count} at once", autouse=True)
def at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """One clip at a time is what a CPU does, all at once what a GPU does."""
    monkeypatch.setattr(inputs, "CLIPS_AT_ONCE_ON_CPU", request.param)


@pytest.mark.parametrize("name", _FRONT_ENDS)
@pytest.mark.parametrize("seconds", [_SECONDS, (0.5,) * 3, (1.0, 0.999, 0.99), (1.5, 0.3)], ids=str)
def test_a_batch_is_its_clips_one_by_one(name: str, seconds: tuple[float, ...]) -> None:
    front_end = _FRONT_ENDS[name]
    waves = _waves(seconds, front_end.sample_rate)
    waves_BS, lengths_B = _padded(waves, behind=3.0)  # what is behind a clip is not looked at
    before = waves_BS.clone()
    found, wanted = (
        front_end.collate_waveforms(waves_BS, lengths_B),
        front_end.collate([*map(front_end.extract, waves)]),
    )
    assert found.values.dtype == torch.float32
    torch.testing.assert_close(found.values, wanted.values, atol=1e-5, rtol=0)
    assert (found.mask is None) == (wanted.mask is None)
    if found.mask is not None and wanted.mask is not None:
        assert torch.equal(found.mask, wanted.mask)
    assert torch.equal(waves_BS, before)


@pytest.mark.parametrize("name", _FRONT_ENDS)
def test_samples_in_are_what_frames_depend_on(name: str) -> None:
    front_end = replace(_FRONT_ENDS[name], frames=30)  # type: ignore[type-var]
    waves_BS, lengths_B = _padded(_waves((0.9, 0.6), front_end.sample_rate))
    needed = front_end.samples_in(30)
    whole = front_end.collate_waveforms(waves_BS, lengths_B)
    cut = front_end.collate_waveforms(waves_BS[:, :needed], lengths_B.clamp(max=needed))
    assert torch.equal(whole.values, cut.values)
    assert whole.mask is None and cut.mask is None
    one_less = front_end.collate_waveforms(waves_BS[:, : needed - 1], lengths_B.clamp(max=needed - 1))
    assert one_less.values.shape != whole.values.shape or not torch.equal(one_less.values, whole.values)


@pytest.mark.parametrize("bins", [128, 64])
@pytest.mark.parametrize("rate", [16000, 22050, 44100])
def test_fbank_is_torchaudios(bins: int, rate: int) -> None:
    waves = _waves(rate=rate)
    waves_BS, _ = _padded(waves)
    found_BTM = fbank_batch(waves_BS, rate, bins)
    for found_TM, wave_S in zip(found_BTM, waves, strict=True):
        theirs_TM = kaldi.fbank(
            wave_S[None],
            htk_compat=True,
            sample_frequency=rate,
            use_energy=False,
            window_type="hanning",
            num_mel_bins=bins,
            dither=0.0,
            frame_shift=10,
        )
        torch.testing.assert_close(found_TM[: len(theirs_TM)], theirs_TM, atol=1e-5, rtol=0)


def test_ast_features_are_transformers_own() -> None:
    front_end = AstFrontEnd(frames=100)
    waves = _waves()
    extractor = ASTFeatureExtractor(**front_end.to_preprocessor())
    theirs = extractor([wave.numpy() for wave in waves], sampling_rate=16000, return_tensors="pt")["input_values"]
    found = front_end.collate_waveforms(*_padded(waves))
    torch.testing.assert_close(found.values, theirs, atol=1e-5, rtol=0)
    assert found.mask is not None and found.mask.sum(dim=1).tolist() == [48, 1, 100, 6, 98, 62]


def test_whisper_features_are_transformers_own() -> None:
    front_end = WhisperFrontEnd(frames=200, chunk=2)
    waves = _waves((0.5, 0.025, 1.28, 0.0777, 2.0))
    extractor = WhisperFeatureExtractor(feature_size=80, chunk_length=2)
    theirs = extractor([wave.numpy() for wave in waves], sampling_rate=16000, return_tensors="pt")["input_features"]
    found = front_end.collate_waveforms(*_padded(waves))
    torch.testing.assert_close(found.values, theirs, atol=1e-4, rtol=0)


def test_no_clip_depends_on_the_others() -> None:
    waves = _waves()
    for name in ("ast", "whisper", "waveform, fixed"):
        front_end = _FRONT_ENDS[name]
        whole = front_end.collate_waveforms(*_padded(waves)).values
        others = [wave if number == 2 else wave * 0.1 for number, wave in enumerate(waves)]
        assert torch.equal(front_end.collate_waveforms(*_padded(others)).values[2], whole[2])


@pytest.mark.parametrize("name", _FRONT_ENDS)
def test_clips_below_a_window_are_refused(name: str) -> None:
    front_end = _FRONT_ENDS[name]
    short = front_end.window - 1
    with pytest.raises(AudioError, match="need at least 25 ms") as found:
        front_end.collate_waveforms(torch.zeros(2, front_end.sample_rate), torch.tensor([front_end.sample_rate, short]))
    assert found.value.reason == "too short"


def test_half_precision_does_not_reach_the_features() -> None:
    waves_BS, lengths_B = _padded(_waves())
    for name in ("ast", "whisper"):
        front_end = _FRONT_ENDS[name]
        wanted = front_end.collate_waveforms(waves_BS, lengths_B).values
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(front_end.collate_waveforms(waves_BS, lengths_B).values, wanted)


def test_zero_is_what_zero_becomes() -> None:
    front_end = AstFrontEnd(frames=20, mean=-6.0, std=3.0)
    assert front_end.zero == 1.0  # (0 - -6) / (2 * 3)
    assert float(front_end.collate([torch.zeros(5, 128)]).values[0, 3, 7]) == 1.0
    # A power of 1 has log10 0; the clip's maximum is then 0, and nothing is raised to it.
    whisper = WhisperFrontEnd(frames=4)
    assert whisper.zero == float(whisper.collate([torch.zeros(6, 80)]).values[0, 0, 0]) == 1.0


@pytest.mark.parametrize("name", _FRONT_ENDS)
def test_stores_share_the_digest_of_waveform_models(name: str) -> None:
    front_end = _FRONT_ENDS[name]
    store = waveform_store(front_end)
    assert store.digest() == WaveformFrontEnd(sample_rate=front_end.sample_rate).digest()
    assert (store.storage, store.width) == ("int16", 1)
    assert store.rows(store.frames) >= front_end.samples_in(front_end.frames) > store.rows(store.frames - 1)
    longer = waveform_store(front_end, 12345)
    assert longer.rows(longer.frames) >= 12345 > longer.rows(longer.frames - 1)


@pytest.mark.parametrize("name", _FRONT_ENDS)
def test_features_by_way_of_a_store_are_the_features(name: str) -> None:
    front_end = _FRONT_ENDS[name]
    store = waveform_store(front_end)
    waves = _waves(rate=front_end.sample_rate)
    stored = store.collate([store.extract(wave) for wave in waves])
    lengths_B = torch.full((len(waves),), stored.values.shape[1]) if stored.mask is None else stored.mask.sum(dim=1)
    found = front_end.collate_waveforms(stored.values, lengths_B)
    wanted = front_end.collate([front_end.extract(wave) for wave in waves])
    torch.testing.assert_close(found.values, wanted.values, atol=1e-5, rtol=0)


def test_what_sixteen_bits_add_stays_near_kaldis_floor() -> None:
    """Rounding a full-scale clip to 16 bits adds powers of the size of the smallest that the features tell from none.

    By hand for the highest bin: 2^-30 / 12 a sample, times 150 (the window's squares), 3.9 (pre-emphasis near half the
    sample rate) and 5.4 (the filter's weights) is 2.4e-7, two floors.
    """
    rounding_S = torch.from_numpy(np.random.default_rng(0).uniform(-0.5, 0.5, 32000) / 32768).float()
    powers_TM = fbank_batch(rounding_S[None], 16000, 128)[0].exp()
    assert float(powers_TM[:, -1].mean()) == pytest.approx(2.4e-7, rel=0.15)
    assert float(powers_TM.mean(dim=0).max()) < 2.5 * torch.finfo(torch.float32).eps
