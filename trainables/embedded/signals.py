"""Building blocks of sound synthesis: noise, wavetables, pitch contours, envelopes, resonances, rooms.

Everything is numpy at 16 kHz in float32 and a pure function of its arguments and of the generator it is handed.
Expensive things are avoided on purpose (a clip should cost a millisecond or two): harmonic sounds are read from
one-cycle wavetables instead of summing sines, filters and rooms are products in the frequency domain.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

RATE = 16_000
"""Sampling rate of everything synthesised here, in Hz."""

Signal = NDArray[np.floating]
"""Samples, gains or magnitudes; single precision is what is aimed for and what recordings end in."""

_TABLE = 1024


def log_uniform(rng: Generator, low: float, high: float) -> float:
    """One draw from [low, high], uniform in the logarithm."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def fast_length(n: int) -> int:
    """The smallest product of 2, 3 and 5 that is at least `n`: a length whose Fourier transform is quick."""
    best = 1 << (n - 1).bit_length()
    five = 1
    while five < best:
        three = five
        while three < best:
            length = three * (1 << max(0, (-(-n // three) - 1).bit_length()))
            if n <= length < best:
                best = length
            three *= 3
        five *= 5
    return best


def shaped_noise(rng: Generator, n: int, tilt: float = 0.0, low: float = 20.0, high: float = 8000.0) -> Signal:
    """Gaussian noise of `n` samples and unit power; `tilt` in dB per octave, soft band edges in Hz."""
    size = fast_length(n)
    bins = size // 2 + 1
    spectrum = rng.standard_normal((2, bins), dtype=np.float32)
    shape = band_response(size, low, high) * tilt_response(size, tilt)
    noise = np.fft.irfft((spectrum[0] + 1j * spectrum[1]) * shape, size)[:n].astype(np.float32)
    return unit_power(noise)


def frequencies(size: int) -> Signal:
    """Bin frequencies in Hz of a real Fourier transform of `size` samples at 16 kHz."""
    return np.linspace(0.0, RATE / 2, size // 2 + 1, dtype=np.float32)


def band_response(size: int, low: float, high: float) -> Signal:
    """Magnitude response of a band from `low` to `high` Hz with 24 dB/octave skirts; (size//2+1,)."""
    hz = np.maximum(frequencies(size), 1.0)
    return 1.0 / np.sqrt((1.0 + (low / hz) ** 8) * (1.0 + (hz / high) ** 8), dtype=np.float32)


def tilt_response(size: int, tilt: float) -> Signal:
    """Magnitude response of `tilt` dB per octave around 1 kHz; (size//2+1,)."""
    hz = np.maximum(frequencies(size), 20.0)
    return ((hz / 1000.0) ** (tilt / 6.0206)).astype(np.float32)


def resonance_response(size: int, centres: NDArray[np.floating], widths: NDArray[np.floating]) -> Signal:
    """Magnitude response of parallel resonances (centres, widths in Hz) over a floor of -26 dB."""
    hz = frequencies(size)[:, None]
    bumps = 1.0 / np.sqrt(1.0 + ((hz - centres) / (widths / 2.0)) ** 2)
    return (0.05 + bumps.sum(axis=1)).astype(np.float32)


def filtered(x: Signal, response: Signal, size: int) -> Signal:
    """`x` through a magnitude (or complex) response made for transforms of `size` samples."""
    return np.fft.irfft(np.fft.rfft(x, size) * response, size)[: len(x)].astype(np.float32)


def unit_power(x: Signal) -> Signal:
    """`x` scaled to a root mean square of 1 (silence stays silence)."""
    return x / np.float32(np.sqrt(np.mean(np.square(x), dtype=np.float64)) + 1e-9)


def unit_peak(x: Signal) -> Signal:
    """`x` scaled to a largest magnitude of 1 (silence stays silence)."""
    return x / np.float32(np.max(np.abs(x), initial=0.0) + 1e-9)


def contour(rng: Generator, n: int, points: int) -> Signal:
    """A smooth random curve of `n` samples through `points` standard normal values."""
    knots = rng.standard_normal(max(points, 2))
    return curve(knots, n)


def curve(knots: NDArray[np.floating], n: int) -> Signal:
    """Straight lines through equally spaced `knots`, as `n` samples."""
    return np.interp(np.linspace(0.0, 1.0, n), np.linspace(0.0, 1.0, len(knots)), knots).astype(np.float32)


def phase(frequency: Signal | float, n: int, start: float = 0.0) -> Signal:
    """Phase in cycles, in [0, 1), of an oscillator with the given (constant or per-sample) frequency in Hz."""
    if np.ndim(frequency) == 0:
        turns = start + np.arange(n, dtype=np.float64) * (float(frequency) / RATE)
    else:
        turns = start + np.cumsum(frequency, dtype=np.float64) / RATE
    return (turns - np.floor(turns)).astype(np.float32)


def sine(frequency: Signal | float, n: int, start: float = 0.0) -> Signal:
    """A sine of unit amplitude; `frequency` in Hz, constant or one value per sample."""
    return np.sin(np.float32(2 * np.pi) * phase(frequency, n, start))


def wavetable(amplitudes: NDArray[np.floating], phases: NDArray[np.floating] | None = None) -> Signal:
    """One cycle (1024 samples, unit power) with the given amplitudes of harmonics 1, 2, 3 …"""
    spectrum = np.zeros(_TABLE // 2 + 1, dtype=np.complex128)
    count = min(len(amplitudes), _TABLE // 2 - 1)
    turn = np.zeros(count) if phases is None else phases[:count]
    spectrum[1 : count + 1] = amplitudes[:count] * np.exp(2j * np.pi * turn)
    return unit_power(np.fft.irfft(spectrum, _TABLE).astype(np.float32))


def read_table(table: Signal, cycles: Signal) -> Signal:
    """Samples of a one-cycle `table` at phases `cycles` in [0, 1)."""
    return table[(cycles * _TABLE).astype(np.int32) & (_TABLE - 1)]


def harmonics(fundamental: float, tilt: float, odd_only: bool = False) -> NDArray[np.floating]:
    """Amplitudes of the harmonics of `fundamental` Hz below 7.5 kHz, falling by `tilt` dB per octave."""
    number = np.arange(1, max(2, int(7500 / fundamental) + 1))
    amplitudes = number ** (tilt / 6.0206)
    return amplitudes * (number % 2) if odd_only else amplitudes


def formant_gains(fundamental: float, centres: NDArray[np.floating], width: float) -> NDArray[np.floating]:
    """Gains at the harmonics of `fundamental` Hz of vocal-tract resonances `centres` (Hz) of a given width."""
    hz = fundamental * np.arange(1, max(2, int(7500 / fundamental) + 1))[:, None]
    level = np.array([1.0, 0.7, 0.4, 0.25, 0.2])[: len(centres)]
    return 0.02 + (level / (1.0 + ((hz - centres) / (width * (1 + centres / 4000))) ** 2)).sum(axis=1)


def decay(n: int, seconds: float, attack: float = 0.001) -> Signal:
    """An exponential decay by 60 dB in `seconds` after a linear attack of `attack` seconds, `n` samples."""
    t = np.arange(n, dtype=np.float32) / RATE
    return np.minimum(t / max(attack, 1e-4), 1.0) * np.exp(np.float32(-6.9078 / seconds) * t)


def bump(n: int, rise: float = 0.2, fall: float = 0.3) -> Signal:
    """A hill from 0 to 1 to 0 over `n` samples; `rise` and `fall` are the shares of its slopes."""
    t = np.linspace(0.0, 1.0, n, dtype=np.float32)
    slope = np.minimum(np.minimum(t / max(rise, 1e-3), (1.0 - t) / max(fall, 1e-3)), 1.0)
    return np.sin(np.float32(np.pi / 2) * slope) ** 2


def place(events: Sequence[tuple[int, Signal]], n: int) -> Signal:
    """The sum of (first sample, sound) events on `n` samples of silence; what sticks out is cut."""
    out = np.zeros(n, dtype=np.float32)
    for start, sound in events:
        if start < 0:
            sound, start = sound[-start:], 0
        stop = min(n, start + len(sound))
        if stop > start:
            out[start:stop] += sound[: stop - start]
    return out


def onsets(rng: Generator, n: int, per_second: float, jitter: float) -> list[int]:
    """First samples of a rhythm: `per_second` beats with a relative timing `jitter`; at least one onset."""
    period = RATE / per_second
    first = rng.uniform(0.0, min(period, 0.6 * n))
    beats = first + period * np.arange(max(1, int(np.ceil((n - first) / period))))
    beats = beats + rng.normal(0.0, jitter * period, len(beats))
    kept = sorted(int(b) for b in beats if 0 <= b < n - 200)
    return kept or [int(min(first, n // 2))]


def poisson_impulses(rng: Generator, n: int, per_second: float, spread: float = 1.0) -> Signal:
    """Impulses at random times with log-normal heights (standard deviation `spread`) and random sign."""
    count = max(1, int(rng.poisson(per_second * n / RATE)))
    out = np.zeros(n, dtype=np.float32)
    heights = np.exp(spread * rng.standard_normal(count)) * rng.choice([-1.0, 1.0], count)
    np.add.at(out, rng.integers(0, n, count), heights.astype(np.float32))
    return out


def room(rng: Generator, seconds: float, wet: float, brightness: float) -> Signal:
    """Impulse response of a synthetic room: a direct path and exponentially decaying noise (RT60 `seconds`)."""
    n = max(64, int(min(seconds, 1.2) * RATE))
    tail = rng.standard_normal(n, dtype=np.float32) * decay(n, seconds)
    tail[1:] = brightness * tail[1:] + (1 - brightness) * tail[:-1]
    tail = tail * np.float32(wet / (np.sqrt(np.sum(tail**2)) + 1e-9))
    tail = np.concatenate([np.zeros(int(rng.integers(20, 400)), dtype=np.float32), tail])
    tail[0] = 1.0
    return tail
