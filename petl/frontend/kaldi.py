"""Kaldi's log-mel filterbanks of many clips at once, on whatever device they are on.

The steps, and their order, are those of `torchaudio.compliance.kaldi.fbank` with the settings of audio spectrogram
transformers (Hann window of 25 ms every 10 ms, no dither, no energy, whole windows only), which takes one clip at a
time and makes its filters anew for each. The numbers are the same but for the rounding of sums.

Shapes: B clips, S samples, T frames, W samples of a window, F bins of the Fourier transform, M mel bins.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from petl.frontend.base import HOP_SECONDS, WINDOW_SECONDS

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_LOWEST, _PREEMPHASIS = 20.0, 0.97  # Hz; both Kaldi's defaults


def fbank_batch(waves_BS: Tensor, sample_rate: int, mel_bins: int) -> Tensor:
    """Log-mel features of waveforms, float32 (B, T, M); T = 0 where S is less than one window.

    Frames whose window reaches behind the end of a padded clip are no frames of it; leaving them out is the caller's.
    """
    import torch

    window, hop = int(sample_rate * WINDOW_SECONDS), int(sample_rate * HOP_SECONDS)
    clips, samples = waves_BS.shape
    frames = 0 if samples < window else 1 + (samples - window) // hop
    if not clips or not frames:
        return waves_BS.new_empty(clips, frames, mel_bins)
    window_W, filters_FM = _constants(sample_rate, mel_bins, waves_BS.device)
    # Half precision would lose the quiet bins.
    with torch.autocast(waves_BS.device.type, enabled=False):
        frames_BTW = waves_BS.unfold(1, window, hop)
        frames_BTW = frames_BTW - frames_BTW.mean(dim=2, keepdim=True)
        # Each sample less a share of the one before it; the first sample of a window has itself before it.
        before_BTW = torch.cat([frames_BTW[:, :, :1], frames_BTW[:, :, :-1]], dim=2)
        frames_BTW = (frames_BTW - _PREEMPHASIS * before_BTW) * window_W
        powers_BTF = torch.fft.rfft(frames_BTW, n=_transform(window)).abs().square()
        return (powers_BTF @ filters_FM).clamp(min=torch.finfo(torch.float32).eps).log()


def _transform(window: int) -> int:
    """Samples of the Fourier transform: the next power of two."""
    return 1 << (window - 1).bit_length()


@lru_cache(maxsize=8)
def _constants(sample_rate: int, mel_bins: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Hann window (W,) and mel filters (F, M)."""
    import torch
    from torchaudio.compliance import kaldi

    window = int(sample_rate * WINDOW_SECONDS)
    size = _transform(window)
    filters_MF, _ = kaldi.get_mel_banks(mel_bins, size, float(sample_rate), _LOWEST, 0.0, 100.0, -500.0, 1.0)
    filters_FM = torch.nn.functional.pad(filters_MF, (0, 1)).T  # the bin of half the sample rate counts nowhere
    return torch.hann_window(window, periodic=False, device=device), filters_FM.contiguous().to(device)
