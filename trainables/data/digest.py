"""Which data, exactly: digests of the clips' bytes, and of all else that is said about them (torch-free)."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from trainables.data.clips import Clip
from trainables.data.places import make_folder
from trainables.data.progress import Busy, idle

_Known = dict[str, tuple[int, int, str]]  # name -> (bytes, mtime in ns, content hash)

_AT_ONCE = 1000  # files in the hands of the threads
_SAVE_SECONDS = 60.0
_UNREADABLE = "unreadable"


def content_hashes(
    clips: Sequence[Clip], root: Path, cache_root: Path, workers: int = 1, busy: Busy = idle
) -> list[str]:
    """Hash of every clip's whole file, in the order of the clips.

    Files whose size and modification time are those of last time are not read again, and what was read is remembered
    even when this is interrupted; `busy` is called meanwhile. A file that cannot be read gets a hash that says so:
    whoever decodes it will find out why.
    """
    store = cache_root / "content" / f"{hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:24]}.json"
    # Those that could not be read are tried again: what is wrong with a disk passes without a trace at the file.
    known = {name: found for name, found in _load(store).items() if not found[2].startswith(_UNREADABLE)}
    paths = {clip.name: clip.path for clip in clips}
    stale: list[tuple[str, int, int]] = []
    for name, path in paths.items():
        try:
            stat = os.stat(path)  # noqa: PTH116 - a third of the time of Path.stat, for every clip
        except OSError:
            stale.append((name, -1, -1))
            continue
        if known.get(name, (-1, -1, ""))[:2] != (stat.st_size, stat.st_mtime_ns):
            stale.append((name, stat.st_size, stat.st_mtime_ns))
    if stale:
        _read_anew(stale, paths, known, store, workers, busy)
    return [known[clip.name][2] for clip in clips]


def _read_anew(
    stale: Sequence[tuple[str, int, int]],
    paths: dict[str, Path],
    known: _Known,
    store: Path,
    workers: int,
    busy: Busy,
) -> None:
    """Hash these files and remember them, beside whatever else of this folder is known."""
    saved = time.monotonic()
    try:
        with ThreadPoolExecutor(workers) as pool:
            for first in range(0, len(stale), _AT_ONCE):
                part = stale[first : first + _AT_ONCE]
                hashes = pool.map(_hash_file, [paths[name] for name, _, _ in part])
                for (name, size, changed), digest in zip(part, hashes, strict=True):
                    known[name] = (size, changed, digest)
                    busy()
                if time.monotonic() - saved > _SAVE_SECONDS:
                    _save(store, known)
                    saved = time.monotonic()
    finally:
        _save(store, known)


def data_digest(clips: Sequence[Clip], hashes: Sequence[str], pairs: Collection[Sequence[Any]] = ()) -> str:
    """64 hexadecimal digits that change with any clip's bytes, and with any field of any clip except its path.

    `pairs`: those that a list which comes with the data names, as plain values. No order matters.

    Fields that have their default do not count, so that a field which is new
    to `Clip` changes the digest of those data only that have it.
    """
    fields = [(field.name, field.default) for field in dataclasses.fields(Clip) if field.name != "path"]
    lines = []
    for clip, content in zip(clips, hashes, strict=True):
        given = {name: value for name, default in fields if (value := getattr(clip, name)) != default}
        lines.append(hashlib.sha256(_plain([content, given])).digest())
    named = {hashlib.sha256(_plain(["pair", *pair])).digest() for pair in pairs}
    return hashlib.sha256(b"".join([*sorted(lines), *sorted(named)])).hexdigest()


def features_digest(clips: Sequence[Clip], hashes: Sequence[str]) -> str:
    """64 hexadecimal digits that change with what the features of these clips, in this order, are computed from."""
    return hashlib.sha256(b"".join(clip_keys(clips, hashes))).hexdigest()


def clip_keys(clips: Sequence[Clip], hashes: Sequence[str]) -> list[bytes]:
    """16 bytes per clip that name what its features are computed from: bytes of its file, start and end."""
    return [
        hashlib.sha256(_plain([content, clip.start or 0.0, clip.end])).digest()[:16]
        for clip, content in zip(clips, hashes, strict=True)
    ]


def _plain(values: list[Any]) -> bytes:
    return json.dumps(values, sort_keys=True, default=_sorted).encode()


def _sorted(value: object) -> list[Any]:
    """Sets have no order of their own. Anything else that JSON does not know is refused, not guessed."""
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"a clip holds a {type(value).__name__}, which cannot be digested")


def _hash_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"{_UNREADABLE} {error.errno}"


def _load(store: Path) -> _Known:
    try:
        return {name: (size, time, digest) for name, (size, time, digest) in json.loads(store.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # absent or damaged: it is only a memory of work done, and is done again


def _save(store: Path, found: _Known) -> None:
    make_folder(store.parent)
    temporary = store.with_name(f"{store.name}.{os.getpid()}.tmp")
    with contextlib.suppress(OSError):
        temporary.write_text(json.dumps(found))
        temporary.replace(store)
    with contextlib.suppress(OSError):
        temporary.unlink(missing_ok=True)
