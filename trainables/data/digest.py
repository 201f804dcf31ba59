"""Which data, exactly: a digest of every clip's bytes, label and place in the splits (torch-free)."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from trainables.data.clips import Clip
from trainables.data.places import make_folder

_Known = dict[str, tuple[int, int, str]]  # name -> (bytes, mtime in ns, content hash)


def content_hashes(clips: Sequence[Clip], root: Path, cache_root: Path, workers: int = 1) -> list[str]:
    """Hash of every clip's whole file, in the order of the clips.

    Files whose size and modification time are those of last time are not read again. A file that cannot be
    read gets a hash that says so: whoever decodes it will find out why.
    """
    store = cache_root / "content" / f"{hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:24]}.json"
    known = _load(store)
    paths = {clip.name: clip.path for clip in clips}
    found: _Known = {}
    stale: list[tuple[str, int, int]] = []
    for name, path in paths.items():
        try:
            stat = os.stat(path)  # noqa: PTH116 - a third of the time of Path.stat, for every clip
        except OSError:
            stale.append((name, -1, -1))
            continue
        if known.get(name, (0, 0, ""))[:2] == (stat.st_size, stat.st_mtime_ns):
            found[name] = known[name]
        else:
            stale.append((name, stat.st_size, stat.st_mtime_ns))
    if stale:
        with ThreadPoolExecutor(workers) as pool:
            hashes = pool.map(_hash_file, [paths[name] for name, _, _ in stale])
            for (name, size, time), digest in zip(stale, hashes, strict=True):
                found[name] = (size, time, digest)
        _save(store, found)
    return [found[clip.name][2] for clip in clips]


def data_digest(clips: Sequence[Clip], hashes: Sequence[str]) -> str:
    """64 hexadecimal digits that change with any clip's bytes, name, label, split, fold, group or part."""
    total = hashlib.sha256()
    for clip, content in sorted(zip(clips, hashes, strict=True), key=lambda pair: pair[0].order):
        fields = [clip.name, content, clip.label, clip.split, clip.fold, clip.group, clip.start, clip.end]
        total.update(json.dumps(fields).encode() + b"\n")
    return total.hexdigest()


def _hash_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"unreadable {error.errno}"


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
    temporary.unlink(missing_ok=True)
