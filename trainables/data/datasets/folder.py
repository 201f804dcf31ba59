"""A folder per class, optionally below train/val/test folders (torch-free)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from trainables.data.clips import AUDIO_SUFFIXES, SPLIT_NAMES, UNDECODABLE_SUFFIXES, Clip, audio_files
from trainables.data.datasets._reading import tell
from trainables.data.datasets._speakers import speakers_apart
from trainables.data.datasets.base import Choice, Dataset, LayoutError, Protocol, Target


def read(root: Path, choice: Choice) -> list[Clip]:
    """List `root/<class>/**/<audio file>`, or `root/<split>/<class>/**/<audio file>`.

    It is the second layout when there are a train folder and another split's folder and they hold folders
    only; a class may be called "train". Folders without any audio are ignored.
    """
    if not root.is_dir():
        raise LayoutError(f"{root} is not in 'folder' layout: it is a file")
    splits = _split_folders(root)
    if splits:
        clips = [clip for split, folder in splits for clip in _classes(root, folder, split)]
    else:
        clips = _classes(root, root, None)
    if not clips:
        raise LayoutError(_nothing_found(root))
    _tell_of_others([folder for _, folder in splits] if splits else [root])
    return [replace(clip, speaker=clip.label) for clip in clips] if choice.target == "speaker" else clips


def looks_like(root: Path) -> bool:
    if not root.is_dir():
        return False
    deeper = [folder for parent in _folders(root) for folder in _folders(parent)]
    folders = [*_folders(root), *deeper]
    return any(
        entry.suffix.lower() in AUDIO_SUFFIXES and not entry.name.startswith(".")
        for folder in folders
        for entry in folder.iterdir()
    )


def _classes(root: Path, parent: Path, split: str | None) -> list[Clip]:
    return [
        Clip(path=file, name=file.relative_to(root).as_posix(), label=folder.name, split=split)
        for folder in _folders(parent)
        for file in audio_files(folder)
    ]


def _tell_of_others(parents: Sequence[Path]) -> None:
    """Recordings beside those that are used, in formats that nothing here decodes."""
    places = [folder for parent in parents for folder in _folders(parent)]
    alien = Counter(file.suffix.lower() for place in places for file in audio_files(place, UNDECODABLE_SUFFIXES))
    if alien:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(alien.items()))
        tell(f"files in the class folders that are not decoded here and so not used: {kinds}; convert them to .flac")


def _split_folders(root: Path) -> list[tuple[str, Path]]:
    """[(split, folder)] of the layout with splits, empty for the one without."""
    named = [(SPLIT_NAMES[f.name.lower()], f) for f in _folders(root) if f.name.lower() in SPLIT_NAMES]
    found = [split for split, _ in named]
    if "train" not in found or len(set(found)) < 2:
        return []
    if any(e.suffix.lower() in AUDIO_SUFFIXES for _, f in named for e in f.iterdir() if e.is_file()):
        return []
    for split in found:
        if found.count(split) > 1:
            names = " and ".join(f"'{f.name}'" for s, f in named if s == split)
            raise LayoutError(f"{root}: {names} both name the {split} split; keep one of them")
    others = [f.name for f in _folders(root) if f.name.lower() not in SPLIT_NAMES and any(audio_files(f))]
    if others:
        raise LayoutError(
            f"{root}: folder '{others[0]}' with audio lies beside split folders; "
            "put every class below train, val or test, or rename the split folders"
        )
    return named


def _folders(parent: Path) -> list[Path]:
    return [entry for entry in sorted(parent.iterdir()) if entry.is_dir() and not entry.name.startswith(".")]


def _nothing_found(root: Path) -> str:
    suffixes = Counter(f.suffix.lower() for f in root.rglob("*") if f.is_file())
    direct = sum(f.suffix.lower() in AUDIO_SUFFIXES for f in root.iterdir() if f.is_file())
    message = f"{root} is not in 'folder' layout: "
    if direct:
        return message + f"{direct} audio files lie directly in it; put them into one folder per class"
    alien = {suffix: count for suffix, count in suffixes.items() if suffix in UNDECODABLE_SUFFIXES}
    if alien:
        suffix, count = max(alien.items(), key=lambda item: item[1])
        return message + (
            f"it has {count} {suffix} files, which cannot be decoded here; convert them to .flac or .wav "
            f"(for example: ffmpeg -i in{suffix} out.flac)"
        )
    return message + f"no audio files were found in its folders (looked for {', '.join(sorted(AUDIO_SUFFIXES))})"


DATASET = Dataset(
    name="folder",
    summary="your own recordings, a folder per class",
    layout=(
        "PATH/<class>/*.wav          (.flac, .ogg, .mp3, …; deeper folders are searched too)\n"
        "or PATH/<train|val|test>/<class>/*.wav"
    ),
    targets={
        "label": Target("classification", "the class that a folder is named after"),
        "speaker": Target("verification", "whether two clips are of one speaker; a folder per speaker"),
    },
    protocols={
        "standard": Protocol(
            "given splits where there are split folders (a missing val is cut from train), otherwise train/val/test "
            "drawn per class (data.val_fraction, data.test_fraction, data.split_seed)",
            speakers_apart,
        ),
    },
    read=read,
    looks_like=looks_like,
)
