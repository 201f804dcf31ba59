"""The sounds of the embedded task: two events after each other, of three sorts, in every order.

The sorts are a note, a breath of noise and a rattle of clicks; the class of a clip is which one comes first and
which second. Pitch, colour, rate, level, timing, room and background are drawn the same way for every class. What
sounds is easy to hear for a network pretrained to name sources; in which order is not what it was asked, so a
linear probe on its frozen features gets part of the way and adapting the network pays.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.random import Generator

from trainables.embedded.signals import (
    RATE,
    Signal,
    bump,
    curve,
    decay,
    fast_length,
    filtered,
    harmonics,
    log_uniform,
    phase,
    place,
    read_table,
    resonance_response,
    room,
    shaped_noise,
    unit_peak,
    unit_power,
    wavetable,
)

SAMPLES = 20_720
"""Length of a clip: 128 feature frames, 1.295 s at 16 kHz."""


def _note(r: Generator, length: int) -> Signal:
    """A harmonic tone, steady or gliding, a little breathy."""
    hz = log_uniform(r, 200, 1000)
    sweep = np.float32(hz) * 2 ** (r.normal(0, 3) / 12 * curve(np.array([-1.0, 1.0]), length))
    tone = unit_power(read_table(wavetable(harmonics(hz * 1.5, r.uniform(-14, -4))), phase(sweep, length)))
    breath = unit_power(shaped_noise(r, length, -3, hz, hz * 6))
    return (tone + np.float32(r.uniform(0.0, 0.25)) * breath) * bump(length, 0.1, 0.25)


def _breath(r: Generator, length: int) -> Signal:
    """A breath of noise, from a broad hiss to a band of an octave and a half."""
    centre, octaves = log_uniform(r, 600, 3000), r.uniform(1.5, 3.0)
    noise = shaped_noise(r, length, r.uniform(-6, 0), centre * 2 ** (-octaves / 2), centre * 2 ** (octaves / 2))
    return unit_power(noise) * bump(length, r.uniform(0.05, 0.4), r.uniform(0.1, 0.4))


def _rattle(r: Generator, length: int) -> Signal:
    """A row of resonant clicks, slow enough to be heard as single ones."""
    rate = log_uniform(r, 12, 28)
    short = int(r.uniform(0.015, 0.05) * RATE)
    centres = np.exp(r.uniform(np.log(500), np.log(5000), 3))
    size = fast_length(2 * short)
    response = resonance_response(size, centres, centres * 0.15)
    events = []
    for number in range(max(2, int(rate * length / RATE))):
        burst = r.standard_normal(short, dtype=np.float32) * decay(short, 0.03, 0.0005)
        start = int((number + 0.1 * r.standard_normal()) * RATE / rate)
        events.append((start, filtered(burst, response, size)))
    return unit_power(place(events, length)) * bump(length, 0.1, 0.2)


_EVENTS: dict[str, Callable[[Generator, int], Signal]] = {"note": _note, "breath": _breath, "rattle": _rattle}


def _sequence(first: str, second: str, r: Generator) -> Signal:
    """Two events, the second from about the middle of the clip on, of somewhat different loudness."""
    split, gap = int(r.uniform(0.42, 0.58) * SAMPLES), int(r.uniform(-0.04, 0.06) * RATE)
    start, stop = int(r.uniform(0.0, 0.12) * RATE), SAMPLES - int(r.uniform(0.0, 0.12) * RATE)
    loud = 10 ** (r.uniform(-6, 6) / 20)
    one = _EVENTS[first](r, split - gap - start)
    two = _EVENTS[second](r, stop - split)
    return place([(start, one), (split, np.float32(loud) * two)], SAMPLES)


PATTERNS: dict[str, Callable[[Generator], Signal]] = {
    f"{first}_{second}": partial(_sequence, first, second) for first in _EVENTS for second in _EVENTS
}
"""Every class of the task: its name and what draws a clean clip of it."""


def clip(label: str, seed: tuple[int, ...]) -> Signal:
    """A clip of the class `label` in a room, over background noise; (20720,) float32 in [-1, 1]."""
    r = np.random.default_rng(seed)
    x = unit_power(PATTERNS[label](r))
    if r.random() < 0.3:
        size = fast_length(2 * SAMPLES)
        echo = room(r, log_uniform(r, 0.1, 0.5), r.uniform(0.1, 0.6), r.uniform(0.4, 1.0))
        x = unit_power(filtered(x, np.fft.rfft(echo, size).astype(np.complex64), size))
    noise = shaped_noise(r, SAMPLES, r.uniform(-8, 0), 40, log_uniform(r, 2500, 8000))
    x = x + np.float32(10 ** (-r.uniform(10, 36) / 20)) * noise
    return (unit_peak(x) * np.float32(10 ** (-r.uniform(1, 16) / 20))).astype(np.float32)
