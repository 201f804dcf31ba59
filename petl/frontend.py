"""From an audio file to what an audio spectrogram transformer eats (torch is loaded on first use only).

The features are those of transformers' `ASTFeatureExtractor`, number for number: Kaldi log-mel filterbanks
(Hann window of 25 ms every 10 ms, no dither, no mean removal of the waveform), padded with zeros or cut to a
fixed number of frames, then (x - mean) / (2 std). They come in three steps so that the costly ones are done
once per clip and the cheap one per batch: `decode` (file -> waveform), `fbank` (waveform -> raw log-mel) and
`model_input` (raw log-mel -> padded, normalised).

Shapes: S samples, T frames of the clip, M mel bins.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from petl.errors import UserError

if TYPE_CHECKING:
    from soundfile import SoundFile
    from torch import Tensor

AUDIOSET_MEAN, AUDIOSET_STD = -4.2677393, 4.5689974
WINDOW_SECONDS, HOP_SECONDS = 0.025, 0.010

_EXTRACTOR = "ASTFeatureExtractor"
_FEATURES_VERSION = 1  # raised whenever the same file would give other raw features
_BLOCK = 1 << 20  # samples decoded at a time when a header cannot be trusted

AudioFault = Literal["unreadable", "empty", "not finite", "too short"]


class AudioError(UserError):
    """One recording cannot be used. `reason` is the kind of fault, `detail` the finding, `path` the file."""

    def __init__(self, reason: AudioFault, detail: str, path: str | Path | None = None) -> None:
        self.reason: AudioFault = reason
        self.detail = detail
        self.path = None if path is None else str(path)
        super().__init__(f"{reason}: {detail}" if path is None else f"{path}: {reason}: {detail}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason, self.detail, self.path)


@dataclass(frozen=True)
class FrontEnd:
    """What turns audio into the input of one backbone. `frames` is the length of the model's input."""

    sample_rate: int = 16000
    mel_bins: int = 128
    frames: int = 1024
    mean: float = AUDIOSET_MEAN
    std: float = AUDIOSET_STD

    def __post_init__(self) -> None:
        for name in ("sample_rate", "mel_bins", "frames"):
            if getattr(self, name) < 1:
                raise UserError(f"front end: {name} is {getattr(self, name)}; it must be at least 1")
        if not (math.isfinite(self.mean) and math.isfinite(self.std) and self.std > 0):
            raise UserError(f"front end: mean {self.mean} and std {self.std} must be finite, and std above 0")

    @property
    def window(self) -> int:
        """Samples of one analysis window: no feature can be computed from less."""
        return int(self.sample_rate * WINDOW_SECONDS)

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        return int(self.sample_rate * HOP_SECONDS)

    def frames_of(self, samples: int) -> int:
        """T for a waveform of `samples` samples; 0 when it is shorter than one window."""
        return 0 if samples < self.window else 1 + (samples - self.window) // self.hop

    def digest(self) -> str:
        """Name of the raw features: equal when `decode` and `fbank` would give equal numbers."""
        parts = {"v": _FEATURES_VERSION, "sample_rate": self.sample_rate, "mel_bins": self.mel_bins}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    @classmethod
    def from_preprocessor(cls, values: Mapping[str, Any]) -> FrontEnd:
        """Read the contents of an AST `preprocessor_config.json`; what is left out has transformers' default.

        Raises `UserError` for another kind of feature extractor or for values of the wrong type.
        """
        kind = values.get("feature_extractor_type", _EXTRACTOR)
        if kind != _EXTRACTOR:
            raise UserError(
                f"preprocessor_config.json: feature_extractor_type is '{kind}'; only '{_EXTRACTOR}' is "
                "known. Use a backbone of the audio spectrogram transformer (AST) family"
            )
        try:
            normalized = bool(values.get("do_normalize", True))
            return cls(
                sample_rate=int(values.get("sampling_rate", 16000)),
                mel_bins=int(values.get("num_mel_bins", 128)),
                frames=int(values.get("max_length", 1024)),
                # Without normalisation the same formula has to leave every number as it is.
                mean=float(values.get("mean", AUDIOSET_MEAN)) if normalized else 0.0,
                std=float(values.get("std", AUDIOSET_STD)) if normalized else 0.5,
            )
        except (TypeError, ValueError) as error:
            raise UserError(f"preprocessor_config.json: a value is not a number ({error})") from None

    def to_preprocessor(self) -> dict[str, Any]:
        """The reverse: what `ASTFeatureExtractor.from_pretrained` reads."""
        return {
            "feature_extractor_type": _EXTRACTOR,
            "feature_size": 1,
            "sampling_rate": self.sample_rate,
            "num_mel_bins": self.mel_bins,
            "max_length": self.frames,
            "padding_side": "right",
            "padding_value": 0.0,
            "do_normalize": True,
            "mean": self.mean,
            "std": self.std,
            "return_attention_mask": False,
        }


def decode(path: str | Path, sample_rate: int, start: float | None = None, end: float | None = None) -> Tensor:
    """Read a recording as mono float32 in [-1, 1], shape (S,), at `sample_rate` Hz.

    Anything libsndfile reads (wav, flac, ogg, mp3, ...), any rate, any number of channels (averaged).
    `start` and `end` in seconds select a part, and only that part is read; an `end` behind the end of the
    recording means its end. Raises `AudioError`: unreadable, empty, not finite.
    """
    import soundfile
    import torch
    from torchaudio.functional import resample

    if not Path(path).is_file():
        raise AudioError("unreadable", "there is no such file", path)
    if Path(path).stat().st_size == 0:
        raise AudioError("empty", "the file has 0 bytes", path)
    try:
        with soundfile.SoundFile(str(path)) as file:
            rate = file.samplerate
            samples_SC = _read(file, path, start, end)
    except (soundfile.SoundFileError, OSError, ValueError, TypeError, MemoryError) as error:
        raise AudioError("unreadable", _first_line(error), path) from None
    if not len(samples_SC):
        raise AudioError("empty", "it holds no samples", path)
    wave_S = torch.from_numpy(samples_SC)
    wave_S = wave_S[:, 0] if wave_S.shape[1] == 1 else wave_S.mean(1)
    if not torch.isfinite(wave_S).all():
        bad = int((~torch.isfinite(wave_S)).sum())
        raise AudioError("not finite", f"{bad} of {len(wave_S)} samples are NaN or infinite", path)
    return resample(wave_S, rate, sample_rate).contiguous()


def fbank(waveform_S: Tensor, front_end: FrontEnd) -> Tensor:
    """Raw log-mel features, float32 (T, M): `ASTFeatureExtractor(do_normalize=False)` before it pads or cuts.

    Raises `AudioError` (too short) for less than one window of 25 ms.
    """
    from torchaudio.compliance import kaldi

    samples = len(waveform_S)
    if samples < front_end.window:
        raise AudioError(
            "too short",
            f"{1000 * samples / front_end.sample_rate:.1f} ms; features need at least {1000 * WINDOW_SECONDS:.0f} ms",
        )
    return kaldi.fbank(
        waveform_S.unsqueeze(0),
        sample_frequency=front_end.sample_rate,
        window_type="hanning",
        num_mel_bins=front_end.mel_bins,
    )


def model_input(features_TM: Tensor, front_end: FrontEnd) -> Tensor:
    """Pad with zeros or cut to `front_end.frames`, then normalise: (frames, M) float32.

    As in transformers the padding comes first, so that padded frames hold (0 - mean) / (2 std).
    """
    import torch

    frames, bins = features_TM.shape
    if bins != front_end.mel_bins:
        raise ValueError(f"features have {bins} mel bins, the front end {front_end.mel_bins}")
    x_TM = torch.zeros(front_end.frames, bins)
    kept = min(frames, front_end.frames)
    x_TM[:kept] = features_TM[:kept]
    return normalize_(x_TM, front_end)


def normalize_(features: Tensor, front_end: FrontEnd) -> Tensor:
    """(x - mean) / (2 std), in place, for float32 features of any shape; rounded as transformers does."""
    return features.sub_(front_end.mean).div_(front_end.std * 2)


def clip_features(
    path: str | Path, front_end: FrontEnd, start: float | None = None, end: float | None = None
) -> Tensor:
    """`decode` and `fbank` in one: raw log-mel (T, M) of a recording, with the path in every `AudioError`."""
    waveform_S = decode(path, front_end.sample_rate, start, end)
    try:
        return fbank(waveform_S, front_end)
    except AudioError as error:
        raise AudioError(error.reason, error.detail, path) from None


def _read(file: SoundFile, path: str | Path, start: float | None, end: float | None) -> Any:
    """Samples (S, channels) of an open file, of the part asked for."""
    import numpy as np

    first = round((start or 0.0) * file.samplerate)
    if first < 0 or (end is not None and end <= (start or 0.0)):
        raise AudioError("empty", f"nothing lies between {start or 0.0:g} s and {end} s", path)
    if first:
        if first >= file.frames:
            length = file.frames / file.samplerate
            raise AudioError("empty", f"start {start:g} s is not before its end at {length:.3f} s", path)
        file.seek(first)
    wanted = None if end is None else round(end * file.samplerate) - first
    # The length in a damaged header can be anything, so it is never trusted with an allocation.
    blocks = []
    while wanted is None or wanted > 0:
        block = file.read(_BLOCK if wanted is None else min(_BLOCK, wanted), dtype="float32", always_2d=True)
        if not len(block):
            break
        blocks.append(block)
        wanted = None if wanted is None else wanted - len(block)
    if not blocks:
        return np.zeros((0, file.channels), np.float32)
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def _first_line(error: BaseException) -> str:
    """What libsndfile says, without the object and the path in front of it."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return text.rpartition(": ")[2].rstrip(".") if text.startswith("Error opening") else text
