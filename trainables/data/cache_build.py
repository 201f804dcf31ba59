"""Building a feature cache, or what is missing of one.

The folder fills with shards: each holds the rows of a run of clips and carries their numbers in its name. They are
written one after the other under a temporary name and renamed when their bytes are on the disk, so every shard that
has its name is finished, and whatever clips no shard covers are still to be done: after an interruption, and just so
when a shard is damaged later. The index that makes the folder a cache is written last.

A shard is closed with the clip that takes it past 128 MiB. That is what a killed build loses at most: ten seconds or
so of work per core. Smaller ones would only be more files (half a terabyte of features are 4,000 as it is), larger
ones more to lose. Where the shards end depends on the clips alone, not on threads or interruptions.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from petl.frontend import FrontEnd
from trainables.data.arrow_file import KEY_BYTES, BrokenFile, read_facts, write
from trainables.data.cache_index import INDEX, VERSION, write_index
from trainables.data.cache_reuse import Known
from trainables.data.clips import Clip
from trainables.data.digest import clip_keys
from trainables.data.features import MAX_FRAMES, Row, computed, extract, seconds_of
from trainables.data.places import check_room, no_room
from trainables.data.progress import Progress

if TYPE_CHECKING:
    import pyarrow as pa


_SHARD_BYTES = 128 << 20
_NAME = re.compile(r"(\d{9,})-(\d{9,})\.arrow")  # first row, last row
_AT_ONCE = 10_000  # headers asked for before the answers are added up


def build(
    folder: Path,
    clips: Sequence[Clip],
    front_end: FrontEnd,
    contents: Sequence[str] | None,
    workers: int,
    progress: Progress | None,
    anew: Sequence[int] = (),
) -> None:
    """Make `folder` a whole cache of these clips. Only the holder of its lock may call this.

    Shards that hold one of the rows `anew` are made once more.

    Raises `CacheError` when there is no room or writing fails; finished shards stay.
    """
    try:
        folder.mkdir(exist_ok=True)
        (folder / INDEX).unlink(missing_ok=True)
        shards = _finished(folder, len(clips), front_end)
        for first, last, name in list(shards):
            if any(first <= row <= last for row in anew):
                (folder / name).unlink()
                del shards[first, last, name]
        gaps = _gaps(shards, len(clips))
        if gaps:
            _fill(folder, clips, front_end, contents, gaps, workers, progress)
            shards = _finished(folder, len(clips), front_end)
        if _gaps(shards, len(clips)):
            raise OSError(None, "what was written cannot be read back")
        found = [(name, (folder / name).stat().st_size, facts) for (_, _, name), facts in sorted(shards.items())]
        write_index(folder / INDEX, found, {"version": VERSION, "front_end": rows_of(front_end)})
        _flush_folder(folder)
    except OSError as error:
        raise no_room(folder, error) from None


def rows_of(front_end: FrontEnd) -> dict[str, int | str]:
    """What one has to know of a front end to make sense of its rows."""
    return {"sample_rate": front_end.sample_rate, "width": front_end.width, "storage": front_end.storage}


def rows_done(folder: Path) -> int:
    """Clips that the finished shards hold, by their names alone: what another process has got done."""
    with suppress(OSError):
        return sum(last - first + 1 for first, last in map(_rows_of, os.listdir(folder)) if last >= first)  # noqa: PTH208
    return 0


def _rows_of(name: str) -> tuple[int, int]:
    match = _NAME.fullmatch(name)
    return (int(match[1]), int(match[2])) if match else (0, -1)


def _finished(folder: Path, count: int, front_end: FrontEnd) -> dict[tuple[int, int, str], pa.Table]:
    """Facts of every shard that is whole, by (first row, last row, name); everything else is removed."""
    found: dict[tuple[int, int, str], pa.Table] = {}
    covered = 0
    for path in sorted(folder.iterdir()):
        first, last = _rows_of(path.name)
        with suppress(BrokenFile):
            if covered <= first <= last < count:
                facts = read_facts(path, front_end.storage, _stamp(front_end))
                if len(facts) == last - first + 1:
                    found[first, last, path.name] = facts
                    covered = last + 1
                    continue
        path.unlink()
    return found


def _stamp(front_end: FrontEnd) -> str:
    return f"{VERSION} {front_end.digest()}"


def _gaps(shards: dict[tuple[int, int, str], pa.Table], count: int) -> list[tuple[int, int]]:
    """Runs of rows [first, behind the last) that no shard holds."""
    gaps, done = [], 0
    for first, last, _ in [*sorted(shards), (count, count, "")]:
        if first > done:
            gaps.append((done, first))
        done = last + 1
    return gaps


def _fill(
    folder: Path,
    clips: Sequence[Clip],
    front_end: FrontEnd,
    contents: Sequence[str] | None,
    gaps: Sequence[tuple[int, int]],
    workers: int,
    progress: Progress | None,
) -> None:
    missing = [row for first, behind in gaps for row in range(first, behind)]
    wanted = [clips[row] for row in missing]
    check_room(folder, _needed(wanted, front_end, workers))
    keys = [bytes(KEY_BYTES)] * len(wanted)
    known = None
    if contents is not None:
        keys = clip_keys(wanted, [contents[row] for row in missing])
        known = Known(folder, front_end, keys)
    rows = computed(_jobs(wanted, front_end, known), workers)
    keyed = zip(keys, _told(rows, len(clips) - len(wanted), len(clips), progress), strict=False)
    try:
        for first, behind in gaps:
            while first < behind:
                temporary = folder / f"{first}.{os.getpid()}.tmp"
                try:
                    part = islice(keyed, behind - first)
                    count = write(temporary, part, front_end.storage, _stamp(front_end), _SHARD_BYTES)
                    temporary.replace(folder / f"{first:09d}-{first + count - 1:09d}.arrow")
                finally:
                    temporary.unlink(missing_ok=True)
                _flush_folder(folder)
                first += count
    finally:
        rows.close()


def _jobs(clips: Sequence[Clip], front_end: FrontEnd, known: Known | None) -> Iterator[Callable[[], Row]]:
    for number, clip in enumerate(clips):
        compute = partial(extract, clip, front_end)
        yield compute if known is None else partial(known.row, number, compute)


def _told(rows: Iterator[Row], before: int, total: int, progress: Progress | None) -> Iterator[Row]:
    for done, row in enumerate(rows, before + 1):
        if progress is not None:
            progress(done, total)
        yield row


def _needed(clips: Sequence[Clip], front_end: FrontEnd, workers: int) -> int:
    """Bytes that the features of these clips take, by the headers of the files."""
    total = 0
    with ThreadPoolExecutor(workers) as pool:
        for first in range(0, len(clips), _AT_ONCE):
            for seconds in pool.map(seconds_of, clips[first : first + _AT_ONCE]):
                frames = min(MAX_FRAMES, front_end.frames_of(int(seconds * front_end.sample_rate)))
                total += 2 * front_end.rows(frames) * front_end.width + 256
    return total


def _flush_folder(folder: Path) -> None:
    """Make names and renames in `folder` durable (systems without folder handles do it on their own)."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
