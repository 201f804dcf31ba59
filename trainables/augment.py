"""SpecAugment on batches of normalised features (Park et al. 2019, without time warping).

Shapes: B clips, T frames, M mel bins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from petl.errors import ConfigError
from petl.frontend import FrontEnd, ModelInput

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from trainables.config import AugOptions


def check(options: AugOptions, front_end: FrontEnd) -> None:
    """Raise `ConfigError` when masks are asked for where there is no spectrogram to put them on."""
    check_masks(options, spectrogram=front_end.spectrogram)


def check_masks(options: AugOptions, *, spectrogram: bool) -> None:
    """`check` before there is a front end."""
    for name in ("freq_mask", "time_mask"):
        if getattr(options, name) and not spectrogram:
            raise ConfigError(
                f"aug.{name} is {getattr(options, name)}, but the backbone reads waveforms, which have no spectrogram "
                "to mask; set it to 0. With backbone_mode: train such backbones mask their own features "
                "(mask_time_prob and mask_feature_prob of their config.json)",
                f"aug.{name}",
            )


def augmented(x: ModelInput, options: AugOptions, front_end: FrontEnd, generator: torch.Generator) -> ModelInput:
    """A batch of a front end with SpecAugment's masks on it; itself when there are none."""
    if not (options.freq_mask or options.time_mask):
        return x
    values_BTM = x.values if front_end.time_axis == 1 else x.values.transpose(1, 2)
    values_BTM = spec_augment(values_BTM, options.freq_mask, options.time_mask, generator)
    return ModelInput(values_BTM if front_end.time_axis == 1 else values_BTM.transpose(1, 2), x.mask)


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
    import torch

    draws_2B = torch.rand(2, clips, generator=generator, dtype=torch.float64)
    width_B = (draws_2B[0] * widest).long().clamp(max=size)
    first_B = (draws_2B[1] * (size - width_B + 1)).long()
    places_S = torch.arange(size)
    return (places_S >= first_B[:, None]) & (places_S < (first_B + width_B)[:, None])
