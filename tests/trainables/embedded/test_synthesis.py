"""Synthesised sound: every kind is finite, audible and a pure function of its seed."""

from __future__ import annotations

import numpy as np
import pytest

from trainables.embedded.signals import RATE, fast_length, phase, poisson_impulses, shaped_noise
from trainables.embedded.synthesis import ENVELOPES, KINDS, synthesise

N = 20_720


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("samples", [N, 80_240])
def test_every_kind_is_finite_audible_and_in_range(kind: str, samples: int) -> None:
    for seed in range(3):
        recording = synthesise(seed, samples, kind=kind)
        assert recording.signal.shape == (samples,)
        assert recording.signal.dtype == np.float32
        assert np.isfinite(recording.signal).all()
        assert 1e-3 < np.abs(recording.signal).max() <= 1.0
        assert KINDS[recording.kind] == kind
        assert 0 <= recording.envelope < len(ENVELOPES)


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_samples(kind: str) -> None:
    first, again = synthesise((4, 2), N, kind=kind), synthesise((4, 2), N, kind=kind)
    assert first.signal.tobytes() == again.signal.tobytes()
    assert (first.pitch, first.rhythm, first.snr) == (again.pitch, again.rhythm, again.snr)
    other = synthesise((4, 3), N, kind=kind)
    assert not np.array_equal(first.signal, other.signal)


@pytest.mark.parametrize("kind", KINDS)
def test_two_takes_share_the_recipe_but_not_the_samples(kind: str) -> None:
    one, two = (synthesise(11, N, kind=kind, take=take) for take in (0, 1))
    assert (one.kind, one.pitch, one.rhythm) == (two.kind, two.pitch, two.rhythm)
    assert not np.array_equal(one.signal, two.signal)


def test_kinds_are_drawn_when_none_is_named() -> None:
    drawn = {synthesise(seed, 4000).kind for seed in range(300)}
    assert len(drawn) > 0.9 * len(KINDS)


def test_unknown_kind_is_named() -> None:
    with pytest.raises(KeyError, match="trombone"):
        synthesise(0, N, kind="trombone")


@pytest.mark.parametrize("n", [1, 7, 97, 20_720, 80_240])
def test_fast_length_is_smooth_and_long_enough(n: int) -> None:
    length = fast_length(n)
    assert n <= length < 2 * n + 1
    for factor in (2, 3, 5):
        while length % factor == 0:
            length //= factor
    assert length == 1


def test_noise_has_unit_power_and_stays_in_its_band() -> None:
    noise = shaped_noise(np.random.default_rng(0), RATE, 0.0, 1000, 2000)
    power = np.abs(np.fft.rfft(noise)) ** 2
    assert np.mean(noise**2) == pytest.approx(1.0, rel=1e-3)
    assert power[700:2900].sum() > 0.95 * power.sum()


def test_phase_advances_by_the_frequency() -> None:
    assert phase(100.0, RATE)[int(RATE / 400)] == pytest.approx(0.25, abs=1e-4)
    assert phase(np.full(RATE, 100.0, dtype=np.float32), RATE)[159] == pytest.approx(0.0, abs=1e-3)


def test_poisson_impulses_come_at_the_rate_asked_for() -> None:
    impulses = poisson_impulses(np.random.default_rng(1), 10 * RATE, 50.0)
    assert 400 < np.count_nonzero(impulses) < 600
