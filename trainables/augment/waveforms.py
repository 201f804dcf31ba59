"""Augmentation of waveforms: speed, mixup, noise, gain.

A batch is `waves_BS` (float32, any device) and `lengths_B` (whole numbers, kept on the CPU so that nothing waits for
the device): clip b is its first `lengths_B[b]` samples, at least one, and 0 behind them. What is returned is as well.
Inputs are never written to; a batch to which nothing is done is returned itself.

Shapes: B clips, S samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from petl.frontend.inputs import first_positions
from trainables.augment.speeds import STEPS, rate_of, samples_at

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from petl.frontend import FrontEnd
    from trainables.config import AugOptions

_REACH = 16  # samples; torchaudio's resampling filter reaches over 6 / 0.99 of the slower rate
_SNR_RANGE = 30.0  # dB from the least to the greatest signal-to-noise ratio


class Waveforms(NamedTuple):
    """A batch of waveforms. `weights_B` (on their device) is each clip's own share, 1 where nothing is mixed in."""

    waves_BS: Tensor
    lengths_B: Tensor
    weights_B: Tensor


def augmented_waveforms(
    waves_BS: Tensor,
    lengths_B: Tensor,
    options: AugOptions,
    front_end: FrontEnd,
    generator: torch.Generator,
    partners: tuple[Tensor, Tensor] | None = None,
    *,
    whole: bool = False,
) -> Waveforms:
    """Speed, mixup, noise and gain, in this order, as far as `options` ask for them; `roll` is `augmented`'s.

    `partners` are the waveforms and lengths of one other clip for each, as they are mixed in; they are neither sped up
    nor made noisy themselves. With `whole` no clip becomes longer than the input, which would cut its end off: what is
    said there is part of what is to be learned of a sequence. Raises `ValueError` when there is mixup and no partners.
    """
    if options.speed:
        waves_BS, lengths_B = with_speed(
            waves_BS,
            lengths_B,
            options.speed,
            generator,
            shortest=front_end.window,
            fits=(lambda samples: front_end.frames_of(samples) <= front_end.frames) if whole else None,
        )
    weights_B = waves_BS.new_ones(len(waves_BS))
    if options.mixup:
        if partners is None:
            raise ValueError(f"aug.mixup is {options.mixup}, but there are no partners to mix in")
        waves_BS, weights_B = mixed(
            waves_BS, lengths_B, *partners, share=options.mixup, alpha=options.mixup_alpha, generator=generator
        )
    if options.noise:
        waves_BS = with_noise(waves_BS, lengths_B, options.noise, options.noise_snr, generator)
    if options.gain:
        waves_BS = with_gain(waves_BS, options.gain, generator)
    return Waveforms(waves_BS, lengths_B, weights_B)


def samples_needed(options: AugOptions, front_end: FrontEnd) -> int:
    """Samples of a clip that a batch depends on after augmentation: what is behind them may be cut off before it."""
    samples = front_end.samples_in(front_end.frames)
    return samples if not options.speed else math.ceil(samples * (1 + options.speed)) + _REACH


def with_speed(
    waves_BS: Tensor,
    lengths_B: Tensor,
    speed: float,
    generator: torch.Generator,
    *,
    shortest: int = 1,
    fits: Callable[[int], bool] | None = None,
) -> tuple[Tensor, Tensor]:
    """Every clip at 1 - speed, 1 or 1 + speed times its speed, each as likely as the others; pitch follows.

    The speed perturbation of Ko et al. (2015), with a factor in half percents. A clip of n samples has ceil(n / factor)
    after it; one that would have less than `shortest`, or a number that does not fit, stays as it is.
    """
    import torch
    from torchaudio.functional import resample

    drawn_B = torch.randint(-1, 2, (len(waves_BS),), generator=generator).tolist()
    step = rate_of(speed)
    lengths: list[int] = lengths_B.tolist()
    rates, changed = [STEPS] * len(lengths), list(lengths)
    for clip, (drawn, samples) in enumerate(zip(drawn_B, lengths, strict=True)):
        after = samples_at(samples, drawn * step)
        if after >= shortest and (fits is None or fits(after)):
            rates[clip], changed[clip] = STEPS + drawn * step, after
    if all(rate == STEPS for rate in rates):
        return waves_BS, lengths_B
    x_BS = waves_BS.new_zeros(len(lengths), max(changed))
    for rate in sorted(set(rates)):
        members = [clip for clip, found in enumerate(rates) if found == rate]
        here_BS = waves_BS[members, : max(lengths[clip] for clip in members)]
        here_BS = here_BS if rate == STEPS else resample(here_BS, rate, STEPS)
        kept = min(here_BS.shape[1], x_BS.shape[1])
        x_BS[members, :kept] = here_BS[:, :kept]
    # Resampling lets a clip ring on behind its end.
    x_BS.masked_fill_(~first_positions(changed, x_BS.shape[1], x_BS.device), 0)
    return x_BS, torch.tensor(changed)


def mixed(
    waves_BS: Tensor,
    lengths_B: Tensor,
    partners_BS: Tensor,
    partner_lengths_B: Tensor,
    share: float,
    alpha: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Between-class mixing of AAT's code: w x1 + (1 - w) x2 for a `share` of the clips, w from Beta(alpha, alpha).

    The other clip is padded with silence or cut to the length of the first. As there, each clip has its mean taken off
    before it is mixed, and so has the mix (nothing that Kaldi's features would show). Returns the waveforms and
    w (B,), which is 1, with the clip untouched, where nothing is mixed in. The targets are to be weighted alike.
    """
    import numpy as np
    import torch

    chosen_B = torch.rand(len(waves_BS), generator=generator, dtype=torch.float64) < share
    # torch draws from Beta distributions with its global generator alone.
    draw = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    drawn_B = torch.from_numpy(draw.beta(alpha, alpha, len(waves_BS)))
    weights_B = torch.where(chosen_B, drawn_B, 1.0).float().to(waves_BS.device)
    members = chosen_B.nonzero()[:, 0]
    if not len(members):
        return waves_BS, weights_B
    lengths, size = lengths_B[members].tolist(), waves_BS.shape[1]
    rows = members.to(waves_BS.device)
    own_BS = _centred(waves_BS[rows], lengths)
    other_BS = _centred(partners_BS[rows], partner_lengths_B[members].tolist())[:, :size]
    other_BS = torch.nn.functional.pad(other_BS, (0, size - other_BS.shape[1]))
    weight_B1 = weights_B[rows, None]
    x_BS = waves_BS.clone()
    x_BS[rows] = _centred(weight_B1 * own_BS + (1 - weight_B1) * other_BS, lengths)
    return x_BS, weights_B


def with_noise(waves_BS: Tensor, lengths_B: Tensor, share: float, snr: float, generator: torch.Generator) -> Tensor:
    """White Gaussian noise on a `share` of the clips, at a ratio drawn from [snr, snr + 30) dB.

    The ratio is that of the powers of the clip and of the noise over the clip's own samples, and holds exactly; silence
    stays silent.
    """
    import torch

    draws_2B = torch.rand(2, len(waves_BS), generator=generator, dtype=torch.float64)
    seeds = torch.randint(2**62, (len(waves_BS),), generator=generator).tolist()  # so that no clip's depends on others
    members = (draws_2B[0] < share).nonzero()[:, 0]
    if not len(members):
        return waves_BS
    lengths: list[int] = lengths_B[members].tolist()
    noise_BS = torch.zeros(len(members), waves_BS.shape[1])
    for noise_S, clip, samples in zip(noise_BS, members.tolist(), lengths, strict=True):
        drawn_S = torch.randn(samples, generator=torch.Generator().manual_seed(seeds[clip]))
        noise_S[:samples] = drawn_S / drawn_S.square().mean().sqrt()
    rows = members.to(waves_BS.device)
    ratio_B = 10 ** ((snr + _SNR_RANGE * draws_2B[1][members]) / 20)
    count_B = torch.tensor(lengths, device=waves_BS.device)
    level_B = (waves_BS[rows].square().sum(dim=1) / count_B).sqrt() / ratio_B.to(waves_BS)
    x_BS = waves_BS.clone()
    x_BS[rows] += level_B[:, None] * noise_BS.to(waves_BS)
    return x_BS


def with_gain(waves_BS: Tensor, gain: float, generator: torch.Generator) -> Tensor:
    """Every clip louder or softer by up to `gain` dB, uniformly; nothing is clipped."""
    import torch

    drawn_B = (2 * torch.rand(len(waves_BS), generator=generator, dtype=torch.float64) - 1) * gain
    return waves_BS * (10 ** (drawn_B / 20)).to(waves_BS)[:, None]


def _centred(waves_BS: Tensor, lengths: list[int]) -> Tensor:
    """Each clip less its mean, and 0 behind its end."""
    import torch

    real_BS = first_positions(lengths, waves_BS.shape[1], waves_BS.device)
    waves_BS = waves_BS.masked_fill(~real_BS, 0)
    mean_B1 = waves_BS.sum(dim=1, keepdim=True) / torch.tensor(lengths, device=waves_BS.device)[:, None]
    return (waves_BS - mean_B1).masked_fill(~real_BS, 0)
