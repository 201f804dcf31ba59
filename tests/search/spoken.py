"""Words that a tiny model learns to write in seconds: every letter a tone of its own, laid out as LibriSpeech."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

RATE = 16000
WORDS = ("ABE", "BEAD", "CAB", "DAB", "ACE", "FADE", "BAD", "DEAF", "FACE", "CAFE", "BED", "FED")
_LETTERS = "ABCDEF "
_SECONDS = 0.12


def write(root: Path, *, train: int = 64, val: int = 12, test: int = 12) -> Path:
    """`root/LibriSpeech/<part>/84/121123/…flac` and their transcripts: three words each."""
    draw = np.random.default_rng(0)
    for part, count in (("train-clean-100", train), ("dev-clean", val), ("test-clean", test)):
        folder = root / "LibriSpeech" / part / "84" / "121123"
        folder.mkdir(parents=True)
        lines = []
        for number in range(count):
            words, name = " ".join(draw.choice(WORDS, 3)), f"84-121123-{number:04d}"
            soundfile.write(folder / f"{name}.flac", said(words, draw), RATE)
            lines.append(f"{name} {words}")
        (folder / "84-121123.trans.txt").write_text("\n".join(lines) + "\n")
    return root


def said(text: str, draw: np.random.Generator) -> np.ndarray:
    """A text as samples: a tone of 120 ms for each letter, 30 ms apart, with some noise."""
    time_S = np.arange(int(RATE * _SECONDS)) / RATE
    gap_S = np.zeros(RATE * 3 // 100)
    parts = []
    for letter in text:
        tone_S = np.sin(2 * np.pi * (300 + 250 * _LETTERS.index(letter)) * time_S) * np.hanning(len(time_S))
        parts += [0.3 * tone_S, gap_S]
    wave_S = np.concatenate(parts)
    return (wave_S + draw.normal(0, 0.003, len(wave_S))).astype(np.float32)
