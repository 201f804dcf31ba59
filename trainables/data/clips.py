"""What a data set is made of before any audio is decoded (torch-free)."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from petl.errors import UserError

SPLITS = ("train", "val", "test")

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
"""What data sets call their splits -> what they are called here."""

AUDIO_SUFFIXES = frozenset(
    {
        ".wav",
        ".flac",
        ".ogg",
        ".oga",
        ".opus",
        ".mp3",
        ".aif",
        ".aiff",
        ".aifc",
        ".au",
        ".snd",
        ".caf",
        ".w64",
    }
)
UNDECODABLE_SUFFIXES = frozenset({".m4a", ".aac", ".mp4", ".wma", ".webm", ".amr", ".mkv", ".mov"})
"""Audio that people have but libsndfile does not read: worth a hint instead of silence."""

_LISTED = 20
_PART = re.compile(r" \[\S+ s to (end|\S+ s)\]$")  # as `Clip.title` has it


@dataclass(frozen=True)
class Clip:
    """One labelled recording, or the part of one between `start` and `end` seconds.

    Which of `label`, `labels`, `negatives` and `text` are given depends on what is learned
    (see `trainables.data.datasets.base.Target`).
    """

    path: Path  # where to read it
    name: str  # the path as the data set gives it, with forward slashes: the same wherever the data lie
    label: str = ""
    split: str | None = None  # as given by the data set, one of SPLITS
    fold: int | None = None
    group: str | None = None  # source recording: clips of one group never part
    start: float | None = None
    end: float | None = None
    labels: tuple[str, ...] = ()
    negatives: tuple[str, ...] | None = None  # None: whatever is not in `labels`
    text: str | None = None
    speaker: str | None = None  # where known, for checks

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes it is an example of."""
        return self.labels or ((self.label,) if self.label else ())

    @property
    def title(self) -> str:
        """How messages call it: its name, and the part if it is one."""
        if self.start is None and self.end is None:
            return self.name
        end = "end" if self.end is None else f"{self.end:g} s"
        return f"{self.name} [{self.start or 0:g} s to {end}]"

    @property
    def order(self) -> tuple[str, float, float, str]:
        """Sort key that depends on nothing but the data."""
        end = float("inf") if self.end is None else self.end
        return (self.name, self.start or 0.0, end, self.label)


@dataclass(frozen=True)
class BadFile:
    """A clip that cannot be used, and why."""

    name: str
    reason: str  # missing, unreadable, empty, not finite, too short
    detail: str

    @property
    def clip_name(self) -> str:
        """The clip's own name, where `name` is the title of a part."""
        return _PART.sub("", self.name)


class BadFiles(UserError):
    """Some clips cannot be used. `files` holds all of them; the message lists the first twenty."""

    def __init__(self, files: Sequence[BadFile], total: int, where: Path, dataset: str = "") -> None:
        self.files = tuple(files)
        self.total = total
        self.where = where
        self.dataset = dataset
        listed = [f"  {f.name}: {f.reason} ({f.detail})" for f in self.files[:_LISTED]]
        if len(self.files) > _LISTED:
            listed.append(f"  … and {len(self.files) - _LISTED} more")
        super().__init__(
            f"{len(self.files)} of {total} clips in {where} cannot be used:\n"
            + "\n".join(listed)
            + "\nRepair or remove them, or go on without them: --skip-bad-files (data.skip_bad_files=true)."
            + (f"\n`petl-search datasets check {dataset} {where}` tells what else is wrong." if dataset else "")
        )

    def __reduce__(self) -> tuple[type[BadFiles], tuple[tuple[BadFile, ...], int, Path, str]]:
        return type(self), (self.files, self.total, self.where, self.dataset)


def leave_out_missing(
    clips: Sequence[Clip], skip: bool, where: Path, dataset: str = ""
) -> tuple[list[Clip], list[BadFile]]:
    """Part the clips whose file exists from those whose file does not; `BadFiles` unless `skip`."""
    there: dict[Path, bool] = {}
    present, missing = [], []
    for clip in clips:
        if clip.path not in there:
            there[clip.path] = os.path.isfile(clip.path)  # noqa: PTH113 - three times as quick as Path's
        if there[clip.path]:
            present.append(clip)
        else:
            missing.append(BadFile(clip.title, "missing", "there is no such file"))
    if missing and not skip:
        raise BadFiles(missing, len(clips), where, dataset)
    return present, missing


def audio_files(folder: Path, suffixes: Collection[str] = AUDIO_SUFFIXES) -> Iterator[Path]:
    """Every audio file below `folder`, sorted, hidden files and folders left out; links are followed."""
    return _below(folder, suffixes, frozenset())


def _below(folder: Path, suffixes: Collection[str], around: frozenset[Path]) -> Iterator[Path]:
    """`around`: where this folder is really, and every one that led to it, with all that they lie in."""
    real = folder.resolve()
    around = around | {real, *real.parents}
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            if entry.is_symlink() and entry.resolve() in around:
                continue  # a link back: it would go round for ever
            yield from _below(entry, suffixes, around)
        elif entry.suffix.lower() in suffixes:
            yield entry
