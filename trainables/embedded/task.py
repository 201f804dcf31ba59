"""The embedded audio task: a small synthetic data set, made on first use and kept.

It is what a search trains on when no data is named: nine classes of sequences (see `patterns`), 243 clips to
train on, 117 to validate, 117 to test, every class equally often in each; 1.295 s (128 feature frames) of 16 kHz
mono 16-bit wav, and `manifest.csv` with the columns path, label, split. It needs no torch.

For orientation, test accuracy on the embedded backbone: chance 11 %, a linear probe 59-66 % (25 % on random
weights), bottleneck adapters of width 16 beside the feed-forward 64-65 %, beside attention and feed-forward
68-69 %. The order of events is decided in attention, so where a method is attached matters.
"""

from __future__ import annotations

import csv
import shutil
import tempfile
from pathlib import Path

import numpy as np
from filelock import FileLock

from petl.errors import UserError
from trainables.embedded.patterns import PATTERNS, clip
from trainables.embedded.signals import RATE

VERSION = 2
"""Raised whenever the clips change: another version is another directory."""

CLIPS_PER_CLASS = {"train": 27, "val": 13, "test": 13}
"""Clips of every class in each split."""


def task_directory(root: Path) -> Path:
    """Where `prepare(root)` keeps the data set (whether or not it is there yet)."""
    return Path(root) / f"patterns-v{VERSION}"


def prepare(root: Path) -> Path:
    """The data set's directory under `root`, made now if it is not there yet.

    The directory appears complete or not at all (it is written beside its place and renamed), processes that ask
    at the same time wait for the one that makes it, and the same version always has the same clips. Raises
    UserError when `root` cannot be written to.
    """
    directory = task_directory(root)
    if (directory / "manifest.csv").is_file():
        return directory
    try:
        Path(root).mkdir(parents=True, exist_ok=True)
        with FileLock(str(directory) + ".lock"):
            if not (directory / "manifest.csv").is_file():
                _make(directory)
    except OSError as error:
        raise UserError(
            f"the embedded task cannot be written to {root}: {error.strerror or error}. "
            "Free some space or choose another directory (4 MB are needed once)."
        ) from error
    return directory


def _make(directory: Path) -> None:
    """Write everything into a neighbouring temporary directory and move it into place."""
    temporary = Path(tempfile.mkdtemp(prefix=directory.name + ".", dir=directory.parent))
    try:
        temporary.chmod(0o755)
        _write(temporary)
        if directory.exists():  # a directory without a manifest is not ours to use: somebody removed part of it
            shutil.rmtree(directory)
        temporary.replace(directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(directory: Path) -> None:
    """Clips and manifest of every split, in a fixed order."""
    import soundfile

    rows = []
    for split_number, (split, count) in enumerate(CLIPS_PER_CLASS.items()):
        (directory / split).mkdir()
        for label_number, label in enumerate(PATTERNS):
            for number in range(count):
                samples = clip(label, (VERSION, split_number, label_number, number))
                path = f"{split}/{label}-{number:02d}.wav"
                pcm = np.round(samples * 32767).astype(np.int16)
                soundfile.write(str(directory / path), pcm, RATE, subtype="PCM_16")
                rows.append((path, label, split))
    with (directory / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("path", "label", "split"))
        writer.writerows(rows)
