"""AudioSet: lists of segments of videos, and the audio of those that could be had (torch-free)."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from trainables.data.clips import AUDIO_SUFFIXES, Clip
from trainables.data.datasets._reading import refuse
from trainables.data.datasets.base import Choice, Dataset, Expected, LayoutError, Protocol, Target, needed
from trainables.data.datasets.tables import each, read_table, unique

_CLASSES = "class_labels_indices.csv"
_TRAIN = {
    "balanced": ("balanced_train_segments",),
    "unbalanced": ("unbalanced_train_segments",),
    "full": ("balanced_train_segments", "unbalanced_train_segments"),
}
_TEST = "eval_segments"
_SHORT = {
    "balanced_train_segments": "bal_train",
    "unbalanced_train_segments": "unbal_train",
    "eval_segments": "eval",
}
_FILE = re.compile(r"Y?(?P<id>.{11})(?:_[0-9.]+(?:_[0-9.]+)?)?")  # an id has eleven characters, and may begin with Y
_COLUMNS = 4


def read(root: Path, choice: Choice) -> list[Clip]:
    """List every segment of the subset's lists and of the evaluation list, whether its audio is there or not.

    Many of the videos are gone, so that no copy is whole: data.skip_bad_files goes on without what is missing and
    counts it. `labels` are display names. The audio is the ten seconds, cut already.
    """
    parts = (*_TRAIN[choice.subset], _TEST)
    needed(root, _CLASSES, *(f"{part}.csv" for part in parts), dataset="audioset")
    names = _display_names(root / _CLASSES)
    clips = []
    for part in parts:
        folder = _folder(root, part)
        files = _files(root, folder)
        for video, labels in _segments(root / f"{part}.csv", names):
            name = files.get(video) or f"{folder.relative_to(root).as_posix()}/{video}.wav"
            split = "test" if part == _TEST else "train"
            clips.append(Clip(path=root / name, name=name, labels=labels, split=split))
    return clips


def _display_names(table: Path) -> dict[str, str]:
    """Machine identifier -> display name."""
    mid, shown = unique("mid"), unique("display_name")
    rows = read_table(table, ("index", "mid", "display_name"))
    return dict(each(rows, lambda row: (mid(row), shown(row))))


def _folder(root: Path, part: str) -> Path:
    """Where the audio of a part lies: the first of the accepted folders."""
    accepted = [f"audio/{part}", part, f"audio/{_SHORT[part]}", f"audio/{part.removesuffix('_segments')}"]
    for name in accepted:
        if (root / name).is_dir():
            return root / name
    raise LayoutError(f"{root}: there is no folder with the audio of {part}.csv (one of {', '.join(accepted)})")


def _files(root: Path, folder: Path) -> dict[str, str]:
    """Video -> the name of its file, in `folder` or in a folder in it."""
    found: dict[str, str] = {}
    for place in (folder, *sorted(entry for entry in folder.iterdir() if entry.is_dir())):
        inside = place.relative_to(root).as_posix()
        for file in sorted(place.iterdir()):
            known = _FILE.fullmatch(file.stem)
            if known and file.suffix.lower() in AUDIO_SUFFIXES:
                found.setdefault(known["id"], f"{inside}/{file.name}")
    return found


def _segments(table: Path, names: dict[str, str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Video and display names of every segment. A table of its own kind, and with two million rows a long one."""
    wrong: list[str] = []
    seen: dict[str, int] = {}
    found: list[tuple[str, tuple[str, ...]]] = []
    with table.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, skipinitialspace=True)
        for cells in reader:
            number = reader.line_num
            if not cells or cells[0].startswith("#"):
                continue
            if len(cells) != _COLUMNS:
                wrong.append(f"row {number}: {len(cells)} values; YTID, start_seconds, end_seconds, positive_labels")
                continue
            video, mids = cells[0], [mid for mid in cells[3].split(",") if mid]
            alien = [mid for mid in mids if mid not in names]
            if alien or not mids:
                what = f"label '{alien[0]}' is not in {_CLASSES}" if alien else "there is no label"
                wrong.append(f"row {number}: {what}")
            elif video in seen:
                wrong.append(f"row {number}: segment of '{video}' is listed already in row {seen[video]}")
            else:
                seen[video] = number
                found.append((video, tuple(sorted({names[mid] for mid in mids}))))
    if wrong:
        refuse(table, wrong)
    if not found:
        raise LayoutError(f"{table}: it lists no segments")
    yield from found


def looks_like(root: Path) -> bool:
    return (root / f"{_TEST}.csv").is_file()


_BALANCED, _UNBALANCED, _EVAL = 22160, 2041789, 20371
_SOURCE = "the comment lines of the published lists"

DATASET = Dataset(
    name="audioset",
    summary="sounds of 10 s from videos: 527 tags, several hold",
    layout=(
        "PATH/balanced_train_segments.csv, unbalanced_train_segments.csv, eval_segments.csv   as published\n"
        "PATH/class_labels_indices.csv   index,mid,display_name\n"
        "PATH/audio/<list without .csv>/<YTID>.wav   (.flac, …; also Y<YTID>.wav and <YTID>_<start>[_<end>].wav;\n"
        "also one folder deeper; the folders may lie in PATH itself, or be called audio/bal_train, unbal_train, eval)\n"
        "No copy is whole: --skip-bad-files goes on without the segments that are not there, and counts them."
    ),
    targets={"sounds": Target("tagging", "the sounds that are heard, of 527")},
    subsets={
        "balanced": "trains on the balanced list",
        "unbalanced": "trains on the unbalanced list",
        "full": "trains on both lists",
    },
    protocols={"standard": Protocol("the published lists; val is cut from train, the evaluation list tests")},
    read=read,
    looks_like=looks_like,
    expected=tuple(
        Expected(subset=name, clips=train + _EVAL, splits={"train": train, "test": _EVAL}, classes=527, source=_SOURCE)
        for name, train in (("balanced", _BALANCED), ("unbalanced", _UNBALANCED), ("full", _BALANCED + _UNBALANCED))
    ),
    citation='J. F. Gemmeke et al., "Audio Set: An ontology and human-labeled dataset for audio events", ICASSP 2017',
    licence="lists CC BY 4.0; the videos belong to those who published them",
)
