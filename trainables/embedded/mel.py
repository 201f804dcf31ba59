"""Log-mel features of many equally long clips at once, as transformers' `ASTFeatureExtractor` computes them.

The extractor goes through Kaldi's filter bank one clip at a time; pretraining synthesises clips by the dozen. The
steps are Kaldi's: frames of 25 ms every 10 ms without padding, offset removed, pre-emphasis 0.97, Hann window,
power spectrum of 512 points, 128 triangular mel filters from 20 Hz, logarithm. A test holds both to each other.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torchaudio.compliance import kaldi

_RATE, _FRAME, _HOP, _FFT, _MELS = 16_000, 400, 160, 512, 128
_FLOOR = torch.finfo(torch.float32).eps


def frames(samples: int) -> int:
    """How many feature frames a clip of `samples` samples gives."""
    return 1 + (samples - _FRAME) // _HOP


def samples(frame_count: int) -> int:
    """The fewest samples that give `frame_count` feature frames."""
    return _FRAME + (frame_count - 1) * _HOP


def log_mel(waveforms_BS: Tensor) -> Tensor:
    """Log-mel features (B, T, 128) of waveforms (B, S) in [-1, 1] at 16 kHz, not normalised."""
    frames_BTS = waveforms_BS.unfold(1, _FRAME, _HOP)
    frames_BTS = frames_BTS - frames_BTS.mean(dim=2, keepdim=True)
    before_BTS = torch.cat([frames_BTS[..., :1], frames_BTS[..., :-1]], dim=2)
    window, mels_FM = _filters()
    power_BTF = torch.fft.rfft((frames_BTS - 0.97 * before_BTS) * window, _FFT).abs().square()
    return (power_BTF @ mels_FM).clamp_min(_FLOOR).log()


@cache
def _filters() -> tuple[Tensor, Tensor]:
    """The analysis window (400,) and the mel filters (257, 128)."""
    mels_MF, _ = kaldi.get_mel_banks(_MELS, _FFT, float(_RATE), 20.0, 0.0, 100.0, -500.0, 1.0)
    mels_MF = torch.nn.functional.pad(mels_MF, (0, 1))
    return torch.hann_window(_FRAME, periodic=False), mels_MF.T.contiguous()
