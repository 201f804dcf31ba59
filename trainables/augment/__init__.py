"""Augmentation of training batches: of waveforms, then of what the front end makes of them (torch-free to import).

    waves = augmented_waveforms(waves_BS, lengths_B, options, front_end, generator, partners)
    x = front_end.collate_waveforms(waves.waves_BS, waves.lengths_B)
    x = augmented(x, options, front_end, generator)

Without anything to be done to waveforms (`AugOptions.of_waveform`) the last line is all, on features from the cache.
Everything random is drawn on the CPU from the generator given, so it is the same on every device; how much is drawn
depends on the options and on the sizes of the batch, never on what the clips sound like.
"""

from __future__ import annotations

from trainables.augment.checks import check, check_masks
from trainables.augment.features import augmented, noisy_features, rolled, spec_augment
from trainables.augment.waveforms import (
    Waveforms,
    augmented_waveforms,
    mixed,
    samples_needed,
    with_gain,
    with_noise,
    with_speed,
)

__all__ = [
    "Waveforms",
    "augmented",
    "augmented_waveforms",
    "check",
    "check_masks",
    "mixed",
    "noisy_features",
    "rolled",
    "samples_needed",
    "spec_augment",
    "with_gain",
    "with_noise",
    "with_speed",
]
