"""A store of synthesised recordings for pretraining, and the examples drawn from it.

Synthesis costs more than a training step can wait for, so recordings are kept, used several times and replaced
little by little. Every use is a new example: recordings are mixed as mel power (the power of a sum of unrelated
sounds is close to the sum of their powers), shifted in level and masked. Each recipe is stored as two takes, and
one example of either take makes a pair for the contrastive objective.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainables.embedded.mel import log_mel, samples
from trainables.embedded.synthesis import KINDS, Recording, synthesise

PITCH_BINS, RHYTHM_BINS, ROOM_BINS = 25, 12, 4
"""Numbers of classes of pitch (0 = none), rhythm (0 = none) and reverberation (0 = dry)."""

_LABELS = ("kind", "envelope", "pitch", "rhythm", "room")


@dataclass
class Batch:
    """Training examples: example i and example i + B/2 are two recordings of the same thing.

    `features_BTM` log-mel, not normalised · `kinds_BK` 1 where a kind is clearly audible · `labels` by name:
    classes (B,) of the loudest source · `snr_B` its level over everything else, in decibels / 30, at most 1.
    """

    features_BTM: Tensor
    kinds_BK: Tensor
    labels: dict[str, Tensor]
    snr_B: Tensor


class Pool:
    """At most `capacity` recipes of `frame_count` feature frames, two takes each; all draws follow `seed`."""

    def __init__(self, frame_count: int, capacity: int, seed: int):
        self.frame_count = frame_count
        self._features = torch.zeros((capacity, 2, frame_count, 128), dtype=torch.float16)
        self._labels = {name: torch.zeros((capacity, 2), dtype=torch.long) for name in _LABELS}
        self._snr = torch.zeros((capacity, 2))
        self._seed = (seed, frame_count)
        self._made = 0
        self._rng = np.random.default_rng((seed, frame_count, 7))

    def __len__(self) -> int:
        """Recipes held."""
        return min(self._made, len(self._features))

    def add(self, recipes: int) -> None:
        """Synthesise `recipes` new ones; they take the places of the oldest when the pool is full."""
        length = samples(self.frame_count)
        made: list[Recording] = []
        for number in range(self._made, self._made + recipes):
            made += [synthesise((*self._seed, number), length, take=take) for take in (0, 1)]
        waves = torch.from_numpy(np.stack([recording.signal for recording in made]))
        features = log_mel(waves).half().unflatten(0, (recipes, 2))
        slots = torch.arange(self._made, self._made + recipes) % len(self._features)
        self._features[slots] = features
        for name, values in _classes(made).items():
            self._labels[name][slots] = values.unflatten(0, (recipes, 2))
        self._snr[slots] = torch.tensor([recording.snr for recording in made]).unflatten(0, (recipes, 2))
        self._made += recipes

    def statistics(self) -> tuple[float, float]:
        """Mean and standard deviation of the features held."""
        held = self._features[: len(self)].float()
        return float(held.mean()), float(held.std())

    def draw(self, pairs: int) -> Batch:
        """`pairs` pairs of examples: mixtures, level shifts, masks."""
        rng = self._rng
        own = torch.from_numpy(rng.choice(len(self), pairs, replace=False)).repeat(2)
        take = torch.arange(2).repeat_interleave(pairs)
        features = self._features[own, take].float()
        snr = self._snr[own, take]
        count = 2 * pairs
        # A second source on 60 % of the examples, most of the time quieter than the first.
        other = torch.from_numpy(rng.integers(0, len(self), count))
        other_take = torch.from_numpy(rng.integers(0, 2, count))
        below = torch.from_numpy(rng.uniform(-2.0, 30.0, count)).float()
        mixed = torch.from_numpy(rng.random(count) < 0.6) & (other != own)
        second = self._features[other, other_take].float()
        level = _loudness(features) - below * (np.log(10) / 10) - _loudness(second)
        both = torch.logaddexp(features, second + level[:, None, None])
        features = torch.where(mixed[:, None, None], both, features)
        snr = torch.where(mixed, torch.minimum(snr, below), snr)
        kinds = torch.zeros(count, len(KINDS))
        kinds[torch.arange(count), self._labels["kind"][own, take]] = 1.0
        heard = (mixed & (below < 12.0)).nonzero()[:, 0]
        kinds[heard, self._labels["kind"][other, other_take][heard]] = 1.0
        # Level shift in the log domain; the floor of digital silence stays where it is.
        shift = torch.from_numpy(rng.uniform(-5.0, 2.0, count)).float()
        features = (features + shift[:, None, None]).clamp_min(float(np.log(np.finfo(np.float32).eps)))
        return Batch(
            features,
            kinds,
            {name: values[own, take] for name, values in self._labels.items()},
            (snr / 30.0).clamp(-1.0, 1.0),
        )


def _loudness(features_BTM: Tensor) -> Tensor:
    """Log of the mean mel power of each example, (B,)."""
    return features_BTM.flatten(1).logsumexp(dim=1) - np.log(features_BTM[0].numel())


def _classes(recordings: list[Recording]) -> dict[str, Tensor]:
    """Class labels of recordings by name, each (N,)."""
    pitch = np.array([recording.pitch for recording in recordings])
    rhythm = np.array([recording.rhythm for recording in recordings])
    seconds = np.array([recording.reverberation for recording in recordings])
    # Four pitch classes an octave would be finer than a mel band can tell at the low end: three from 30 Hz up.
    pitch_class = 1 + np.clip(3 * np.log2(np.maximum(pitch, 30) / 30), 0, PITCH_BINS - 2).astype(int)
    rhythm_class = 1 + np.clip(1.5 * np.log2(np.maximum(rhythm, 0.5) / 0.5), 0, RHYTHM_BINS - 2).astype(int)
    return {
        "kind": torch.tensor([recording.kind for recording in recordings]),
        "envelope": torch.tensor([recording.envelope for recording in recordings]),
        "pitch": torch.from_numpy(np.where(pitch > 0, pitch_class, 0)),
        "rhythm": torch.from_numpy(np.where(rhythm > 0, rhythm_class, 0)),
        "room": torch.from_numpy(np.where(seconds > 0, 1 + (seconds > 0.25) + (seconds > 0.7), 0)),
    }
