"""What cannot be done with a task, whatever the backbone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from petl.errors import ConfigError
from trainables.config import TrialConfig

if TYPE_CHECKING:
    from trainables.data import AudioData


def check(config: TrialConfig, data: AudioData) -> None:
    """Raise `ConfigError` naming the key for options that mean nothing on these data."""
    classes = any(clip.classes for clip in data.plan.clips)
    check_task(config, data.task(config.train).mixes, classes, data.output.sequence)


def check_task(config: TrialConfig, mixes: bool, classes: bool, sequence: bool) -> None:
    """`check` with what it needs to know: whether clips can be mixed, have classes, are answered with a sequence."""
    if config.aug.mixup and not mixes:
        raise ConfigError(
            f"aug.mixup is {config.aug.mixup:g}, but two transcripts cannot be mixed; leave it out for this task",
            "aug.mixup",
        )
    if config.aug.roll and sequence:
        raise ConfigError(
            f"aug.roll is {config.aug.roll}, but a clip that is shifted round its end does not say its transcript from "
            "beginning to end; leave it out for this task",
            "aug.roll",
        )
    if config.train.balanced and not classes:
        raise ConfigError(
            "train.balanced draws every class as often as the others, and these clips have no classes; leave it out",
            "train.balanced",
        )
    if config.data.shots is not None and not classes:
        raise ConfigError(
            "data.shots counts clips per class, and these clips have no classes; leave it out", "data.shots"
        )
