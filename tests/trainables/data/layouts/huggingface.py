"""Hugging Face data sets, made with the `datasets` library itself: three intents by two voices, audio inside."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

INTENTS = ("lights_off", "lights_on", "volume_up")
_COUNTS = {"train": 12, "validation": 6, "test": 6}


def encoded(number: int, container: str = "WAV") -> bytes:
    """A noisy tone of 0.4 s as the bytes of a file."""
    time_S = np.arange(6400) / 16000
    noise_S = 0.05 * np.random.default_rng(number).standard_normal(6400)
    held = io.BytesIO()
    wave_S = 0.3 * np.sin(2 * np.pi * (300 + 200 * (number % 3)) * time_S) + noise_S
    soundfile.write(held, wave_S.astype(np.float32), 16000, format=container)
    return held.getvalue()


def part(count: int, first: int = 0, *, audio: bool = True, **columns: list[Any]) -> Any:
    """Rows with audio, a class, tags, text and a speaker; `columns` are added or replace those."""
    import datasets

    numbers = range(first, first + count)
    rows = {
        "audio": [{"bytes": encoded(n) if audio else b"RIFF", "path": f"recorded/{n:03d}.wav"} for n in numbers],
        "intent_class": [n % 3 for n in numbers],
        "tags": [[n % 3, (n + 1) % 3] if n % 2 else [n % 3] for n in numbers],
        "transcription": [f"sentence {n % 3}" for n in numbers],
        "speaker_id": [n // 3 % 2 for n in numbers],
        **columns,
    }
    features = datasets.Dataset.from_dict(rows).features
    features["intent_class"] = datasets.ClassLabel(names=list(INTENTS))
    features["tags"] = datasets.List(datasets.ClassLabel(names=list(INTENTS)))
    features["audio"] = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    made = datasets.Dataset.from_dict(rows, features=features)
    return made.cast_column("audio", datasets.Audio(sampling_rate=16000))  # encodes nothing: bytes are there


def whole(*, audio: bool = True) -> Any:
    import datasets

    parts, first = {}, 0
    for name, count in _COUNTS.items():
        parts[name] = part(count, first, audio=audio)
        first += count
    return datasets.DatasetDict(parts)


def write(root: Path, *, audio: bool = True) -> Path:
    """As `save_to_disk` leaves it."""
    whole(audio=audio).save_to_disk(str(root))
    return root


def write_parquet(root: Path) -> Path:
    """As a repository on the hub has it: Parquet files in data/, and a card."""
    (root / "data").mkdir(parents=True)
    for name, rows in whole().items():
        rows.to_parquet(str(root / "data" / f"{name}-00000-of-00001.parquet"))
    (root / "README.md").write_text("---\nlicense: cc0-1.0\n---\n# Somebody's recordings\n")
    return root
