"""Synthesised recordings: a source, shaped in time, in a room, through a microphone, over a background.

`synthesise(seed, n)` is a pure function of its arguments: the same seed gives the same samples on every machine
with the same numpy. A recording is drawn in two parts, a *recipe* (what sounds) and a *take* (this performance,
room, microphone and background), so that two takes of one recipe are two recordings of the same thing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from trainables.embedded.signals import (
    RATE,
    Signal,
    band_response,
    bump,
    curve,
    decay,
    fast_length,
    log_uniform,
    phase,
    room,
    shaped_noise,
    sine,
    tilt_response,
    unit_power,
)
from trainables.embedded.sources import SOURCES

KINDS: tuple[str, ...] = tuple(SOURCES)
"""Names of the kinds of source; a recording's `kind` is an index into this."""

ENVELOPES = ("steady", "dying", "swell", "tremolo", "gated", "late", "cut")
"""Names of the shapes in time laid over a source; a recording's `envelope` is an index into this."""

_EVENTFUL = frozenset(
    name
    for line in (
        "chirp ticks crackle pluck strike babble wail bark crow",
        "bird bubbles surf alarm puff thuds scrape boom",
    )
    for name in line.split()
)
"""Kinds that are events in time already, and mostly keep their own shape."""


@dataclass(frozen=True)
class Recording:
    """A synthesised recording and the truth about it.

    `signal` is mono float32 at 16 kHz within [-1, 1]; `kind` and `envelope` index `KINDS` and `ENVELOPES`;
    `pitch` and `rhythm` are in Hz, 0 where there is none; `reverberation` is the RT60 in seconds (0 = dry);
    `snr` is the level of the source over its background in dB (60 = no background).
    """

    signal: Signal
    kind: int
    envelope: int
    pitch: float
    rhythm: float
    reverberation: float
    snr: float


def synthesise(seed: int | tuple[int, ...], n: int, kind: str | None = None, take: int = 0) -> Recording:
    """One recording of `n` samples at 16 kHz.

    `seed` fixes the recipe, `take` numbers the performances of it. `kind` names the source (one of `KINDS`);
    without it the recipe draws one. Raises KeyError for an unknown kind.
    """
    key = (seed,) if isinstance(seed, int) else tuple(seed)
    recipe = np.random.default_rng((*key, 0))
    performance = np.random.default_rng((*key, 1, take))
    number = int(recipe.integers(len(KINDS)))
    if kind is not None:
        if kind not in SOURCES:
            raise KeyError(f"unknown kind of source {kind!r}; there are {', '.join(KINDS)}")
        number = KINDS.index(kind)
    name = KINDS[number]
    sound = SOURCES[name](recipe, performance, n)
    shaped = recipe.random() < (0.2 if name in _EVENTFUL else 0.65)
    envelope = int(recipe.integers(1, len(ENVELOPES))) if shaped else 0
    shape, tremolo = _envelope(ENVELOPES[envelope], recipe, performance, n)
    dry = unit_power(sound.signal)
    if _power(dry * shape) > 0.02:
        dry = dry * shape
    else:  # the shape would leave nothing of a source that sounds elsewhere
        envelope, tremolo = 0, 0.0
    signal, reverberation = _recorded(dry, performance)
    signal, snr = _with_background(unit_power(signal), performance)
    signal = _levelled(signal, performance)
    return Recording(signal, number, envelope, sound.pitch, tremolo or sound.rhythm, reverberation, snr)


def _power(x: Signal) -> float:
    """Mean square of `x`."""
    return float(np.mean(np.square(x)))


def _envelope(name: str, p: Generator, r: Generator, n: int) -> tuple[Signal, float]:
    """A gain per sample, and the rate in Hz where the shape repeats (else 0)."""
    if name == "dying":
        return decay(n, p.uniform(0.4, 1.5) * n / RATE, p.uniform(0.002, 0.1)), 0.0
    if name == "swell":
        return bump(n, p.uniform(0.4, 0.9), p.uniform(0.02, 0.3)), 0.0
    if name == "tremolo":
        rate = log_uniform(p, 1.5, 25)
        return 1 - np.float32(p.uniform(0.3, 1)) * (0.5 + 0.5 * sine(rate, n, r.random())), rate
    if name == "gated":
        rate = log_uniform(p, 1.0, 12)
        soft = np.clip((np.float32(p.uniform(0.25, 0.75)) - phase(rate, n, r.random())) * 40, 0, 1)
        return soft.astype(np.float32), rate
    ramp = np.clip((np.arange(n, dtype=np.float32) / n - np.float32(r.uniform(0.2, 0.7))) * 60, 0, 1)
    if name == "late":
        return ramp, 0.0
    if name == "cut":
        return 1 - ramp, 0.0
    return np.ones(n, dtype=np.float32), 0.0


def _recorded(x: Signal, r: Generator) -> tuple[Signal, float]:
    """`x` in a room (or none) and through a microphone with its own band and colour; also the RT60."""
    n = len(x)
    seconds = log_uniform(r, 0.08, 1.8) if r.random() < 0.45 else 0.0
    size = fast_length(n + (int(min(seconds, 1.2) * RATE) + 400 if seconds else 0))
    response = tilt_response(size, float(r.normal(0, 1.5)))
    if r.random() < 0.5:
        response = response * band_response(size, log_uniform(r, 20, 250), log_uniform(r, 3000, 9000))
    spectrum = np.fft.rfft(x, size) * response
    if seconds:
        spectrum = spectrum * np.fft.rfft(room(r, seconds, r.uniform(0.1, 1.2), r.uniform(0.3, 1.0)), size)
    return np.fft.irfft(spectrum, size)[:n].astype(np.float32), seconds


def _with_background(x: Signal, r: Generator) -> tuple[Signal, float]:
    """`x` (unit power) over coloured noise at a drawn signal-to-noise ratio; also that ratio in dB."""
    if r.random() < 0.35:
        return x, 60.0
    snr = float(r.uniform(-3, 45))
    noise = shaped_noise(r, len(x), r.uniform(-9, 3), log_uniform(r, 20, 200), log_uniform(r, 2000, 8000))
    if r.random() < 0.3:
        noise = noise * np.exp(curve(0.5 * r.standard_normal(4), len(x)))
    return x + np.float32(10 ** (-snr / 20)) * noise, snr


def _levelled(x: Signal, r: Generator) -> Signal:
    """`x` at a drawn peak level, now and then clipped, or with digital silence before or after it."""
    peak = np.float32(np.max(np.abs(x)) + 1e-9)
    x = x * (np.float32(10 ** (-r.exponential(8.0) / 20)) / peak)
    if r.random() < 0.04:
        x = np.clip(x * np.float32(r.uniform(1.5, 6)), -1, 1)
    chance = r.random()
    long = len(x) > 3 * RATE  # collections pad short events to their full length with digital silence
    if chance < (0.3 if long else 0.12):
        trimmed = x.copy()
        trimmed[int(r.uniform(0.08 if long else 0.35, 0.9) * len(x)) :] = 0
        if chance < 0.02:
            trimmed[: int(0.1 * len(x))] = 0
        x = trimmed if _power(trimmed) > 0.1 * _power(x) else x
    return np.clip(x, -1, 1).astype(np.float32)
