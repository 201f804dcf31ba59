"""GTZAN in miniature: ten genres with lists of a small filtered split, or the names of all 1,000 excerpts."""

from __future__ import annotations

from pathlib import Path

from tests.trainables.data.layouts.recordings import recording, text

GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")
_PARTS = {"train": range(0, 2), "valid": range(2, 3), "test": range(3, 4)}


def write(root: Path, *, audio: bool = True) -> Path:
    lists: dict[str, list[str]] = {name: [] for name in _PARTS}
    for genre in GENRES:
        for name, numbers in _PARTS.items():
            for number in numbers:
                file = f"{genre}/{genre}.{number:05d}.wav"
                lists[name].append(file)
                pitch = 250 + 70 * GENRES.index(genre)
                recording(root / "genres_original" / file, audio, pitch=pitch, seed=number, rate=22050)
    for name, files in lists.items():
        text(root / f"{name}_filtered.txt", "\n".join(files) + "\n")
    return root


def write_whole(root: Path, folder: str = "genres_original", suffix: str = ".wav") -> Path:
    """All the names, no audio, no lists."""
    for genre in GENRES:
        (root / folder / genre).mkdir(parents=True)
        for number in range(100):
            (root / folder / genre / f"{genre}.{number:05d}{suffix}").touch()
    return root
