"""Which augmentations a backbone can have. Those of waveforms work for all, but for a gain that is taken out again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from petl.errors import ConfigError

if TYPE_CHECKING:
    from petl.frontend import FrontEnd
    from trainables.config import AugOptions

_MASKS = (
    "With backbone_mode: train such backbones mask their own features (mask_time_prob and mask_feature_prob of their "
    "config.json)"
)
_OF_SPECTROGRAMS = {
    "freq_mask": ("mask", _MASKS),
    "time_mask": ("mask", _MASKS),
    "feature_noise": ("add noise to", "aug.noise adds noise to waveforms"),
}


def check(options: AugOptions, front_end: FrontEnd) -> None:
    """Raise `ConfigError` when something is to be done to a spectrogram where there is none, or nothing comes of it."""
    check_masks(options, spectrogram=front_end.spectrogram)
    if options.gain and not front_end.spectrogram and getattr(front_end, "normalize", False):
        raise ConfigError(
            f"aug.gain is {options.gain:g}, but the backbone reads waveforms that are each scaled to deviation 1 "
            "(do_normalize of its preprocessor_config.json), so that no gain is left of it; set it to 0",
            "aug.gain",
        )


def check_masks(options: AugOptions, *, spectrogram: bool) -> None:
    """`check` before there is a front end."""
    for name, (verb, instead) in _OF_SPECTROGRAMS.items():
        if getattr(options, name) and not spectrogram:
            raise ConfigError(
                f"aug.{name} is {getattr(options, name)}, but the backbone reads waveforms, which have no spectrogram "
                f"to {verb}; set it to 0. {instead}",
                f"aug.{name}",
            )
