"""Front ends of models that read waveforms, and of Whisper: the numbers of transformers' own extractors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Wav2Vec2FeatureExtractor, WhisperFeatureExtractor

from petl.errors import ConfigError, UserError
from petl.frontend import (
    AstFrontEnd,
    AudioError,
    FrontEnd,
    ModelInput,
    WaveformFrontEnd,
    WhisperFrontEnd,
    completed,
)
from petl.shape import BackboneShape


def _waves(*seconds: float) -> list[np.ndarray]:
    found = []
    for number, length in enumerate(seconds):
        draw, time_S = np.random.default_rng(number), np.arange(round(length * 16000)) / 16000
        wave_S = 0.3 * np.sin(2 * np.pi * 700 * time_S) + 0.05 * draw.standard_normal(len(time_S)) + 0.02
        found.append(wave_S.astype(np.float32))
    return found


def _collated(front_end: FrontEnd, waves: list[np.ndarray]) -> ModelInput:
    return front_end.collate([front_end.extract(torch.from_numpy(wave)) for wave in waves])


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("fixed", [True, False])
def test_waveforms_are_transformers_own(normalize: bool, fixed: bool, tmp_path: Path) -> None:
    front_end = WaveformFrontEnd(frames=100, normalize=normalize, masks=True, fixed=fixed)
    waves = _waves(0.5, 0.025, 1.7, 0.0777)  # the third is cut
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(front_end.to_preprocessor()))
    extractor = Wav2Vec2FeatureExtractor.from_pretrained(tmp_path)
    theirs = extractor(
        waves,
        sampling_rate=16000,
        padding="max_length" if fixed else "longest",
        max_length=16000,
        truncation=True,
        return_tensors="pt",
    )
    ours = _collated(front_end, waves)
    assert ours.values.dtype == torch.float32
    assert torch.equal(ours.values, theirs["input_values"])
    assert ours.mask is not None and ours.mask.dtype == torch.bool
    assert torch.equal(ours.mask.int(), theirs["attention_mask"])
    alone = _collated(front_end, waves[:1])
    assert torch.equal(alone.values[0, :8000], ours.values[0, :8000])
    assert alone.values.shape == (1, 16000 if fixed else 8000)
    assert (alone.mask is None) is not fixed


def test_silence_stays_silent() -> None:
    assert not _collated(WaveformFrontEnd(), [np.zeros(800, np.float32)]).values.any()


@pytest.mark.parametrize("mels", [80, 128])
def test_whisper_features_are_transformers_own(mels: int) -> None:
    waves = [*_waves(0.5, 0.025, 12.3456, 29.998, 29.96, 30.0, 33.3), np.zeros(8000, np.float32)]
    front_end = WhisperFrontEnd(mel_bins=mels)
    extractor = WhisperFeatureExtractor(feature_size=mels)
    theirs = extractor(waves, sampling_rate=16000, return_tensors="pt", return_attention_mask=True)
    ours = _collated(front_end, waves)
    assert ours.values.shape == (len(waves), mels, 3000)
    torch.testing.assert_close(ours.values, theirs["input_features"], atol=2e-5, rtol=0)
    assert ours.mask is not None
    assert torch.equal(ours.mask.int(), theirs["attention_mask"].int())


@pytest.mark.parametrize("seconds", [0.5, 0.501, 0.6, 0.639, 0.64])
def test_shorter_whisper_inputs_are_transformers_own_for_that_length(seconds: float) -> None:
    [wave] = _waves(seconds)
    theirs = WhisperFeatureExtractor()(wave, sampling_rate=16000, max_length=64 * 160, return_tensors="pt")[
        "input_features"
    ]
    ours = _collated(WhisperFrontEnd().with_frames(64), [wave]).values
    assert ours.shape == (1, 80, 64)
    # transformers mirrors the sound where it is cut; here silence follows it, as behind any other clip.
    same = 64 if seconds <= 0.6 else 62
    torch.testing.assert_close(ours[..., :same], theirs[..., :same], atol=2e-5, rtol=0)


def test_a_cut_whisper_input_differs_from_transformers_in_its_last_frames_only() -> None:
    [wave] = _waves(2.0)
    theirs = WhisperFeatureExtractor()(wave, sampling_rate=16000, max_length=64 * 160, return_tensors="pt")
    ours = _collated(WhisperFrontEnd(frames=64), [wave])
    torch.testing.assert_close(ours.values[..., :62], theirs["input_features"][..., :62], atol=2e-5, rtol=0)
    assert ours.mask is None


@pytest.mark.parametrize("front_end", [AstFrontEnd(), WaveformFrontEnd(), WhisperFrontEnd()], ids=lambda f: f.kind)
def test_lengths_agree(front_end: FrontEnd) -> None:
    for samples in (400, 401, 559, 560, 561, 16000):
        rows = front_end.extract(torch.randn(samples, generator=torch.Generator().manual_seed(0)))
        frames = front_end.frames_of(samples)
        assert rows.shape[1] == front_end.width
        assert front_end.frames_in(len(rows)) == frames
        assert len(rows) <= front_end.rows(frames)
    with pytest.raises(AudioError, match=r"24\.9 ms; features need at least 25 ms"):
        front_end.extract(torch.randn(399))
    assert _collated(front_end.with_frames(20), []).values.shape[0] == 0


@pytest.mark.parametrize(
    "front_end",
    [
        AstFrontEnd(frames=77, mean=-1.5),
        WaveformFrontEnd(frames=77, normalize=False, masks=True),
        WaveformFrontEnd(sample_rate=8000, fixed=True),
        WhisperFrontEnd(mel_bins=128, frames=78),
    ],
    ids=str,
)
def test_preprocessor_round_trip(front_end: FrontEnd) -> None:
    values = json.loads(json.dumps(front_end.to_preprocessor()))
    assert FrontEnd.from_preprocessor(values) == front_end
    assert FrontEnd.from_preprocessor(values).digest() == front_end.digest()


def test_the_digest_names_what_is_kept_of_a_clip() -> None:
    kept = {AstFrontEnd().digest(), WaveformFrontEnd().digest(), WhisperFrontEnd().digest()}
    assert len(kept) == 3
    assert WaveformFrontEnd(frames=9, normalize=False, masks=True, fixed=True).digest() in kept
    assert WhisperFrontEnd(frames=64).digest() in kept
    assert WhisperFrontEnd(mel_bins=128).digest() not in kept


_W2V = {"model_type": "wav2vec2", "feat_extract_norm": "group"}
_WHISPER = {"model_type": "whisper", "num_mel_bins": 128, "max_source_positions": 20}


@pytest.mark.parametrize(
    ("values", "config", "expected"),
    [
        ({}, _W2V, WaveformFrontEnd()),
        ({}, {**_W2V, "feat_extract_norm": "layer"}, WaveformFrontEnd(masks=True)),
        ({"return_attention_mask": True}, _W2V, WaveformFrontEnd(masks=True)),
        ({"return_attention_mask": False}, {**_W2V, "feat_extract_norm": "layer"}, WaveformFrontEnd()),
        ({"do_normalize": False, "sampling_rate": 8000}, _W2V, WaveformFrontEnd(sample_rate=8000, normalize=False)),
        ({"feature_size": 1}, {"model_type": "hubert"}, WaveformFrontEnd()),
        ({}, _WHISPER, WhisperFrontEnd(mel_bins=128, frames=40)),
        ({"chunk_length": 30, "nb_max_frames": 3000}, _WHISPER, WhisperFrontEnd(mel_bins=128, frames=40)),
        ({}, {"model_type": "audio-spectrogram-transformer", "max_length": 512}, AstFrontEnd(frames=512)),
        ({"image_mean": [0.5], "feature_extractor_type": "DeiTFeatureExtractor"}, {"model_type": "deit"}, None),
    ],
)
def test_what_a_checkpoint_leaves_out(
    values: dict[str, Any], config: dict[str, Any], expected: FrontEnd | None
) -> None:
    assert FrontEnd.from_preprocessor(completed(values, config)) == (expected or AstFrontEnd())


def test_a_front_end_of_another_family_is_refused() -> None:
    wav2vec2, whisper = BackboneShape.from_config(_W2V), BackboneShape.from_config(_WHISPER)
    own = {"feature_extractor_type": "ASTFeatureExtractor"}
    with pytest.raises(
        UserError, match=r"names a ASTFeatureExtractor, .* 'wav2vec2', which takes a Wav2Vec2FeatureExtr"
    ):
        completed(own, _W2V)
    with pytest.raises(UserError, match="names a ASTFeatureExtractor, but the backbone takes waveforms"):
        AstFrontEnd().check(wav2vec2)
    with pytest.raises(UserError, match="Wav2Vec2FeatureExtractor, but the backbone takes the features of 'whisper'"):
        WaveformFrontEnd().check(whisper)
    with pytest.raises(UserError, match="WhisperFeatureExtractor, but the backbone takes waveforms"):
        WhisperFrontEnd().check(wav2vec2)
    with pytest.raises(UserError, match="WhisperFeatureExtractor, but the backbone takes the features of 'audio-spec"):
        WhisperFrontEnd().check(BackboneShape())
    with pytest.raises(UserError, match=r"gives 38 frames of 128 mel bins, .* loaded for 40 of 128"):
        WhisperFrontEnd(mel_bins=128, frames=38).check(whisper)
    WhisperFrontEnd(mel_bins=128, frames=40).check(whisper)
    WaveformFrontEnd().check(wav2vec2)


def test_a_length_of_whisper_that_is_no_number() -> None:
    with pytest.raises(UserError, match="nb_max_frames is 'abc'; a whole number is needed"):
        completed({"nb_max_frames": "abc"}, _WHISPER)


def test_waveforms_whose_variance_overflows_are_refused() -> None:
    front_end, wave_S = WaveformFrontEnd(), torch.ones(16000)
    wave_S[::2] = -1
    x_BS = front_end.collate([front_end.extract(wave_S * 1e15)]).values
    torch.testing.assert_close(x_BS[0], wave_S)
    with pytest.raises(AudioError, match="not finite: its samples are so large"):
        front_end.extract(wave_S * 1e20)


def test_whisper_lengths_that_cannot_be() -> None:
    front_end = WhisperFrontEnd(frames=100)
    with pytest.raises(ConfigError, match=r"data.frames is 31; .* must be even"):
        front_end.with_frames(31)
    with pytest.raises(ConfigError, match=r"data.frames is 102, but the backbone has positions for 100 frames"):
        front_end.with_frames(102)
    assert [front_end.nearest_length(n) for n in (1, 31, 32, 5000)] == [2, 32, 32, 100]
    assert [WaveformFrontEnd().nearest_length(n) for n in (1, 50, 5000)] == [3, 50, 2000]


def test_a_batch_moves() -> None:
    batch = ModelInput(torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool)).to("cpu", torch.float64)
    assert batch.values.dtype == torch.float64 and batch.mask is not None and batch.mask.dtype == torch.bool
    assert ModelInput(torch.zeros(2, 3)).to("cpu").mask is None
    assert len(batch) == 2
