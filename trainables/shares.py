"""What a worker computes at a time in an epoch, and the audio of it.

Legend: B clips of a part, S samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from petl.frontend import ModelInput
from petl.model import AudioModel
from trainables import batches
from trainables.augment import augmented, augmented_waveforms, samples_needed
from trainables.collective import rank, world
from trainables.config import TrialConfig
from trainables.data import AudioData

PARTNERS = 1
"""Sets the draw of mixup's partners apart from the draws of everything else in a step."""


@dataclass(frozen=True)
class Part:
    """What a worker computes at a time: its share of a batch, or with accumulation a part of that."""

    step: int
    part: int
    clips: Tensor
    counts: bool  # False: any clip, for company; see `parts_of_steps`
    of: int  # clips of the whole batch
    most: int  # clips of the worker that has most of this part
    last: bool  # the optimiser steps behind it


@dataclass
class Loaded:
    part: Part
    clean: ModelInput | None
    waves: tuple[Tensor, Tensor] | None
    partners: tuple[Tensor, Tensor] | None
    partner_clips: Tensor | None


def parts_of_steps(steps: list[Tensor], accumulate: int) -> Iterator[Part]:
    """What this worker computes in an epoch: its shares of the parts of every batch.

    A part is of the same clips however many workers share it, so that BatchNorm sees the same. A worker without a share
    of a small part computes on one clip that counts nothing: DDP needs every worker in every step, and no backbone
    takes an empty batch.
    """
    for number, batch in enumerate(steps):
        count = min(accumulate, len(batch))
        for part in range(count):
            clips = batches.share(batch[part::count], rank(), world())
            counts, last = len(clips) > 0, part == count - 1
            most = len(batches.share(batch[part::count], 0, world()))
            yield Part(number, part, clips if counts else batch[:1], counts, len(batch), most, last)


def load(config: TrialConfig, data: AudioData, epoch: int, part: Part) -> Loaded:
    """The audio of a part; in a thread of its own."""
    if not config.aug.of_waveform:
        return Loaded(part, data.batch("train", part.clips), None, None, None)
    most = samples_needed(config.aug, data.front_end)
    waves = data.waveforms("train", part.clips, most)
    if not config.aug.mixup:
        return Loaded(part, None, waves, None, None)
    draw = batches.generator(config.seed, epoch, part.step, rank(), part.part, PARTNERS)
    others_B = torch.randint(data.size("train"), (len(part.clips),), generator=draw)
    return Loaded(part, None, waves, data.waveforms("train", others_B, most), others_B)


def inputs_of(
    config: TrialConfig, model: AudioModel, loaded: Loaded, noise: torch.Generator, device: torch.device
) -> tuple[ModelInput, Tensor | None]:
    """The augmented batch on the device and, where clips were mixed, each one's own share."""
    if loaded.waves is None:
        assert loaded.clean is not None
        return augmented(loaded.clean, config.aug, model.front_end, noise).to(device), None
    waves_BS, lengths_B = loaded.waves
    partners = None if loaded.partners is None else (loaded.partners[0].to(device), loaded.partners[1])
    found = augmented_waveforms(
        waves_BS.to(device), lengths_B, config.aug, model.front_end, noise, partners, whole=model.output.sequence
    )
    x = model.front_end.collate_waveforms(found.waves_BS, found.lengths_B)
    return augmented(x, config.aug, model.front_end, noise), found.weights_B if config.aug.mixup else None
