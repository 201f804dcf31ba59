"""Augmentation of what a backbone reads: SpecAugment, noise on features, and rolling.

Shapes: B clips, T frames, M mel bins, S input positions (samples of waveforms, else frames).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from petl.frontend import FrontEnd, ModelInput

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from trainables.config import AugOptions


def augmented(x: ModelInput, options: AugOptions, front_end: FrontEnd, generator: torch.Generator) -> ModelInput:
    """A batch of a front end with masks, noise and roll (in this order, AAT's); itself when there is nothing to do.

    A spectrogram is rolled over its whole input, padding included, by -roll to roll - 1 frames, as AAT does. A waveform
    is rolled by as many samples as that many frames have, but within its own length, for its end is where the padding
    starts that the backbone is told of.
    """
    if not (options.freq_mask or options.time_mask or options.feature_noise or options.roll):
        return x
    values = x.values if front_end.time_axis == 1 else x.values.transpose(1, 2)
    mask_BS = x.mask
    if options.freq_mask or options.time_mask:
        level = front_end.zero if options.mask_fill == "zero" else 0.0
        values = spec_augment(values, options.freq_mask, options.time_mask, generator, level)
    if options.feature_noise:
        values = noisy_features(values, options.feature_noise, generator)
    if options.roll:
        most = options.roll * (1 if front_end.spectrogram else front_end.hop)
        shift_B = _shifts(len(x), most, generator).to(values.device)
        values = rolled(values, shift_B, None if front_end.spectrogram or mask_BS is None else mask_BS.sum(dim=1))
        if front_end.spectrogram and mask_BS is not None:
            mask_BS = _shifted(mask_BS, shift_B)
    return ModelInput(values if front_end.time_axis == 1 else values.transpose(1, 2), mask_BS)


def spec_augment(
    x_BTM: Tensor, freq_mask: int, time_mask: int, generator: torch.Generator | None = None, level: float = 0.0
) -> Tensor:
    """Hide one band of mel bins and one stretch of frames of every clip (Park et al. 2019, without time warping).

    Each clip has its masks at places of its own. Widths are uniform over the whole numbers of [0, freq_mask) and
    [0, time_mask), as in torchaudio's `FrequencyMasking` and `TimeMasking` with `iid_masks`, and positions uniform over
    all places where the mask fits (torchaudio's never reach the last bin and frame); a mask longer than the input may
    cover all of it. Masked values become `level`; 0 is the mean of normalised features, `FrontEnd.zero` what AAT
    leaves, which masks before it normalises. A new tensor is returned, `x_BTM` itself only when both widths are 0.
    Draws come from `generator` (a generator on the CPU; the global one if None) and are the same on every device.
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
    return x_BTM.masked_fill(hidden_BTM.to(x_BTM.device), level)


def noisy_features(x_BTM: Tensor, most: float, generator: torch.Generator) -> Tensor:
    """x + u v: v uniform in [0, 1) for every value, u in [0, most) for every clip.

    With `most` 0.1 that is the noise of AAT's code, which adds it to normalised features, padding included.
    """
    import torch

    scale_B11 = torch.rand(len(x_BTM), 1, 1, generator=generator) * most
    return x_BTM + (torch.rand(x_BTM.shape, generator=generator) * scale_B11).to(x_BTM)


def rolled(x: Tensor, shift_B: Tensor, length_B: Tensor | None = None) -> Tensor:
    """Each clip of x (B, S) or (B, S, M) shifted round by `shift_B` positions, to the right where positive.

    With `length_B` a clip is shifted round within its first so many positions, and the others stay where they are.
    """
    import torch

    place_S = torch.arange(x.shape[1], device=x.device)
    around_B1 = torch.full_like(shift_B, x.shape[1])[:, None] if length_B is None else length_B[:, None]
    from_BS = (place_S - shift_B[:, None]).remainder(around_B1.clamp(min=1))
    from_BS = torch.where(place_S < around_B1, from_BS, place_S)
    return x[torch.arange(len(x), device=x.device)[:, None], from_BS]


def _shifts(clips: int, most: int, generator: torch.Generator) -> Tensor:
    import torch

    return torch.randint(-most, most, (clips,), generator=generator)


def _shifted(mask_BS: Tensor, shift_B: Tensor) -> Tensor:
    """The mask of rolled spectrograms: what is recording still begins at the first frame, as everybody expects.

    Padding that came to the front counts as recording; frames that went round to the end of a padded clip do not.
    """
    import torch

    size = mask_BS.shape[1]
    length_B = mask_BS.sum(dim=1)
    length_B = torch.where(length_B < size, (length_B + shift_B).clamp(1, size), length_B)
    return torch.arange(size, device=mask_BS.device) < length_B[:, None]


def _stretches(clips: int, size: int, widest: int, generator: torch.Generator | None) -> Tensor:
    """Bool (clips, size): in each row one random stretch."""
    import torch

    draws_2B = torch.rand(2, clips, generator=generator, dtype=torch.float64)
    width_B = (draws_2B[0] * widest).long().clamp(max=size)
    first_B = (draws_2B[1] * (size - width_B + 1)).long()
    places_S = torch.arange(size)
    return (places_S >= first_B[:, None]) & (places_S < (first_B + width_B)[:, None])
