"""Kinds of sound source. Each is `source(recipe, take, n)`: what it is, one performance of it, how many samples.

`recipe` is the generator that decides what the source is (its pitch, colour, rate, size), `take` the one that
decides this particular performance (noise, jitter, starting phase). Two takes of one recipe are two recordings of
the same thing. The result is a `Sound`: a signal, and its fundamental and rhythm in Hz (0 where it has none).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from trainables.embedded.signals import (
    RATE,
    Signal,
    bump,
    contour,
    curve,
    decay,
    fast_length,
    filtered,
    formant_gains,
    harmonics,
    log_uniform,
    onsets,
    phase,
    place,
    poisson_impulses,
    read_table,
    resonance_response,
    shaped_noise,
    sine,
    unit_peak,
    unit_power,
    wavetable,
)


class Sound(NamedTuple):
    """A synthesised source: samples at 16 kHz, fundamental (Hz, 0 = none), rhythm (events per second, 0 = none)."""

    signal: Signal
    pitch: float = 0.0
    rhythm: float = 0.0


Source = Callable[[Generator, Generator, int], Sound]


def _samples(seconds: float) -> int:
    return max(64, int(seconds * RATE))


def _tone(p: Generator, r: Generator, n: int) -> Sound:
    hz = log_uniform(p, 80, 4000)
    drift = p.choice([0.0, 0.003, 0.01])
    return Sound(sine(hz * (1 + drift * contour(r, n, 6)), n, r.random()), hz)


def _organ(p: Generator, r: Generator, n: int) -> Sound:
    hz = log_uniform(p, 50, 1200)
    table = wavetable(harmonics(hz, p.uniform(-14, -1), p.random() < 0.4), p.random(600))
    vibrato = p.uniform(0, 0.012) * sine(p.uniform(4, 7), n, r.random())
    return Sound(read_table(table, phase(hz * (1 + vibrato), n, r.random())), hz)


def _fm_tone(p: Generator, r: Generator, n: int) -> Sound:
    hz, ratio, index = log_uniform(p, 100, 1500), p.choice([0.5, 1.0, 1.41, 2.0, 3.3]), p.uniform(0.5, 6)
    bend = np.float32(index) * (1 + 0.4 * contour(r, n, 4))
    return Sound(np.sin(2 * np.pi * phase(hz, n) + bend * sine(hz * ratio, n, r.random())).astype(np.float32), hz)


def _chirp(p: Generator, r: Generator, n: int) -> Sound:
    low, high = log_uniform(p, 100, 1200), log_uniform(p, 1200, 7000)
    ends = [low, high] if p.random() < 0.5 else [high, low]
    rate = log_uniform(p, 0.4, 4)
    length = _samples(1 / rate)
    sweep = np.exp(curve(np.log(ends), length)).astype(np.float32)
    event = sine(sweep, length) * bump(length, 0.1, 0.1)
    times = onsets(r, n, rate * p.uniform(0.6, 1.0), 0.02)
    return Sound(place([(t, event) for t in times], n), float(np.sqrt(low * high)), rate)


def _hiss(p: Generator, r: Generator, n: int) -> Sound:
    return Sound(shaped_noise(r, n, p.uniform(-9, 6), log_uniform(p, 20, 300), log_uniform(p, 2500, 8000)))


def _band_noise(p: Generator, r: Generator, n: int) -> Sound:
    centre, octaves = log_uniform(p, 200, 5000), p.uniform(0.1, 1.2)
    return Sound(shaped_noise(r, n, 0.0, centre * 2 ** (-octaves / 2), centre * 2 ** (octaves / 2)), centre)


def _click_event(p: Generator, r: Generator) -> Signal:
    """A short resonant click: a noise burst of a few milliseconds through a few resonances of the recipe."""
    length = _samples(p.uniform(0.02, 0.09))
    centres = np.exp(p.uniform(np.log(500), np.log(7000), int(p.integers(1, 5))))
    burst = r.standard_normal(length, dtype=np.float32) * decay(length, p.uniform(0.004, 0.03), 0.0002)
    size = fast_length(2 * length)
    return unit_peak(filtered(burst, resonance_response(size, centres, centres * p.uniform(0.03, 0.4)), size))


def _ticks(p: Generator, r: Generator, n: int) -> Sound:
    rate = log_uniform(p, 0.9, 9)
    state = p.bit_generator.state
    other = p.uniform(0.3, 1.0)
    events = []
    for index, start in enumerate(onsets(r, n, rate, p.choice([0.002, 0.01]))):
        p.bit_generator.state = state  # every tick is the same object: its recipe starts anew
        events.append((start, _click_event(p, r) * (1.0 if index % 2 else other)))
    return Sound(place(events, n), 0.0, rate)


def _crackle(p: Generator, r: Generator, n: int) -> Sound:
    size = fast_length(n + 800)
    sparse = poisson_impulses(r, n, log_uniform(p, 5, 90), p.uniform(0.6, 1.6))
    kernel = np.zeros(size, dtype=np.float32)
    length = _samples(p.uniform(0.004, 0.04))
    kernel[:length] = p.standard_normal(length) * decay(length, p.uniform(0.003, 0.03), 0.0002)
    snaps = filtered(sparse, np.fft.rfft(kernel).astype(np.complex64), size)
    bed = shaped_noise(r, n, p.uniform(-9, -3)) * np.float32(p.uniform(0.0, 0.12) * np.max(np.abs(snaps)))
    return Sound(snaps + bed)


def _partials(hz: float, ratios: np.ndarray, levels: np.ndarray, seconds: np.ndarray, n: int, r: Generator) -> Signal:
    """A sum of decaying sines: frequencies hz*ratios, amplitudes, times to fall by 60 dB."""
    keep = hz * ratios < 7600
    t = np.arange(n, dtype=np.float32)[None] / RATE
    turns = (2 * np.pi * hz * ratios[keep]).astype(np.float32)[:, None]
    fade = (-6.9078 / seconds[keep]).astype(np.float32)[:, None]
    wave = np.exp(fade * t) * np.sin(turns * t + r.uniform(0, 6.28, keep.sum()).astype(np.float32)[:, None])
    return (levels[keep].astype(np.float32)[:, None] * wave).sum(axis=0)


def _pluck(p: Generator, r: Generator, n: int) -> Sound:
    hz, rate = log_uniform(p, 70, 900), log_uniform(p, 0.8, 6)
    number = np.arange(1, 13)
    spot, ring = p.uniform(0.1, 0.5), log_uniform(p, 0.15, 1.5)
    levels = np.abs(np.sin(np.pi * number * spot)) / number
    steps = p.choice([0, 0, 2, 4, 5, 7, 12], 4)
    events = []
    for index, start in enumerate(onsets(r, n, rate, 0.02)):
        note = hz * 2 ** (steps[index % 4] / 12)
        length = min(_samples(ring), n - start, _samples(1.0))
        ratios = number * np.sqrt(1 + 3e-4 * number**2)
        events.append((start, _partials(note, ratios, levels, ring / number**0.7, length, r) * r.uniform(0.6, 1)))
    return Sound(place(events, n), hz, rate)


def _strike(p: Generator, r: Generator, n: int) -> Sound:
    """Struck objects: bells, glass, wood, metal, by their inharmonic partials and how long these ring."""
    hz, rate = log_uniform(p, 150, 2500), log_uniform(p, 0.7, 5)
    count = int(p.integers(3, 9))
    ratios = np.concatenate([[1.0], np.sort(p.uniform(1.2, 8.0, count - 1))])
    levels, ring = np.exp(-p.exponential(1.0, count)), log_uniform(p, 0.05, 1.5)
    seconds = ring / ratios ** p.uniform(0.2, 1.0)
    events = [
        (start, _partials(hz, ratios, levels, seconds, min(_samples(ring), n - start, _samples(1.0)), r) * gain)
        for start, gain in ((s, r.uniform(0.5, 1)) for s in onsets(r, n, rate, p.choice([0.01, 0.15])))
    ]
    return Sound(place(events, n), hz, rate)


def _glide(r: Generator, n: int, hz: float, knots: np.ndarray, flutter: float, rough: float) -> Signal:
    """Pitch of a voice: semitone `knots` around `hz`, vibrato of depth `flutter`, jitter of depth `rough`."""
    semitones = curve(knots, n)
    wobble = flutter * sine(r.uniform(4.5, 7), n, r.random()) + rough * contour(r, n, max(2, n // 160))
    return np.float32(hz) * 2 ** (semitones / 12) * (1 + wobble)


def _voiced(
    r: Generator, glide: Signal, hz: float, formants: np.ndarray, tilt: float, breath: float, width: float = 90
) -> Signal:
    """A glottal source with contour `glide` (Hz per sample) through formants, with `breath` noise."""
    number = np.arange(1, max(2, int(7500 / hz) + 1))
    table = wavetable(number ** (tilt / 6.0206) * formant_gains(hz, formants, width))
    voice = read_table(table, phase(glide, len(glide), r.random()))
    if breath > 0:
        size = fast_length(len(glide))
        air = filtered(
            r.standard_normal(len(glide), dtype=np.float32),
            resonance_response(size, formants, formants * 0.0 + 2 * width),
            size,
        )
        voice = voice + np.float32(breath) * unit_power(air)
    return voice


def _formants(p: Generator, scale: float) -> np.ndarray:
    first = p.uniform(280, 850)
    return np.array([first, first + p.uniform(300, 1700), p.uniform(2200, 3100), 3500, 4500]) * scale


def _vowel(p: Generator, r: Generator, n: int) -> Sound:
    hz = log_uniform(p, 80, 420)
    glide = _glide(r, n, hz, p.normal(0, 2, 4), p.uniform(0, 0.015), p.uniform(0, 0.01))
    tract = _formants(p, 1 + 0.25 * (hz > 180))
    return Sound(_voiced(r, glide, hz, tract, p.uniform(-10, -4), p.uniform(0, 0.3)), hz)


def _babble(p: Generator, r: Generator, n: int) -> Sound:
    """Speech-like: syllables of changing vowels and fricatives at two to six a second."""
    hz, rate = log_uniform(p, 80, 320), p.uniform(2.2, 6)
    scale = 1 + 0.25 * (hz > 160)
    events = []
    for start in onsets(r, n, rate, 0.12):
        if r.random() < 0.15:
            continue
        length = _samples(r.uniform(0.6, 1.1) / rate)
        knots = r.normal(0, 2.0, 3)
        syllable = _voiced(r, _glide(r, length, hz, knots, 0, 0.01), hz, _formants(r, scale), -8, 0.1)
        events.append((start, syllable * bump(length, 0.15, 0.4) * np.float32(r.uniform(0.5, 1))))
        if r.random() < 0.5:
            short = _samples(r.uniform(0.04, 0.12))
            air = shaped_noise(r, short, 0, r.uniform(1500, 4000), 8000) * bump(short)
            events.append((start - short, 0.4 * air))
    return Sound(place(events, n), hz, rate)


def _wail(p: Generator, r: Generator, n: int) -> Sound:
    """Long voiced cries with a rising and falling contour and breaths in between."""
    hz, rate = log_uniform(p, 280, 650), p.uniform(0.6, 1.8)
    height, tract = p.uniform(2, 8), _formants(p, p.uniform(1.2, 1.7))
    rough, tilt, flutter = p.uniform(0, 0.03), p.uniform(-6, 0), p.uniform(0, 0.03)
    events = []
    for start in onsets(r, n, rate, 0.06):
        length = _samples(r.uniform(0.55, 0.95) / rate)
        knots = height * np.array([-0.6, 0.5, 0.6, 0.3, -1.0]) + r.normal(0, 0.8, 5)
        cry = _voiced(r, _glide(r, length, hz, knots, flutter, rough), hz, tract, tilt, 0.1, 160)
        events.append((start, cry * bump(length, 0.15, 0.3)))
    return Sound(place(events, n), hz, rate)


def _bark(p: Generator, r: Generator, n: int) -> Sound:
    """Short rough voiced bursts that fall in pitch, single or in groups."""
    hz, rate = log_uniform(p, 120, 900), log_uniform(p, 0.7, 4)
    tract, rough, breath = _formants(p, p.uniform(0.8, 1.5)), p.uniform(0.01, 0.08), p.uniform(0.2, 1.0)
    seconds, drop = p.uniform(0.06, 0.3), p.uniform(2, 10)
    events = []
    for start in onsets(r, n, rate, 0.15):
        if r.random() < 0.2:
            continue
        length = _samples(seconds * r.uniform(0.8, 1.2))
        knots = drop * np.array([-0.4, 0.5, 0.2, -0.6]) + r.normal(0, 0.5, 4)
        burst = _voiced(r, _glide(r, length, hz, knots, 0, rough), hz, tract, -4, breath, 200)
        events.append((start, burst * bump(length, 0.08, 0.6) * np.float32(r.uniform(0.6, 1))))
    return Sound(place(events, n), hz, rate)


def _crow(p: Generator, r: Generator, n: int) -> Sound:
    """A call of several linked notes, the last one long: bright, strongly harmonic, leaping in pitch."""
    hz, notes = log_uniform(p, 350, 1100), int(p.integers(2, 6))
    leaps, tract = p.normal(0, 4, notes), _formants(p, p.uniform(1.3, 2.0))
    spans = np.append(p.uniform(0.08, 0.25, notes - 1), p.uniform(0.3, 0.9))
    rough, tilt = p.uniform(0, 0.02), p.uniform(-4, 2)
    events, start = [], int(r.uniform(0, 0.2) * RATE)
    while start < n - 400:
        for leap, span in zip(leaps, spans, strict=True):
            length = _samples(span * r.uniform(0.9, 1.1))
            knots = leap + np.array([-1.5, 0.5, 0.5, -2.0])
            note = _voiced(r, _glide(r, length, hz, knots, 0.01, rough), hz, tract, tilt, 0.1, 180)
            events.append((start, note * bump(length, 0.1, 0.25)))
            start += int(length * 1.05)
        start += int(r.uniform(0.3, 1.2) * RATE)
    return Sound(place(events, n), hz)


def _bird(p: Generator, r: Generator, n: int) -> Sound:
    hz, rate = log_uniform(p, 1500, 5500), log_uniform(p, 2, 14)
    shape, span = p.normal(0, 1, 4) * p.uniform(1, 8), p.uniform(0.3, 0.9)
    group = p.uniform(0.3, 1.0)
    events = []
    for start in onsets(r, n, rate, 0.05):
        if (start / RATE * rate / 6) % 1 > group:
            continue
        length = _samples(span / rate)
        sweep = np.minimum(np.float32(hz) * 2 ** (curve(shape, length) / 12 * r.uniform(0.8, 1.2)), 7800)
        events.append((start, sine(sweep, length) * bump(length, 0.2, 0.4) * np.float32(r.uniform(0.5, 1))))
    return Sound(place(events, n), hz, rate)


def _bubbles(p: Generator, r: Generator, n: int) -> Sound:
    """Drops and bubbles: short decaying sines that rise in pitch."""
    hz, rate, spread = log_uniform(p, 300, 2500), log_uniform(p, 2, 30), p.uniform(0.05, 0.7)
    seconds, rise = p.uniform(0.02, 0.12), p.uniform(0.1, 1.0)
    length = _samples(seconds * 1.5)
    events = []
    for _ in range(max(1, int(r.poisson(rate * n / RATE)))):
        base = min(hz * np.exp(spread * r.standard_normal()), 4500)
        sweep = np.float32(base) * (1 + np.float32(rise) * np.linspace(0, 1, length, dtype=np.float32))
        drop = sine(sweep, length) * decay(length, seconds) * np.float32(r.uniform(0.2, 1))
        events.append((int(r.integers(0, n - 100)), drop))
    return Sound(place(events, n), hz, rate)


def _rain(p: Generator, r: Generator, n: int) -> Sound:
    size = fast_length(n)
    drops = poisson_impulses(r, n, log_uniform(p, 150, 4000), p.uniform(0.5, 1.3))
    centre = log_uniform(p, 1200, 6000)
    hits = filtered(drops, resonance_response(size, np.array([centre]), np.array([centre * 1.2])), size)
    bed = shaped_noise(r, n, p.uniform(-4, 4), log_uniform(p, 150, 1500), 8000)
    return Sound(unit_power(hits) + np.float32(p.uniform(0.1, 1.5)) * bed)


def _wind(p: Generator, r: Generator, n: int) -> Sound:
    """Slowly swelling low noise with a whistling resonance that wanders."""
    low = shaped_noise(r, n, p.uniform(-12, -6), 30, log_uniform(p, 300, 2000))
    gust = np.exp(p.uniform(0.3, 1.0) * contour(r, n, 2 + int(n / RATE * 1.5)))
    centre = log_uniform(p, 300, 1500)
    air = shaped_noise(r, n, 0, 20, p.uniform(20, 80))
    whistle = sine(centre * 2 ** (0.5 * contour(r, n, 2 + n // RATE)), n) * air
    return Sound((low + np.float32(p.uniform(0, 0.4)) * whistle) * gust)


def _surf(p: Generator, r: Generator, n: int) -> Sound:
    """Waves: noise that swells, brightens and recedes every few seconds."""
    period = p.uniform(1.5, 7)
    t = np.arange(n, dtype=np.float32) / RATE / period + r.random()
    swell = (0.5 - 0.5 * np.cos(2 * np.pi * (t % 1) ** p.uniform(0.6, 1.4))).astype(np.float32)
    dark = shaped_noise(r, n, p.uniform(-8, -4), 40, log_uniform(p, 600, 2500))
    bright = shaped_noise(r, n, p.uniform(-3, 1), 400, 8000)
    return Sound(dark * (0.3 + 0.7 * swell) + np.float32(p.uniform(0.2, 0.9)) * bright * swell**2, 0.0, 1 / period)


def _engine(p: Generator, r: Generator, n: int) -> Sound:
    """A combustion engine: a pulse train with uneven cylinders and wandering speed through a muffler."""
    hz, cylinders = log_uniform(p, 18, 130), int(p.integers(1, 5))
    speed = hz * (1 + p.uniform(0.0, 0.15) * contour(r, n, 2 + 2 * n // RATE) + 0.01 * contour(r, n, n // 400))
    amplitudes = harmonics(hz / cylinders, p.uniform(-6, -2))
    amplitudes = amplitudes * np.exp(0.4 * p.standard_normal(len(amplitudes)))
    pulses = read_table(wavetable(amplitudes), phase(speed / cylinders, n, r.random()))
    size = fast_length(n)
    centres = np.exp(p.uniform(np.log(80), np.log(3000), 4))
    body = filtered(pulses, resonance_response(size, centres, centres * 0.5), size)
    noise = shaped_noise(r, n, -4) * (0.4 + np.abs(pulses))
    return Sound(unit_power(body) + np.float32(p.uniform(0.05, 0.5)) * unit_power(noise), hz)


def _rotor(p: Generator, r: Generator, n: int) -> Sound:
    """Blades: noise and low thuds chopped ten to thirty times a second."""
    rate, sharp = log_uniform(p, 7, 32), p.uniform(1, 8)
    turn = phase(rate * (1 + 0.02 * contour(r, n, 4)), n, r.random())
    chop = np.exp(np.float32(sharp) * (np.cos(2 * np.pi * turn) - 1))
    wash = shaped_noise(r, n, p.uniform(-9, -3), 40, log_uniform(p, 1500, 8000))
    thud = read_table(wavetable(harmonics(rate, -3)[: int(p.integers(6, 25))]), turn)
    floor = np.float32(p.uniform(0.05, 0.5))
    return Sound(wash * (floor + chop) + np.float32(p.uniform(0, 1.5)) * thud, 0.0, rate)


def _saw(p: Generator, r: Generator, n: int) -> Sound:
    """A motor tool: bright harmonics whose speed races and sags under load, over noise."""
    hz = log_uniform(p, 70, 350)
    load = curve(p.normal(0, 1, 2 + int(1.5 * n / RATE)), n)
    speed = hz * 2 ** (p.uniform(0, 0.35) * load + 0.02 * contour(r, n, n // 300))
    amplitudes = harmonics(hz, p.uniform(-3, 1.5))
    amplitudes = amplitudes * np.exp(0.6 * p.standard_normal(len(amplitudes)))
    buzz = read_table(wavetable(amplitudes, p.random(len(amplitudes))), phase(speed, n, r.random()))
    grit = shaped_noise(r, n, p.uniform(-3, 2), 300, 8000) * (1 + 0.5 * buzz)
    return Sound(buzz + np.float32(p.uniform(0.1, 0.8)) * grit, hz)


def _alarm(p: Generator, r: Generator, n: int) -> Sound:
    """Beeps, two-tone alarms and sirens."""
    hz, rate, interval = log_uniform(p, 400, 3000), log_uniform(p, 0.7, 8), p.uniform(0, 9)
    turn = phase(rate, n, r.random())
    style = int(p.integers(3))
    if style == 0:
        steps, gate = np.zeros(n, dtype=np.float32), (turn < p.uniform(0.3, 0.7)).astype(np.float32)
    elif style == 1:
        steps, gate = (turn < 0.5).astype(np.float32), np.ones(n, dtype=np.float32)
    else:
        steps, gate = 0.5 + 0.5 * np.sin(2 * np.pi * turn), np.ones(n, dtype=np.float32)
    table = wavetable(harmonics(hz * 1.6, p.uniform(-18, -3), p.random() < 0.5))
    cycles = phase((hz * 2 ** (interval * steps / 12)).astype(np.float32), n)
    return Sound(read_table(table, cycles) * gate, hz, rate)


def _puff(p: Generator, r: Generator, n: int) -> Sound:
    """Breaths, sneezes, coughs and sprays: a drawn breath, then an explosive noise with vocal resonances."""
    tract = _formants(p, p.uniform(0.9, 1.6))
    seconds, inhale, bright = p.uniform(0.08, 0.5), p.uniform(0, 0.5), p.uniform(-4, 4)
    rate, voiced = log_uniform(p, 0.4, 2.5), p.uniform(0, 0.6)
    hz = log_uniform(p, 150, 450)
    events = []
    for start in onsets(r, n, rate, 0.1):
        length = _samples(seconds * r.uniform(0.8, 1.2))
        size = fast_length(length)
        burst = filtered(shaped_noise(r, length, bright), resonance_response(size, tract, tract * 0.25), size)
        burst = unit_power(burst) + np.float32(voiced) * _voiced(
            r, _glide(r, length, hz, np.array([1.0, 3, -4]), 0, 0.03), hz, tract, -4, 0.0
        )
        events.append((start, burst * bump(length, 0.05, 0.7)))
        if inhale > 0.15:
            breath = shaped_noise(r, _samples(inhale), -2, 500, 5000)
            events.append((start - len(breath), 0.2 * breath * bump(len(breath), 0.7, 0.2)))
    return Sound(place(events, n), 0.0, rate)


def _thuds(p: Generator, r: Generator, n: int) -> Sound:
    """Footsteps, knocks and drums: low short resonances in a rhythm."""
    hz, rate, ring = log_uniform(p, 45, 350), log_uniform(p, 0.9, 7), log_uniform(p, 0.04, 0.4)
    noise, length = p.uniform(0.1, 1.0), _samples(min(0.5, ring * 1.3))
    skin = 1 + p.uniform(0, 1.5) * decay(length, 0.08)
    upper = log_uniform(p, 800, 6000)
    events = []
    for start in onsets(r, n, rate, p.choice([0.01, 0.08])):
        head = sine(np.float32(hz) * skin, length) * decay(length, ring)
        slap = shaped_noise(r, length, -3, 80, upper) * decay(length, ring * 0.4)
        events.append((start, (head + np.float32(noise) * slap) * np.float32(r.uniform(0.6, 1))))
    return Sound(place(events, n), hz, rate)


def _hum(p: Generator, r: Generator, n: int) -> Sound:
    hz = p.choice([50, 60, 100, 120]) * p.uniform(0.97, 1.03)
    amplitudes = harmonics(hz, p.uniform(-12, -5))[:40]
    amplitudes = amplitudes * np.exp(0.7 * p.standard_normal(len(amplitudes)))
    buzz = read_table(wavetable(amplitudes, p.random(40)), phase(hz, n, r.random()))
    return Sound(buzz + np.float32(p.uniform(0, 0.2)) * shaped_noise(r, n, -6), float(hz))


def _scrape(p: Generator, r: Generator, n: int) -> Sound:
    """Squeaks and scrapes: stick and slip, a rough tone whose pitch and loudness follow the pressing hand."""
    hz, rate = log_uniform(p, 200, 3000), log_uniform(p, 0.7, 4)
    stroke = np.maximum(sine(rate, n, r.random()) + p.uniform(-0.2, 0.6), 0)
    speed = hz * 2 ** (0.3 * contour(r, n, 2 + 4 * n // RATE) + p.uniform(0.02, 0.2) * contour(r, n, n // 60))
    rasp = read_table(wavetable(harmonics(hz, p.uniform(-6, 0))), phase(np.minimum(speed, 7500), n))
    return Sound((rasp + np.float32(p.uniform(0.1, 1)) * shaped_noise(r, n, 0, 500, 8000)) * stroke, hz, rate)


def _insect(p: Generator, r: Generator, n: int) -> Sound:
    hz, rate, depth = log_uniform(p, 2000, 7000), log_uniform(p, 12, 60), p.uniform(0.5, 1)
    pulse = 1 - depth * (phase(rate * (1 + 0.01 * contour(r, n, 5)), n, r.random()) > p.uniform(0.3, 0.7))
    width = p.uniform(0.01, 0.15)
    song = shaped_noise(r, n, 0, hz * (1 - width), hz * (1 + width)) + np.float32(p.uniform(0, 1)) * sine(hz, n)
    chirping = (phase(p.uniform(0.8, 4), n, r.random()) < p.uniform(0.4, 1.2)).astype(np.float32)
    return Sound(song * pulse.astype(np.float32) * chirping, hz, rate)


def _rattle(p: Generator, r: Generator, n: int) -> Sound:
    """Applause, shakers, keys, gravel: many short bright bursts, often in bunches."""
    density, rate = log_uniform(p, 25, 250), log_uniform(p, 1, 7)
    size = fast_length(n + 2000)
    sparse = poisson_impulses(r, n, density, 0.5)
    sparse *= np.maximum(0.0, 1 + p.uniform(0, 2) * sine(rate, n, r.random()))
    kernel = np.zeros(size, dtype=np.float32)
    length = _samples(p.uniform(0.008, 0.06))
    kernel[:length] = r.standard_normal(length) * decay(length, p.uniform(0.01, 0.06))
    low = log_uniform(p, 400, 3000)
    colour = 1.0 / np.sqrt(1.0 + (low / np.maximum(np.linspace(0, RATE / 2, size // 2 + 1), 1)) ** 4)
    return Sound(filtered(sparse, (np.fft.rfft(kernel) * colour).astype(np.complex64), size), 0.0, rate)


def _boom(p: Generator, r: Generator, n: int) -> Sound:
    """Thunder, crashes, slams: a sudden onset and a long rumbling or shattering decay."""
    length = min(n, _samples(p.uniform(0.3, 2.0)))
    crash = shaped_noise(r, length, p.uniform(-12, 3), 30, log_uniform(p, 600, 8000))
    crash = crash * decay(length, p.uniform(0.3, 2.5), p.uniform(0.001, 0.1)) * np.exp(0.5 * contour(r, length, 12))
    rate = log_uniform(p, 0.3, 1.5)
    return Sound(place([(start, crash) for start in onsets(r, n, rate, 0.1)], n), 0.0, rate)


def _melody(p: Generator, r: Generator, n: int) -> Sound:
    """A tune on a simple synthesiser: a few notes of a scale that return."""
    hz, rate = log_uniform(p, 120, 900), log_uniform(p, 1.5, 9)
    tune = p.choice([-5, -3, 0, 2, 4, 5, 7, 9, 12], 6)
    table = wavetable(harmonics(hz * 2, p.uniform(-14, -2), p.random() < 0.5))
    beat = np.arange(n) * (rate / RATE) + r.integers(0, 6)
    steps = tune[beat.astype(np.int64) % 6].astype(np.float32)
    fade = np.exp(np.float32(-p.uniform(0, 4)) * (beat % 1).astype(np.float32))
    return Sound(read_table(table, phase(np.float32(hz) * 2 ** (steps / 12), n)) * fade, hz, rate)


def _growl(p: Generator, r: Generator, n: int) -> Sound:
    """Low rough voices: a voiced source broken up by strong, fast amplitude modulation."""
    hz, rate = log_uniform(p, 50, 180), log_uniform(p, 18, 60)
    glide = _glide(r, n, hz, p.normal(0, 2, 3), 0, p.uniform(0.01, 0.06))
    throat = _voiced(r, glide, hz, _formants(p, p.uniform(0.7, 1.3)), -5, p.uniform(0.2, 1))
    return Sound(throat * (1 + p.uniform(0.5, 1) * sine(rate * (1 + 0.1 * contour(r, n, 9)), n)), hz, rate)


SOURCES: dict[str, Source] = {
    "tone": _tone,
    "organ": _organ,
    "fm_tone": _fm_tone,
    "chirp": _chirp,
    "hiss": _hiss,
    "band_noise": _band_noise,
    "ticks": _ticks,
    "crackle": _crackle,
    "pluck": _pluck,
    "strike": _strike,
    "vowel": _vowel,
    "babble": _babble,
    "wail": _wail,
    "bark": _bark,
    "crow": _crow,
    "bird": _bird,
    "bubbles": _bubbles,
    "rain": _rain,
    "wind": _wind,
    "surf": _surf,
    "engine": _engine,
    "rotor": _rotor,
    "saw": _saw,
    "alarm": _alarm,
    "puff": _puff,
    "thuds": _thuds,
    "hum": _hum,
    "scrape": _scrape,
    "insect": _insect,
    "rattle": _rattle,
    "boom": _boom,
    "melody": _melody,
    "growl": _growl,
}
"""Every kind of source by name, in the order of the pretraining labels."""
