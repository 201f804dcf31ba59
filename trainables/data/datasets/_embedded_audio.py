"""Audio that is kept inside of Arrow tables, written once as files that everything else can read (torch-free)."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any

from trainables.data.clips import AUDIO_SUFFIXES
from trainables.data.places import check_room, make_folder, no_room

_INDEX = "files.json"
_MAGIC = {
    b"RIFF": ".wav",
    b"fLaC": ".flac",
    b"OggS": ".ogg",
    b"ID3": ".mp3",
    b"\xff\xfb": ".mp3",
    b"\xff\xf3": ".mp3",
    b"FORM": ".aiff",
    b".snd": ".au",
}


def audio_files_of(rows: Any, column: str, root: Path, cache: Path) -> list[Path | None]:
    """The file of every row of a part: the one written for it, or the one that it names below `root`; else None.

    Files lie in a folder below `cache` that is named after the library's fingerprint of the part. It appears whole or
    not at all, so that neither an interruption nor another process at the same work leaves half of it.
    """
    chunks = rows.data.column(column).chunks
    paths = [path for chunk in chunks for path in chunk.field("path").to_pylist()]
    inside = [valid for chunk in chunks for valid in chunk.field("bytes").is_valid().to_pylist()]
    outside = [None if path is None or valid else _below(root, path) for path, valid in zip(paths, inside, strict=True)]
    if not any(inside):
        return outside
    key = hashlib.sha256(f"{rows._fingerprint} {column} {rows.num_rows}".encode()).hexdigest()[:24]
    folder = cache / key
    if not (folder / _INDEX).is_file():
        _write(folder, chunks, paths)
    names: list[str | None] = json.loads((folder / _INDEX).read_text())
    return [folder / name if name is not None else other for name, other in zip(names, outside, strict=True)]


def _below(root: Path, path: str) -> Path | None:
    """The file that a table names, unless it lies elsewhere than in the data set."""
    home = os.path.abspath(root)  # noqa: PTH100 - as given: links in it may lead anywhere
    whole = os.path.normpath(os.path.join(home, path))  # noqa: PTH118 - without following links
    return Path(whole) if whole.startswith(home + os.sep) else None


def _write(folder: Path, chunks: list[Any], paths: list[str | None]) -> None:
    make_folder(folder.parent)
    check_room(folder.parent, sum(chunk.field("bytes").nbytes for chunk in chunks))
    part = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", suffix=".tmp", dir=folder.parent))
    try:
        names: list[str | None] = []
        for chunk in chunks:
            for content in chunk.field("bytes"):
                names.append(_file(part, len(names), paths[len(names)], content.as_py()))
        (part / _INDEX).write_text(json.dumps(names))
        part.replace(folder)
    except OSError as error:
        if not (folder / _INDEX).is_file():  # else another process was first
            raise no_room(folder.parent, error) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _file(folder: Path, number: int, path: str | None, content: bytes | None) -> str | None:
    if content is None:
        return None
    given = PurePosixPath((path or "").replace("\\", "/"))
    suffix = given.suffix.lower()
    if suffix not in AUDIO_SUFFIXES:
        suffix = next((kind for magic, kind in _MAGIC.items() if content.startswith(magic)), ".wav")
    stem = re.sub(r"[^\w.-]", "_", given.stem)[:80]
    name = f"{number:06d}-{stem}{suffix}" if stem else f"{number:06d}{suffix}"
    (folder / name).write_bytes(content)
    return name
