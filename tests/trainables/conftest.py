"""What tests of whole trials share: the miniature data sets, written once, and a tiny model of waveforms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.trainables import checkpoints
from tests.trainables.data.layouts.recordings import text
from tests.trainables.data.sounds import tone
from tests.trainables.miniatures import Case, write


@pytest.fixture(scope="session")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Case], Path]:
    """Where the miniature for a case lies; nobody may change it."""
    home = tmp_path_factory.mktemp("miniatures")
    written: dict[str, Path] = {}

    def place(case: Case) -> Path:
        if case.copy not in written:
            written[case.copy] = write(case.copy, home / case.copy)
        return written[case.copy]

    return place


@pytest.fixture(scope="session")
def tiny_wave(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wav2vec 2.0 of width 32 and two layers that gives a token every 10 ms."""
    return checkpoints.save("wav2vec2", tmp_path_factory.mktemp("tiny-wav2vec2"))


@pytest.fixture(scope="session")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of two classes and of all lengths from 0.2 to 0.8 s, in given splits."""
    root = tmp_path_factory.mktemp("uneven")
    rows = ["path,label,split"]
    for number in range(22):
        split = "train" if number < 14 else "val" if number < 18 else "test"
        tone(root / f"{number}.wav", 0.2 + 0.6 * (number * 5 % 14) / 14, pitch=300 + 500 * (number % 2), seed=number)
        rows.append(f"{number}.wav,{'high' if number % 2 else 'low'},{split}")
    text(root / "manifest.csv", "\n".join(rows) + "\n")
    return root
