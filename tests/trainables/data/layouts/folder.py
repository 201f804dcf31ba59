"""A folder per class: three classes, six clips each."""

from __future__ import annotations

from pathlib import Path

from tests.trainables.data.layouts.recordings import recording


def write(root: Path, *, audio: bool = True, classes: int = 3, clips: int = 6) -> Path:
    for place in range(classes):
        for number in range(clips):
            file = root / f"class{place}" / f"clip{number}.wav"
            recording(file, audio, pitch=300 + 200 * place, seed=100 * place + number)
    return root
