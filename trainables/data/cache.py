"""The feature cache: computed once per front end and list of clips, then shared by all processes of a machine.

`<cache root>/features/<features digest>-<front-end digest>/` holds shards (see `arrow_file`), each the rows of a run
of clips, and `index.arrow` (see `cache_index`), which is written last: a folder without one is not a cache yet, but
the next build goes on from the shards in it (see `cache_build`). A lock lets searches that start together build once.

The features digest covers what features depend on and nothing else: the bytes of the files, which part of each is a
clip, and the order of the clips. Labels, splits and names are not in it, so two targets of a data set (emotion,
speaker) share one folder. Other lists of the same files (a subset, a folder with a few new files) have a folder of
their own, for which rows that exist are copied instead of computed (see `cache_reuse`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from petl.frontend import FrontEnd
from trainables.data.arrow_file import BrokenFile, RowFiles, check_whole
from trainables.data.cache_build import build, rows_done, rows_of
from trainables.data.cache_index import INDEX, VERSION, ClipFacts, Facts, Index
from trainables.data.clips import BadFile, Clip
from trainables.data.cores import granted_cores
from trainables.data.features import AGAIN, extract
from trainables.data.places import make_folder
from trainables.data.progress import Progress

if TYPE_CHECKING:
    from filelock import BaseFileLock
    from torch import Tensor

__all__ = ["ClipFacts", "Facts", "FeatureCache", "Progress", "granted_cores", "open_cache"]

_TRIED = 20  # clips that are decoded to see whether a fault has passed
_GLANCE = 0.5  # seconds between looks at what the process that builds has got done


class FeatureCache:
    """A whole cache, opened. Row numbers are positions in the list of clips it was built from.

    `facts[row]` is what is known about a clip (`facts.frames`, `facts.seconds`, … are NumPy columns of all of them),
    `bad` what cannot be used and why. Raises `BrokenFile`.
    """

    def __init__(self, folder: Path, clips: Sequence[Clip], front_end: FrontEnd) -> None:
        index = Index(folder / INDEX)
        if index.notes.get("version") != VERSION or index.notes.get("front_end") != rows_of(front_end):
            raise BrokenFile("the index is of another version or front end")
        self.width = front_end.width
        self._whole_numbers = front_end.storage == "int16"
        self.facts = index.facts
        if len(self.facts) != len(clips) or (self.facts.length % self.width).any():
            raise BrokenFile("the index does not fit the clips")
        for name, size in index.shards:
            check_whole(folder / name, size)
        self.bad = {row: BadFile(clips[row].title, *found) for row, found in index.bad().items()}
        self.folder = folder
        self._files = RowFiles(
            [folder / name for name, _ in index.shards], front_end.storage, [size for _, size in index.shards]
        )

    def __len__(self) -> int:
        return len(self.facts)

    def stored(self, row: int, most: int | None = None) -> Tensor:
        """Features (T, M) of a clip as they are kept, its first `most` rows if given; a copy."""
        facts = self.facts
        length = int(facts.length[row])
        if most is not None:
            length = min(length, most * self.width)
        return self._files.read(int(facts.shard[row]), int(facts.offset[row]), length).view(-1, self.width)

    def row(self, row: int, most: int | None = None) -> Tensor:
        """What the front end extracted of a clip (T, M), its first `most` rows if given; a copy.

        Raises `CacheError` when the files of the cache were removed or damaged after it was opened.
        """
        stored_TM = self.stored(row, most)
        return stored_TM.float().mul_(float(self.facts.scale[row])) if self._whole_numbers else stored_TM

    def mean_std(self, rows: Sequence[int]) -> tuple[float, float]:
        """Mean and deviation of all stored (unpadded) rows of these clips; (0, 0) when there are none."""
        import numpy as np

        chosen = np.asarray(rows, np.int64)
        count = int(self.facts.length[chosen].sum())
        if not count:
            return 0.0, 0.0
        # fsum is exact, so the order of the rows cannot show in the last digit.
        mean = math.fsum(self.facts.total[chosen]) / count
        variance = math.fsum(self.facts.squares[chosen]) / count - mean**2
        return mean, math.sqrt(max(variance, 0.0))


def open_cache(
    clips: Sequence[Clip],
    digest: str,
    front_end: FrontEnd,
    cache_root: Path,
    *,
    contents: Sequence[str] | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> FeatureCache:
    """Open the cache of these clips; build it first, or what is missing of it, when it is not whole.

    `digest` names the clips: `digest.features_digest`. With `contents`, their `content_hashes`, rows of other caches
    are used where those hold the same files. `workers` threads decode (default: every core this process may use).
    `progress(done, total)` is called after every clip of a build, whoever does it: this process, or another one that
    this one waits for (then as often as that finishes a shard).

    Raises `CacheError` when there is no room or no right to write; what was finished is kept for the next time.
    """
    from filelock import FileLock

    folder = cache_root / "features" / f"{digest[:32]}-{front_end.digest()}"
    found = _whole(folder, clips, front_end)
    if found is not None and not _passed(found, clips, front_end):
        return found
    make_folder(folder.parent)
    lock = FileLock(f"{folder}.lock")
    _acquire(lock, folder, len(clips), progress)
    try:
        found = _whole(folder, clips, front_end)  # somebody else may have built it while we waited
        anew = [] if found is None else _passed(found, clips, front_end)
        if found is None or anew:
            build(folder, clips, front_end, contents, workers or granted_cores(), progress, anew)
            found = FeatureCache(folder, clips, front_end)
    finally:
        lock.release()
    return found


def _passed(cache: FeatureCache, clips: Sequence[Clip], front_end: FrontEnd) -> list[int]:
    """Rows to be computed anew: all whose fault may not be the file's, where the first of them or so can be read now.

    A disk that was away, or memory that was short, must not make good files bad for ever.
    """
    rows = [row for row, bad in sorted(cache.bad.items()) if bad.detail.endswith(AGAIN)]
    return rows if any(not extract(clips[row], front_end).reason for row in rows[:_TRIED]) else []


def _acquire(lock: BaseFileLock, folder: Path, total: int, progress: Progress | None) -> None:
    """Take the lock; meanwhile tell what its holder has done. The system frees the lock of a killed process."""
    from filelock import Timeout

    told = 0
    while True:
        try:
            lock.acquire(timeout=_GLANCE)
            return
        except Timeout:
            done = rows_done(folder)
            if progress is not None and done > told:
                progress(done, total)
                told = done


def _whole(folder: Path, clips: Sequence[Clip], front_end: FrontEnd) -> FeatureCache | None:
    if not (folder / INDEX).is_file():
        return None
    try:
        return FeatureCache(folder, clips, front_end)
    except BrokenFile:
        return None
