"""The front end of audio spectrogram transformers.

The features are those of transformers' `ASTFeatureExtractor`, number for number: Kaldi log-mel filterbanks
(Hann window of 25 ms every 10 ms, no dither, no mean removal of the waveform), padded with zeros or cut to a
fixed number of frames, then (x - mean) / (2 std).

Shapes: S samples, T frames of the clip, M mel bins, B clips.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from petl.errors import UserError
from petl.frontend.base import FrontEnd, number, whole
from petl.frontend.inputs import ModelInput, first_positions, real_positions, together
from petl.frontend.kaldi import fbank_batch
from petl.shape import AST_TYPE, BackboneShape

if TYPE_CHECKING:
    from torch import Tensor

AUDIOSET_MEAN, AUDIOSET_STD = -4.2677393, 4.5689974

_VERSION = 1  # raised whenever the same file would give other raw features


@dataclass(frozen=True)
class AstFrontEnd(FrontEnd):
    """Kaldi log-mel frames of 10 ms; `frames` is the length of every input."""

    kind: ClassVar[str] = "ASTFeatureExtractor"
    shortest: ClassVar[int] = 16  # one patch

    sample_rate: int = 16000
    mel_bins: int = 128
    frames: int = 1024
    mean: float = AUDIOSET_MEAN
    std: float = AUDIOSET_STD

    def __post_init__(self) -> None:
        self._positive("sample_rate", "mel_bins", "frames")
        self._frames_have_samples()
        if not (math.isfinite(self.mean) and math.isfinite(self.std) and self.std > 0):
            raise UserError(f"front end: mean {self.mean} and std {self.std} must be finite, and std above 0")

    @property
    def longest(self) -> int:
        return 1024  # what the published checkpoints were pretrained on

    @property
    def width(self) -> int:
        return self.mel_bins

    @property
    def zero(self) -> float:
        return (0 - self.mean) / (self.std * 2)

    @property
    def normalisation(self) -> str:
        return f"mean {self.mean:.4f}, deviation {self.std:.4f}"

    def frames_of(self, samples: int) -> int:
        """T for a waveform of `samples` samples; 0 when it is shorter than one window."""
        return 0 if samples < self.window else 1 + (samples - self.window) // self.hop

    def rows(self, frames: int) -> int:
        return frames

    def frames_in(self, rows: int) -> int:
        return rows

    def samples_in(self, frames: int) -> int:
        return 0 if frames < 1 else (frames - 1) * self.hop + self.window

    def extract(self, waveform_S: Tensor) -> Tensor:
        """Raw log-mel features, float32 (T, M)."""
        return fbank(waveform_S, self)

    def collate(self, rows: Sequence[Tensor]) -> ModelInput:
        """Normalised features (B, frames, M) float32.

        As in transformers the padding comes first, so that padded frames hold (0 - mean) / (2 std).
        """
        import torch

        x_BTM = torch.empty(len(rows), self.frames, self.mel_bins)
        for x_TM, features_TM in zip(x_BTM, rows, strict=True):
            if features_TM.shape[1] != self.mel_bins:
                raise ValueError(f"features have {features_TM.shape[1]} mel bins, the front end {self.mel_bins}")
            kept = min(len(features_TM), self.frames)
            x_TM[:kept] = features_TM[:kept]
            x_TM[kept:] = 0
            x_TM.sub_(self.mean).div_(self.std * 2)  # clip by clip, while it is in the processor's cache
        return ModelInput(x_BTM, real_positions([len(features_TM) for features_TM in rows], self.frames))

    def collate_waveforms(self, waves_BS: Tensor, lengths_B: Tensor) -> ModelInput:
        """Normalised features (B, frames, M) float32."""
        import torch

        lengths = lengths_B.tolist()
        for samples in lengths:
            self._long_enough(samples)
        frames = [self.frames_of(samples) for samples in lengths]
        x_BTM = torch.zeros(len(lengths), self.frames, self.mel_bins, device=waves_BS.device)
        for here in together(lengths, waves_BS.device):
            needed = self.samples_in(min(self.frames, max(frames[here])))
            found_BTM = fbank_batch(waves_BS[here, :needed].float(), self.sample_rate, self.mel_bins)
            real_BT = first_positions(frames[here], found_BTM.shape[1], x_BTM.device)
            x_BTM[here, : found_BTM.shape[1]] = found_BTM.masked_fill_(~real_BT[:, :, None], 0)
        x_BTM.sub_(self.mean).div_(self.std * 2)
        return ModelInput(x_BTM, real_positions(frames, self.frames, x_BTM.device))

    def check(self, shape: BackboneShape) -> None:
        if shape.family != AST_TYPE:
            raise self._wrong_input("waveforms" if shape.samples else f"the features of '{shape.family}'")
        self._check_size(shape, self.mel_bins)

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"mel_bins": self.mel_bins, "mean": self.mean, "std": self.std}

    def _identity(self) -> dict[str, Any]:
        return {"v": _VERSION, "sample_rate": self.sample_rate, "mel_bins": self.mel_bins}

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Self:
        normalized = bool(values.get("do_normalize", True))
        return cls(
            sample_rate=whole(values, "sampling_rate", 16000),
            mel_bins=whole(values, "num_mel_bins", 128),
            frames=whole(values, "max_length", 1024),
            # Without normalisation the same formula has to leave every number as it is.
            mean=number(values, "mean", AUDIOSET_MEAN) if normalized else 0.0,
            std=number(values, "std", AUDIOSET_STD) if normalized else 0.5,
        )

    def to_preprocessor(self) -> dict[str, Any]:
        """What `ASTFeatureExtractor.from_pretrained` reads."""
        return {
            "feature_extractor_type": self.kind,
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


def fbank(waveform_S: Tensor, front_end: AstFrontEnd) -> Tensor:
    """Raw log-mel features, float32 (T, M): `ASTFeatureExtractor(do_normalize=False)` before it pads or cuts.

    Raises `AudioError` (too short) for less than one window of 25 ms.
    """
    from torchaudio.compliance import kaldi

    front_end._long_enough(len(waveform_S))
    return kaldi.fbank(
        waveform_S.unsqueeze(0),
        sample_frequency=front_end.sample_rate,
        window_type="hanning",
        num_mel_bins=front_end.mel_bins,
    )
