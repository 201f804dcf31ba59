"""The front end of Whisper encoders.

The features are those of transformers' `WhisperFeatureExtractor`: log10 of a Slaney mel spectrogram (Hann window of
400 samples every 160, centred), no lower than 8 below the clip's largest value, then (x + 4) / 4. The clip is
silence behind its end, and its largest value is taken with that silence.

A clip that is cut to `frames` keeps the last frame that its sound gives; transformers mirrors the sound at the cut.

Shapes: S samples, T frames of the clip, M mel bins, B clips.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Self

from petl.errors import ConfigError, UserError
from petl.frontend.base import FrontEnd, whole
from petl.frontend.inputs import ModelInput, first_positions, real_positions, together
from petl.shape import BackboneShape

if TYPE_CHECKING:
    from torch import Tensor

_VERSION = 1
_SILENCE = -10.0  # log10 of 1e-10, the smallest power that is told from none
_RANGE = 8.0
_TAIL = 2  # frames behind the end of a clip whose window still reaches it


@dataclass(frozen=True)
class WhisperFrontEnd(FrontEnd):
    """Mel frames of `hop_length` samples; `frames` (even) is the length of every input, `chunk` seconds the most.

    Rows are log10 powers before the clip's own scaling, and there are two more than the clip has frames: the windows
    of those reach back into it.
    """

    kind: ClassVar[str] = "WhisperFeatureExtractor"
    time_axis: ClassVar[int] = 2
    shortest: ClassVar[int] = 2

    sample_rate: int = 16000
    mel_bins: int = 80
    frames: int = 3000
    chunk: int = 30
    n_fft: int = 400
    hop_length: int = 160

    def __post_init__(self) -> None:
        self._positive("sample_rate", "mel_bins", "frames", "chunk", "n_fft", "hop_length")
        self._frames_have_samples()
        if self.window < 1:
            raise UserError(
                f"front end: sample_rate is {self.sample_rate} (sampling_rate in preprocessor_config.json); it must be "
                "at least 40, a sample in 25 ms"
            )
        if self.frames % 2:
            raise ConfigError(
                f"data.frames is {self.frames}; a Whisper encoder halves the number of frames, so it must be even",
                "data.frames",
            )
        if self.n_fft // 2 > _TAIL * self.hop_length:
            raise UserError(
                f"preprocessor_config.json: n_fft {self.n_fft} is more than {2 * _TAIL} times "
                f"hop_length {self.hop_length}, which no Whisper checkpoint has"
            )

    @property
    def hop(self) -> int:
        return self.hop_length

    @property
    def longest(self) -> int:
        return self.frames  # the positions that the encoder has

    @property
    def width(self) -> int:
        return self.mel_bins

    @property
    def zero(self) -> float:
        return (0 + 4.0) / 4.0

    @property
    def normalisation(self) -> str:
        return "each clip by its own maximum"

    def frames_of(self, samples: int) -> int:
        return -(-samples // self.hop)

    def rows(self, frames: int) -> int:
        return frames + _TAIL

    def frames_in(self, rows: int) -> int:
        return max(0, rows - _TAIL)

    def samples_in(self, frames: int) -> int:
        return min(self.chunk * self.sample_rate, max(0, frames - 1) * self.hop + self.n_fft // 2)

    def extract(self, waveform_S: Tensor) -> Tensor:
        """log10 mel powers, float32 (T + 2, M), of the first `chunk` seconds."""
        import torch

        self._long_enough(len(waveform_S))
        most = self.chunk * self.sample_rate
        wave_S = waveform_S[:most]
        rows = self.rows(self.frames_of(len(wave_S)))
        # Silence behind the end as far as windows reach, but not beyond the chunk: there transformers mirrors.
        padded_S = torch.nn.functional.pad(wave_S, (0, min(most, rows * self.hop + self.n_fft) - len(wave_S)))
        x_TM = self._log_mel(padded_S, rows).T
        return torch.nn.functional.pad(x_TM, (0, 0, 0, rows - len(x_TM)), value=_SILENCE)

    def collate(self, rows: Sequence[Tensor]) -> ModelInput:
        """Features (B, M, frames) float32, scaled clip by clip."""
        import torch

        x_BMT = torch.full((len(rows), self.mel_bins, self.frames), _SILENCE)
        for x_MT, row in zip(x_BMT, rows, strict=True):
            kept = min(len(row), self.frames)
            x_MT[:, :kept] = row[:kept].T
            x_MT.clamp_(min=float(x_MT.max()) - _RANGE).add_(4.0).div_(4.0)
        return ModelInput(x_BMT, real_positions([self.frames_in(len(row)) for row in rows], self.frames))

    def collate_waveforms(self, waves_BS: Tensor, lengths_B: Tensor) -> ModelInput:
        """Features (B, M, frames) float32, scaled clip by clip."""
        import torch

        most = self.chunk * self.sample_rate
        for samples in lengths_B.tolist():
            self._long_enough(samples)
        lengths = [min(samples, most) for samples in lengths_B.tolist()]
        frames = [self.frames_of(samples) for samples in lengths]
        x_BMT = torch.full((len(lengths), self.mel_bins, self.frames), _SILENCE, device=waves_BS.device)
        for here in together(lengths, waves_BS.device):
            kept = min(self.rows(max(frames[here])), self.frames)
            # As in `extract`: beyond all windows that are kept, so that nothing but silence is mirrored there.
            size = min(most, kept * self.hop + self.n_fft)
            wave_BS = torch.nn.functional.pad(waves_BS[here, :size].float(), (0, max(0, size - waves_BS.shape[1])))
            wave_BS = wave_BS.masked_fill(~first_positions(lengths[here], size, wave_BS.device), 0)
            with torch.autocast(wave_BS.device.type, enabled=False):  # half precision would lose the quiet bins
                found_BMT = self._log_mel(wave_BS, kept)
            here_BMT = x_BMT[here]  # a view: changed in place, while it is in the processor's cache
            here_BMT[:, :, : found_BMT.shape[2]] = found_BMT
            here_BMT.clamp_(min=found_BMT.amax(dim=(1, 2), keepdim=True) - _RANGE).add_(4.0).div_(4.0)
        return ModelInput(x_BMT, real_positions(frames, self.frames, x_BMT.device))

    def _log_mel(self, waves_S: Tensor, frames: int) -> Tensor:
        """log10 of the mel powers of the first frames: (M, T) of waveforms (S,), (B, M, T) of (B, S)."""
        import torch

        window = torch.hann_window(self.n_fft, device=waves_S.device)
        spectrum_FT = torch.stft(waves_S, self.n_fft, self.hop, window=window, return_complex=True)
        powers_FT = spectrum_FT[..., :-1][..., :frames].abs().square()
        filters_FM = torch.from_numpy(_mel_filters(self.sample_rate, self.n_fft, self.mel_bins)).to(waves_S.device)
        return (filters_FM.T @ powers_FT).clamp(min=10**_SILENCE).log10()

    def with_frames(self, frames: int) -> Self:
        if frames > self.frames:
            raise ConfigError(
                f"data.frames is {frames}, but the backbone has positions for {self.frames} frames; use at most that",
                "data.frames",
            )
        return replace(self, frames=frames)

    def nearest_length(self, frames: int) -> int:
        return super().nearest_length(frames + frames % 2)

    def check(self, shape: BackboneShape) -> None:
        if shape.samples or not shape.convs:
            raise self._wrong_input("waveforms" if shape.samples else f"the features of '{shape.family}'")
        self._check_size(shape, self.mel_bins)

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"mel_bins": self.mel_bins}

    def _identity(self) -> dict[str, Any]:
        return {
            "kind": "whisper",
            "v": _VERSION,
            "sample_rate": self.sample_rate,
            "mel_bins": self.mel_bins,
            "chunk": self.chunk,
            "n_fft": self.n_fft,
            "hop_length": self.hop_length,
        }

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Self:
        chunk, rate, hop = (
            whole(values, key, default)
            for key, default in (("chunk_length", 30), ("sampling_rate", 16000), ("hop_length", 160))
        )
        most = chunk * rate // max(1, hop)
        return cls(
            sample_rate=rate,
            mel_bins=whole(values, "feature_size", 80),
            frames=min(whole(values, "nb_max_frames", most), most),
            chunk=chunk,
            n_fft=whole(values, "n_fft", 400),
            hop_length=hop,
        )

    def to_preprocessor(self) -> dict[str, Any]:
        """What `WhisperFeatureExtractor.from_pretrained` reads; it gives `n_samples` with max_length=n_samples."""
        return {
            "feature_extractor_type": self.kind,
            "feature_size": self.mel_bins,
            "sampling_rate": self.sample_rate,
            "hop_length": self.hop_length,
            "chunk_length": self.chunk,
            "n_fft": self.n_fft,
            "n_samples": self.frames * self.hop_length,
            "nb_max_frames": self.frames,
            "padding_side": "right",
            "padding_value": 0.0,
            "return_attention_mask": False,
        }


@lru_cache(maxsize=4)
def _mel_filters(sample_rate: int, n_fft: int, mel_bins: int) -> Any:
    """Slaney's triangles from 0 to 8 kHz: float32 (1 + n_fft / 2, M)."""
    from transformers.audio_utils import mel_filter_bank

    return mel_filter_bank(
        num_frequency_bins=1 + n_fft // 2,
        num_mel_filters=mel_bins,
        min_frequency=0.0,
        max_frequency=8000.0,
        sampling_rate=sample_rate,
        norm="slaney",
        mel_scale="slaney",
    ).astype("float32")
