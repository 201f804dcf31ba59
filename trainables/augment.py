"""SpecAugment on batches of normalised features (Park et al. 2019, without time warping).

Shapes: B clips, T frames, M mel bins.
"""

from __future__ import annotations

import torch
from torch import Tensor


def spec_augment(x_BTM: Tensor, freq_mask: int, time_mask: int, generator: torch.Generator | None = None) -> Tensor:
    """Hide one band of mel bins and one stretch of frames of every clip, each at a place of its own.

    Widths are uniform over the whole numbers of [0, freq_mask) and [0, time_mask), as in torchaudio's
    `FrequencyMasking` and `TimeMasking` with `iid_masks`, and positions uniform over all places where the
    mask fits (torchaudio's never reach the last bin and frame); a mask longer than the input may cover all of
    it. Masked values become 0: on normalised features, the mean level. A new tensor is returned, `x_BTM`
    itself only when both widths are 0. Draws come from `generator` (a generator on the CPU; the global one if
    None) and are the same on every device.
    """
    if freq_mask < 0 or time_mask < 0:
        raise ValueError(f"mask widths must be 0 or more, not {freq_mask} and {time_mask}")
    clips, frames, bins = x_BTM.shape
    hidden_BTM: Tensor | None = None
    if freq_mask:
        hidden_BTM = _stretches(clips, bins, freq_mask, generator)[:, None, :]
    if time_mask:
        in_time_BT1 = _stretches(clips, frames, time_mask, generator)[:, :, None]
        hidden_BTM = in_time_BT1 if hidden_BTM is None else hidden_BTM | in_time_BT1
    if hidden_BTM is None:
        return x_BTM
    return x_BTM.masked_fill(hidden_BTM.to(x_BTM.device), 0.0)


def _stretches(clips: int, size: int, widest: int, generator: torch.Generator | None) -> Tensor:
    """Bool (clips, size): in each row one random stretch."""
    draws_2B = torch.rand(2, clips, generator=generator, dtype=torch.float64)
    width_B = (draws_2B[0] * widest).long().clamp(max=size)
    first_B = (draws_2B[1] * (size - width_B + 1)).long()
    places_S = torch.arange(size)
    return (places_S >= first_B[:, None]) & (places_S < (first_B + width_B)[:, None])
