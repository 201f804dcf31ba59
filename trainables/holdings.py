"""What a worker process holds from trial to trial: one backbone, and the data that were opened last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

import petl
from petl.model import AudioModel
from trainables import augment, checks
from trainables.config import TrialConfig
from trainables.data import AudioData, Busy, idle
from trainables.opening import open_for, waveforms_needed

_KEPT = 3
"""Data that stay open: a trial may sample what they depend on, and every opening holds files and tables."""


class Holdings:
    """Backbone and data of one process.

    Args:
        device: where models run.
        cache_root: the feature cache of this node; None: features are not kept.
    """

    def __init__(self, device: torch.device, cache_root: Path | None) -> None:
        self._device, self._cache_root = device, cache_root
        self._backbones: dict[tuple[Any, ...], Any] = {}
        self._data: dict[tuple[Any, ...], list[AudioData]] = {}

    def build(self, config: TrialConfig, data: AudioData) -> AudioModel:
        """A freshly initialised model for the data on the kept backbone."""
        augment.check(config.aug, data.front_end)
        checks.check(config, data)
        adapted = petl.attach(self.backbone(config, data), config.method, seed=config.seed)
        try:
            if config.train.gradient_checkpointing:
                adapted.gradient_checkpointing()
            return AudioModel(adapted, data.output, data.front_end, seed=config.seed).to(self._device)
        except BaseException:  # out of memory, say: the next trial must find the backbone as it was
            adapted.detach()
            raise

    def backbone(self, config: TrialConfig, data: AudioData) -> nn.Module:
        """The frozen backbone, as it was published; a trial on another one must have been closed."""
        strides = {"frequency_stride": config.frequency_stride, "time_stride": config.time_stride}
        frames = data.front_end.backbone_frames
        key = (config.backbone, config.revision, config.positions, frames, *strides.values())
        if key not in self._backbones:
            self._backbones.clear()  # one at a time: they are the largest thing in the process
            backbone: nn.Module = petl.load_backbone(
                config.backbone,
                frames=frames,
                positions=config.positions,
                revision=config.revision,
                **strides,
            )
            self._backbones[key] = backbone.to(self._device)
        found: nn.Module = self._backbones[key]
        return found

    def data(self, config: TrialConfig, busy: Busy = idle) -> list[AudioData]:
        """The data of every repeat of this configuration as its backbone reads them; the last few stay open.

        `busy` is called while they are read for the first time.
        """
        key = (
            config.data,
            config.backbone,
            config.revision,
            config.time_stride,
            config.aug.speed,  # training clips that are too short for their transcript when sped up are left out
            waveforms_needed(config),
        )
        found = self._data.pop(key, None)
        if found is None:
            found = open_for(config, cache_root=self._cache_root, busy=busy)
        self._data[key] = found  # the last one is the latest used
        while len(self._data) > _KEPT:
            del self._data[next(iter(self._data))]
        return found
