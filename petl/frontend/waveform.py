"""The front end of models that read the waveform: wav2vec 2.0, HuBERT, WavLM, Data2VecAudio, UniSpeech-SAT.

The numbers are those of transformers' `Wav2Vec2FeatureExtractor`: each clip is cut, scaled to mean 0 and variance 1
over its own samples (where the checkpoint wants that), and padded with zeros behind.

Shapes: S samples, B clips.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from petl.errors import UserError
from petl.frontend.audio import AudioError
from petl.frontend.base import HOP_SECONDS, FrontEnd, number, whole
from petl.frontend.inputs import ModelInput, first_positions, real_positions
from petl.shape import BackboneShape

if TYPE_CHECKING:
    from torch import Tensor

_VERSION = 1
_EPS = 1e-7  # transformers' own
_LOUDEST = 1e15  # full scale is 1; the squares of larger samples would not add up in float32


@dataclass(frozen=True)
class WaveformFrontEnd(FrontEnd):
    """Samples; a row is one sample, and `frames` (of 10 ms) the length that longer clips are cut to.

    `masks`: the backbone is told what is padding (see `petl.padding`); the preprocessor_config.json of checkpoints
    whose first convolution ends in a GroupNorm says no. `fixed`: every batch is padded to `frames` instead of to its
    longest clip, so that backbones that see the padding give a clip the same whatever it is batched with.
    """

    kind: ClassVar[str] = "Wav2Vec2FeatureExtractor"
    # 16-bit recordings at the right rate lose nothing by it; see trainables.data.features.
    storage: ClassVar[Literal["float16", "int16"]] = "int16"
    spectrogram: ClassVar[bool] = False
    shortest: ClassVar[int] = 3  # 30 ms: the receptive field of one output of the published models is 25 ms

    sample_rate: int = 16000
    frames: int = 2000
    normalize: bool = True
    masks: bool = False
    fixed: bool = False

    def __post_init__(self) -> None:
        self._positive("sample_rate", "frames")
        self._frames_have_samples()

    @property
    def longest(self) -> int:
        return 2000  # 20 s

    @property
    def width(self) -> int:
        return 1

    @property
    def masked(self) -> bool:
        return self.masks

    @property
    def backbone_frames(self) -> int | None:
        return None

    @property
    def normalisation(self) -> str:
        return "each clip to mean 0, deviation 1" if self.normalize else "none"

    def frames_of(self, samples: int) -> int:
        return -(-samples // self.hop)

    def rows(self, frames: int) -> int:
        return frames * self.hop

    def frames_in(self, rows: int) -> int:
        return -(-rows // self.hop)

    def samples_in(self, frames: int) -> int:
        return frames * self.hop

    def extract(self, waveform_S: Tensor) -> Tensor:
        """The samples themselves: float32 (S, 1).

        Raises `AudioError` (not finite) for samples whose variance would not be finite.
        """
        self._long_enough(len(waveform_S))
        if not float(waveform_S.abs().max()) <= _LOUDEST:
            raise AudioError("not finite", "its samples are so large that the features overflow")
        return waveform_S[:, None]

    def collate(self, rows: Sequence[Tensor]) -> ModelInput:
        """Samples (B, S) float32, S that of the longest clip (or `frames`, where `fixed`)."""
        import numpy as np
        import torch

        limit = self.rows(self.frames)
        lengths = [min(len(row), limit) for row in rows]
        size = limit if self.fixed else max(lengths, default=0)
        x_BS = torch.zeros(len(rows), size)
        for x_S, row, length in zip(x_BS, rows, lengths, strict=True):
            wave_S = row[:length, 0].numpy()
            if self.normalize:  # in numpy, whose sums round as transformers' do
                wave_S = (wave_S - wave_S.mean()) / np.sqrt(wave_S.var() + _EPS)
            x_S[:length] = torch.from_numpy(wave_S)
        return ModelInput(x_BS, real_positions(lengths, size))

    def collate_waveforms(self, waves_BS: Tensor, lengths_B: Tensor) -> ModelInput:
        """Samples (B, S) float32 as of `collate`."""
        import torch

        limit = self.rows(self.frames)
        for samples in lengths_B.tolist():
            self._long_enough(samples)
        lengths = [min(samples, limit) for samples in lengths_B.tolist()]
        size = limit if self.fixed else max(lengths, default=0)
        kept_BS = waves_BS[:, :size].float()
        x_BS = torch.nn.functional.pad(kept_BS, (0, size - kept_BS.shape[1]))
        real_BS = first_positions(lengths, size, x_BS.device)
        x_BS = x_BS.masked_fill(~real_BS, 0)
        if self.normalize:
            count_B1 = torch.tensor(lengths, device=x_BS.device)[:, None]
            x_BS = (x_BS - x_BS.sum(dim=1, keepdim=True) / count_B1).masked_fill(~real_BS, 0)
            variance_B1 = x_BS.square().sum(dim=1, keepdim=True) / count_B1
            x_BS = x_BS / (variance_B1 + _EPS).sqrt()
        return ModelInput(x_BS, real_positions(lengths, size, x_BS.device))

    def check(self, shape: BackboneShape) -> None:
        if not shape.samples:
            raise self._wrong_input(f"the features of '{shape.family}'")

    def _identity(self) -> dict[str, Any]:
        return {"kind": "waveform", "v": _VERSION, "sample_rate": self.sample_rate}

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Self:
        padding = number(values, "padding_value", 0.0)
        if padding:
            raise UserError(f"preprocessor_config.json: padding_value is {padding:g}; only 0 is known")
        rate = whole(values, "sampling_rate", 16000)
        frames = cls.frames
        if values.get("max_length") is not None:
            frames = max(1, -(-whole(values, "max_length", 0) // max(1, int(rate * HOP_SECONDS))))
        return cls(
            sample_rate=rate,
            frames=frames,
            normalize=bool(values.get("do_normalize", True)),
            masks=bool(values.get("return_attention_mask", False)),
            fixed=values.get("padding") == "max_length",
        )

    def to_preprocessor(self) -> dict[str, Any]:
        """What `Wav2Vec2FeatureExtractor.from_pretrained` reads; `max_length` and `padding` are for its call."""
        return {
            "feature_extractor_type": self.kind,
            "feature_size": 1,
            "sampling_rate": self.sample_rate,
            "padding_side": "right",
            "padding_value": 0.0,
            "do_normalize": self.normalize,
            "return_attention_mask": self.masks,
            "max_length": self.rows(self.frames),
            "padding": "max_length" if self.fixed else "longest",
        }


def waveform_store(front_end: FrontEnd, samples: int | None = None) -> WaveformFrontEnd:
    """What keeps the waveforms that `front_end.collate_waveforms` takes, at its sample rate.

    All stores of one rate have the same digest, that of models that read waveforms, so they share a cache. `frames` of
    the store reach over `samples` samples at least (None: what the input of `front_end` depends on): a clip may be cut
    to `store.rows(store.frames)` samples, and `store.collate` cuts it there.
    """
    rate = front_end.sample_rate
    samples = front_end.samples_in(front_end.frames) if samples is None else samples
    frames = -(-samples // max(1, int(rate * HOP_SECONDS)))
    return WaveformFrontEnd(sample_rate=rate, frames=frames, normalize=False, masks=True)
