"""What lies in people's own folders and is used by no clip (torch-free)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from trainables.data.checking.findings import Findings
from trainables.data.clips import AUDIO_SUFFIXES, SPLIT_NAMES, UNDECODABLE_SUFFIXES, Clip

OWN = ("folder", "manifest")


def unused(found: Findings, root: Path, clips: Sequence[Clip]) -> None:
    """Audio that is not used, and folders that are no class for lack of audio."""
    home = root.parent if root.is_file() else root
    used = {os.path.realpath(clip.path) for clip in clips}
    alien, spare = [], []
    for file in _audio(home):
        name = file.relative_to(home).as_posix()
        if file.suffix.lower() in UNDECODABLE_SUFFIXES:
            alien.append(name)
        elif os.path.realpath(file) not in used:
            spare.append(name)
    if alien:
        said = "formats that are not decoded here, so that they are not used; convert them to .flac or .wav"
        found.add("warning", "other_formats", said, alien)
    if spare:
        found.add("note", "unused", "audio below the folder that no clip uses", spare)


def empty_classes(found: Findings, root: Path, clips: Sequence[Clip]) -> None:
    """Folders where classes are expected that hold no audio."""
    holding = {parent for clip in clips for parent in Path(clip.name).parents}
    places = [root]
    if any(clip.split is not None for clip in clips):
        places = [place for place in _folders(root) if place.name.lower() in SPLIT_NAMES]
    empty = [
        name
        for place in places
        for folder in _folders(place)
        if Path(name := folder.relative_to(root).as_posix()) not in holding
    ]
    if empty:
        found.add("warning", "empty_classes", "folders without audio, which are no classes", empty)


def _folders(place: Path) -> list[Path]:
    return [entry for entry in sorted(place.iterdir()) if entry.is_dir() and not entry.name.startswith(".")]


def _audio(home: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(home):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            file = Path(place, name)
            if not name.startswith(".") and file.suffix.lower() in AUDIO_SUFFIXES | UNDECODABLE_SUFFIXES:
                yield file
