"""Recordings of other rates against what they would be at 16 kHz: by formula, and by scipy's polyphase filter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import soundfile

from petl.frontend import decode

RATE = 16000
_TONES = ((220.0, 0.3, 0.1), (1330.0, 0.2, 1.0), (2900.0, 0.1, 2.0))  # Hz, level, phase: below half of 8 kHz
_EDGE = 400  # samples at each end, where a filter lacks its neighbours


def _tones(rate: int, seconds: float) -> np.ndarray:
    time_S = np.arange(round(rate * seconds)) / rate
    return sum(level * np.sin(2 * np.pi * pitch * time_S + phase) for pitch, level, phase in _TONES)


def _distance(found_S: np.ndarray, wanted_S: np.ndarray) -> float:
    """Decibels of the difference below the signal, away from the ends."""
    inner = slice(_EDGE, min(len(found_S), len(wanted_S)) - _EDGE)
    difference = found_S[inner] - wanted_S[inner]
    return float(10 * np.log10(np.mean(wanted_S[inner] ** 2) / np.mean(difference**2)))


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 24000, 32000, 44100, 48000])
def test_tones_come_out_as_if_recorded_at_the_right_rate(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "x.wav", _tones(rate, 1.0).astype(np.float32), rate, subtype="FLOAT")
    found_S = decode(tmp_path / "x.wav", RATE).numpy()
    assert len(found_S) == RATE
    assert _distance(found_S, _tones(RATE, 1.0)) > 40
    shared = np.gcd(rate, RATE)
    reference_S = scipy.signal.resample_poly(_tones(rate, 1.0), RATE // shared, rate // shared)
    assert _distance(found_S, reference_S) > 40


def test_what_lies_above_half_the_rate_is_gone(tmp_path: Path) -> None:
    """A tone of 11 kHz in a recording of 48 kHz would be one of 5 kHz if it were only sampled less often."""
    time_S = np.arange(48000) / 48000
    soundfile.write(tmp_path / "x.wav", 0.5 * np.sin(2 * np.pi * 11000 * time_S), 48000, subtype="FLOAT")
    found_S = decode(tmp_path / "x.wav", RATE).numpy()[_EDGE:-_EDGE]
    assert np.sqrt(np.mean(found_S**2)) < 0.5 / np.sqrt(2) / 100
