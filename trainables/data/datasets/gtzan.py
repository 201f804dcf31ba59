"""GTZAN genres: `genres_original/<genre>/<genre>.000NN.wav` (torch-free)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from trainables.data.clips import Clip
from trainables.data.datasets._gtzan_split import GENRES, filtered
from trainables.data.datasets.base import Choice, Dataset, Expected, LayoutError, Protocol, Target
from trainables.data.datasets.tables import Row, each, read_list

_FOLDERS = ("genres_original", "genres")  # as repacked with .wav files, and as first published with .au files
_LISTS = {"train": "train_filtered.txt", "val": "valid_filtered.txt", "test": "test_filtered.txt"}
_SUFFIXES = (".wav", ".au")


def read(root: Path, choice: Choice) -> list[Clip]:
    """List the excerpts of the fault-filtered split, or all that are there, without splits.

    Lists of the split that lie in `root` are followed; without any it is the published one, which comes along.
    """
    folder = next((root / name for name in _FOLDERS if (root / name).is_dir()), None)
    if folder is None:
        raise LayoutError(f"{root} is not a copy of 'gtzan': there is no folder {' or '.join(_FOLDERS)}")
    if choice.subset == "all":
        return [_clip(root, file, None) for genre in GENRES for file in _excerpts(folder / genre)]
    suffix = next((file.suffix for genre in GENRES for file in _excerpts(folder / genre)), ".wav")
    return [
        _clip(root, folder / excerpt.split(".")[0] / f"{excerpt}{suffix}", split)
        for excerpt, split in _splits(root).items()
    ]


def _excerpts(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise LayoutError(f"{folder.parent}: there is no folder '{folder.name}' (the genres: {', '.join(GENRES)})")
    return sorted(file for file in folder.iterdir() if file.suffix in _SUFFIXES and not file.name.startswith("."))


def _clip(root: Path, file: Path, split: str | None) -> Clip:
    return Clip(path=file, name=file.relative_to(root).as_posix(), label=file.parent.name, split=split)


def _splits(root: Path) -> dict[str, str]:
    """Excerpt -> split, from the lists in `root`, all three or none of which are there."""
    missing = [name for name in _LISTS.values() if not (root / name).is_file()]
    if len(missing) == len(_LISTS):
        return filtered()
    if missing:
        raise LayoutError(
            f"{root} has some lists of the filtered split, but no {', no '.join(missing)}; add what is missing, or "
            "remove them all to go by the published split"
        )
    found: dict[str, str] = {}
    for split, name in _LISTS.items():
        each(read_list(root / name), partial(_add, found, split))
    return found


def _add(found: dict[str, str], split: str, row: Row) -> None:
    """Note blues.00029 of the line blues/blues.00029.wav."""
    line = row.text("line")
    genre, _, file = line.partition("/")
    excerpt, dot, suffix = file.rpartition(".")
    if genre not in GENRES or not dot or f".{suffix}" not in _SUFFIXES or not excerpt.startswith(f"{genre}."):
        raise row.error(f"'{line}' is not <genre>/<genre>.<number>.wav with one of {', '.join(GENRES)}")
    if excerpt in found:
        raise row.error(f"'{line}' is listed already for {found[excerpt]}")
    found[excerpt] = split


def looks_like(root: Path) -> bool:
    return any((root / name / genre).is_dir() for name in _FOLDERS for genre in ("hiphop", "reggae"))


_GIVEN = Protocol("the fault-filtered split (no artist in two parts); subset all: drawn per genre")

DATASET = Dataset(
    name="gtzan",
    summary="music excerpts of 30 s: ten genres, fault-filtered split",
    layout=(
        "PATH/genres_original/<genre>/<genre>.00000.wav   (or PATH/genres/<genre>/<genre>.00000.au)\n"
        "The filtered split is known; PATH/train_filtered.txt, valid_filtered.txt and test_filtered.txt (lines like\n"
        "blues/blues.00029.wav) replace it where they are given. In many copies jazz.00054.wav cannot be decoded:\n"
        "go on without it with --skip-bad-files."
    ),
    targets={"genre": Target("classification", "the genre, one of 10")},
    subsets={"filtered": "the 930 excerpts of the fault-filtered split", "all": "all 1,000, repeats included"},
    protocols={"standard": _GIVEN, "aat": _GIVEN},
    read=read,
    looks_like=looks_like,
    expected=(
        Expected(
            subset="filtered",
            clips=930,
            classes=10,
            splits={"train": 443, "val": 197, "test": 290},
            source="the fault-filtered lists",
        ),
        Expected(subset="all", clips=1000, classes=10, source="G. Tzanetakis and P. Cook 2002"),
    ),
    citation='G. Tzanetakis, P. Cook, "Musical genre classification of audio signals", IEEE TSAP 10(5), 2002; '
    "filtered split: C. Kereliuk, B. L. Sturm, J. Larsen, arXiv 1507.04761",
    licence="none was given; the recordings are commercial ones",
)
