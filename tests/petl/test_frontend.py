"""The front end gives the numbers of transformers' own extractor, whatever file the sound comes from."""

from __future__ import annotations

import json
import math
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from transformers import ASTFeatureExtractor

from petl.errors import UserError
from petl.frontend import AstFrontEnd, AudioError, FrontEnd, clip_features, decode, fbank


def _noise(seconds: float, rate: int = 16000, seed: int = 0) -> np.ndarray:
    samples = round(seconds * rate)
    time_S = np.arange(samples) / rate
    noise_S = np.random.default_rng(seed).standard_normal(samples)
    return (0.3 * np.sin(2 * np.pi * 700 * time_S) + 0.05 * noise_S).astype(np.float32)


@pytest.mark.parametrize("seconds", [0.025, 0.4, 1.2801, 5.0])
@pytest.mark.parametrize("bins", [128, 64])
def test_raw_features_are_transformers_own(seconds: float, bins: int) -> None:
    wave_S = _noise(seconds)
    front_end = AstFrontEnd(mel_bins=bins)
    ours_TM = fbank(torch.from_numpy(wave_S), front_end)
    extractor = ASTFeatureExtractor(do_normalize=False, num_mel_bins=bins, max_length=len(ours_TM))
    theirs_TM = extractor(wave_S, sampling_rate=16000, return_tensors="pt")["input_values"][0]
    assert ours_TM.dtype == torch.float32
    assert len(ours_TM) == front_end.frames_of(len(wave_S))
    assert torch.equal(ours_TM, theirs_TM)


@pytest.mark.parametrize("frames", [16, 126, 500, 1024])
@pytest.mark.parametrize(("mean", "std"), [(-4.2677393, 4.5689974), (-6.6268077, 5.358466), (0.0, 0.5)])
def test_model_input_is_transformers_own(frames: int, mean: float, std: float) -> None:
    wave_S = _noise(1.28)
    front_end = AstFrontEnd(frames=frames, mean=mean, std=std)
    extractor = ASTFeatureExtractor(**front_end.to_preprocessor())
    theirs_TM = extractor(wave_S, sampling_rate=16000, return_tensors="pt")["input_values"][0]
    ours_TM = front_end.collate([fbank(torch.from_numpy(wave_S), front_end)]).values[0]
    assert ours_TM.shape == (frames, 128)
    assert torch.equal(ours_TM, theirs_TM)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2])
def test_decode_gives_mono_at_the_rate_asked_for(tmp_path: Path, suffix: str, rate: int, channels: int) -> None:
    path = tmp_path / f"sound.{suffix}"
    time_S = np.arange(rate) / rate
    # Two channels whose average is the 500 Hz tone: what is only in one of them must halve or vanish.
    tone_S, other_S = 0.5 * np.sin(2 * np.pi * 500 * time_S), 0.2 * np.sin(2 * np.pi * 900 * time_S)
    wave_SC = tone_S[:, None] if channels == 1 else np.stack([tone_S + other_S, tone_S - other_S], axis=1)
    soundfile.write(path, wave_SC, rate)
    decoded_S = decode(path, 16000)
    assert decoded_S.dtype == torch.float32
    assert abs(len(decoded_S) - 16000) <= (1600 if suffix == "mp3" else 1)  # mp3 pads to whole frames
    spectrum_F = torch.fft.rfft(decoded_S[4000:12000] * torch.hann_window(8000)).abs()
    assert int(spectrum_F.argmax()) == 250  # 8000 samples: 2 Hz apart
    assert spectrum_F[450] < 0.01 * spectrum_F[250]
    assert decoded_S[4000:12000].abs().max() == pytest.approx(0.5, abs=0.05)


def test_decode_at_the_own_rate_is_exact(tmp_path: Path) -> None:
    wave_S = _noise(0.5)
    soundfile.write(tmp_path / "a.wav", wave_S, 16000, subtype="FLOAT")
    assert torch.equal(decode(tmp_path / "a.wav", 16000), torch.from_numpy(wave_S))


def test_decode_reads_the_part_asked_for(tmp_path: Path) -> None:
    wave_S = _noise(2.0, rate=8000)
    soundfile.write(tmp_path / "a.wav", wave_S, 8000, subtype="FLOAT")
    whole_S = torch.from_numpy(wave_S)
    assert torch.equal(decode(tmp_path / "a.wav", 8000, 0.5, 1.25), whole_S[4000:10000])
    assert torch.equal(decode(tmp_path / "a.wav", 8000, start=1.5), whole_S[12000:])
    assert torch.equal(decode(tmp_path / "a.wav", 8000, end=99.0), whole_S)


def _raises(reason: str, *args: object) -> AudioError:
    with pytest.raises(AudioError) as caught:
        clip_features(*args)  # type: ignore[arg-type]
    assert caught.value.reason == reason
    assert str(caught.value).startswith(f"{args[0]}: {reason}: ")
    return caught.value


def test_files_that_cannot_be_used_say_why(tmp_path: Path) -> None:
    front_end = AstFrontEnd()
    assert "no such file" in _raises("unreadable", tmp_path / "none.wav", front_end).detail

    (tmp_path / "text.wav").write_text("this is not sound" * 20)
    assert "Format not recognised" in _raises("unreadable", tmp_path / "text.wav", front_end).detail

    (tmp_path / "zero.ogg").touch()
    assert "0 bytes" in _raises("empty", tmp_path / "zero.ogg", front_end).detail

    soundfile.write(tmp_path / "header.wav", np.zeros(0, np.float32), 16000)
    assert "no samples" in _raises("empty", tmp_path / "header.wav", front_end).detail

    soundfile.write(tmp_path / "short.wav", _noise(0.024), 16000)
    detail = _raises("too short", tmp_path / "short.wav", front_end).detail
    assert detail == "24.0 ms; features need at least 25 ms"

    wave_S = _noise(0.5)
    wave_S[[7, 9]] = np.nan, np.inf
    soundfile.write(tmp_path / "nan.wav", wave_S, 16000, subtype="FLOAT")
    assert "2 of 8000 samples" in _raises("not finite", tmp_path / "nan.wav", front_end).detail

    fine = tmp_path / "ok.wav"
    soundfile.write(fine, _noise(0.5), 16000)
    assert "start 3 s is not before its end at 0.500 s" in _raises("empty", fine, front_end, 3.0).detail
    assert "between 0.2 s and 0.1 s" in _raises("empty", fine, front_end, 0.2, 0.1).detail

    content = fine.read_bytes()
    (tmp_path / "cut.flac").write_bytes(content[:30])
    _raises("unreadable", tmp_path / "cut.flac", front_end)


def test_a_header_that_promises_too_much_is_not_believed(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", _noise(0.5), 16000)
    content = bytearray((tmp_path / "a.wav").read_bytes())
    data = content.index(b"data")
    content[data + 4 : data + 8] = (2**31 - 1).to_bytes(4, "little")
    (tmp_path / "liar.wav").write_bytes(content)
    assert len(decode(tmp_path / "liar.wav", 16000)) == 8000


def test_an_audio_error_crosses_processes() -> None:
    error = pickle.loads(pickle.dumps(AudioError("too short", "1 ms", "a.wav")))
    assert (error.reason, error.detail, error.path) == ("too short", "1 ms", "a.wav")
    assert str(error) == "a.wav: too short: 1 ms"


def test_preprocessor_config_round_trip(tmp_path: Path) -> None:
    front_end = AstFrontEnd(frames=500, mean=-6.5, std=5.25)
    assert FrontEnd.from_preprocessor(front_end.to_preprocessor()) == front_end
    ASTFeatureExtractor(**front_end.to_preprocessor()).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert FrontEnd.from_preprocessor(saved) == front_end
    assert FrontEnd.from_preprocessor({}) == AstFrontEnd()


def test_an_extractor_that_does_not_normalise(tmp_path: Path) -> None:
    front_end = FrontEnd.from_preprocessor({"do_normalize": False, "max_length": 40})
    features_TM = fbank(torch.from_numpy(_noise(0.3)), front_end)
    assert torch.equal(front_end.collate([features_TM]).values[0][: len(features_TM)], features_TM)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"feature_extractor_type": "ClapFeatureExtractor"}, "feature_extractor_type is 'Clap.*'; known are AST"),
        ({"feature_extractor_type": "Wav2Vec2FeatureExtractor", "padding_value": 1}, "padding_value is 1; only 0"),
        ({"feature_extractor_type": "Wav2Vec2FeatureExtractor", "sampling_rate": 0}, "sample_rate is 0"),
        ({"feature_extractor_type": "WhisperFeatureExtractor", "n_fft": 4000}, "n_fft 4000 is more than"),
        ({"feature_extractor_type": "WhisperFeatureExtractor", "nb_max_frames": 5}, "must be even"),
        ({"sampling_rate": "fast"}, "sampling_rate is 'fast'; a whole number is needed"),
        ({"sampling_rate": 16}, "sample_rate is 16 .* from 1,000 to 768,000 Hz"),
        ({"feature_extractor_type": "Wav2Vec2FeatureExtractor", "sampling_rate": 16}, "sample_rate is 16 .*from 1,000"),
        ({"feature_extractor_type": "WhisperFeatureExtractor", "sampling_rate": 16}, "sample_rate is 16 .* from 1"),
        ({"sampling_rate": 768001}, "sample_rate is 768001 .* from 1,000"),
        ({"max_length": math.inf}, "max_length is inf; a whole number is needed"),
        ({"feature_extractor_type": "Wav2Vec2FeatureExtractor", "max_length": math.inf}, "max_length is inf; a whole"),
        ({"feature_extractor_type": "WhisperFeatureExtractor", "nb_max_frames": "abc"}, "nb_max_frames is 'abc'; a w"),
        ({"feature_extractor_type": "WhisperFeatureExtractor", "chunk_length": [1]}, r"chunk_length is \[1\]; a whole"),
        ({"num_mel_bins": 12.5}, "num_mel_bins is 12.5; a whole number is needed"),
        ({"mean": "loud"}, "mean is 'loud'; a finite number is needed"),
        ({"std": math.nan}, "std is nan; a finite number is needed"),
        ({"std": 0.0}, "std 0.0 must be finite, and std above 0"),
        ({"max_length": 0}, "frames is 0; it must be at least 1"),
    ],
)
def test_a_wrong_preprocessor_config_is_refused(values: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        FrontEnd.from_preprocessor(values)


def test_the_digest_names_the_raw_features() -> None:
    assert AstFrontEnd(frames=10, mean=1.0, std=2.0).digest() == AstFrontEnd().digest()
    assert AstFrontEnd(mel_bins=64).digest() != AstFrontEnd().digest() != AstFrontEnd(sample_rate=8000).digest()


def test_the_module_needs_no_torch_until_used() -> None:
    code = "import sys, petl.frontend as f; f.AstFrontEnd().digest(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
