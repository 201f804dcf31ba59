"""Short recordings for the miniature copies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from tests.trainables.data.sounds import tone


def recording(path: Path, audio: bool, *, pitch: float = 440.0, seed: int = 0, rate: int = 16000) -> Path:
    """A noisy tone of 0.4 s in the codec of the suffix, or an empty file where nobody is going to listen."""
    if audio:
        return tone(path, 0.4, rate, pitch=pitch, seed=seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def sphere(path: Path, audio: bool, *, pitch: float = 440.0, seed: int = 0) -> Path:
    """The same with the NIST header that TIMIT's .WAV files have."""
    recording(path, False)
    if audio:
        time_S = np.arange(6400) / 16000
        noise_S = 0.05 * np.random.default_rng(seed).standard_normal(6400)
        wave_S = 0.3 * np.sin(2 * np.pi * pitch * time_S) + noise_S
        soundfile.write(path, wave_S.astype(np.float32), 16000, format="NIST", subtype="PCM_16")
    return path


def text(path: Path, content: str, encoding: str = "utf-8") -> Path:
    """A file with exactly this text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode(encoding))
    return path
