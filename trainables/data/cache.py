"""The feature cache: computed once per data set and front end, then shared by all processes of a machine.

`<cache root>/features/<data digest>-<front-end digest>/` holds `features.arrow` (see `arrow_file`) and
`index.json` (facts per clip, bad files). The folder appears under its name by one rename after everything
in it has reached the disk, so that a half-written cache is never taken for a whole one; a lock lets searches
that start together build it once.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from petl.frontend import FrontEnd
from trainables.data.arrow_file import ArrowFeatures, BrokenFile, write
from trainables.data.clips import BadFile, Clip
from trainables.data.features import MAX_FRAMES, Row, extract_all, seconds_of
from trainables.data.places import check_room, make_folder, no_room

if TYPE_CHECKING:
    from torch import Tensor

Progress = Callable[[int, int], None]

_VERSION = 1
_FEATURES, _INDEX = "features.arrow", "index.json"


@dataclass(frozen=True)
class ClipFacts:
    """What is known about the stored features of one clip (see `features.Row`)."""

    frames: int
    seconds: float
    total: float
    squares: float
    silent: bool
    scale: float = 1.0


class FeatureCache:
    """A whole cache, opened. Row numbers are positions in the list of clips it was built from."""

    def __init__(self, folder: Path) -> None:
        try:
            index = json.loads((folder / _INDEX).read_text())
            if index["version"] != _VERSION:
                raise BrokenFile(f"version {index['version']}")
            if (folder / _FEATURES).stat().st_size != index["bytes"]:
                raise BrokenFile("features.arrow has another size than was written")
            self.facts = [ClipFacts(*entry) for entry in index["clips"]]
            self.bad: dict[int, BadFile] = {int(row): BadFile(*entry) for row, entry in index["bad"].items()}
            made = index["front_end"]
            self._whole_numbers = made.get("storage", "float16") == "int16"
            self.features = ArrowFeatures(folder / _FEATURES, made["mel_bins"], made.get("storage", "float16"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BrokenFile(str(error)) from None
        if len(self.features) != len(self.facts):
            raise BrokenFile("features.arrow and index.json hold different numbers of clips")
        self.folder = folder

    def row(self, row: int, most: int | None = None) -> Tensor:
        """What the front end extracted of a clip (T, M), its first `most` rows if given; not to be written."""
        stored_TM = self.features.row(row, most)
        return stored_TM.float().mul_(self.facts[row].scale) if self._whole_numbers else stored_TM

    def mean_std(self, rows: Sequence[int]) -> tuple[float, float]:
        """Mean and deviation of all stored (unpadded) rows of these clips; (0, 0) when there are none."""
        count = sum(self.features.rows(row) for row in rows) * self.features.width
        if not count:
            return 0.0, 0.0
        # fsum is exact, so the order of the rows cannot show in the last digit.
        mean = math.fsum(self.facts[row].total for row in rows) / count
        variance = math.fsum(self.facts[row].squares for row in rows) / count - mean**2
        return mean, math.sqrt(max(variance, 0.0))


def open_cache(
    clips: Sequence[Clip],
    digest: str,
    front_end: FrontEnd,
    cache_root: Path,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> FeatureCache:
    """Open the cache of these clips; build it first when there is none or it is damaged.

    `workers` threads decode (default: every core this process may use); `progress(done, total)` is called
    after every clip of a build. Raises `CacheError` when there is no room or no right to write.
    """
    from filelock import FileLock

    folder = cache_root / "features" / f"{digest[:32]}-{front_end.digest()}"
    found = _whole(folder)
    if found is not None:
        return found
    make_folder(folder.parent)
    with FileLock(f"{folder}.lock"):
        found = _whole(folder)  # somebody else may have built it while we waited
        if found is None:
            _sweep(folder)
            _build(folder, clips, digest, front_end, workers or granted_cores(), progress)
            found = FeatureCache(folder)
    return found


def granted_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _whole(folder: Path) -> FeatureCache | None:
    if not (folder / _INDEX).is_file():
        return None
    try:
        return FeatureCache(folder)
    except BrokenFile:
        return None


def _sweep(folder: Path) -> None:
    """Remove a damaged cache and what killed builds left behind. Only the holder of the lock gets here."""
    for old in (folder, *folder.parent.glob(f"{folder.name}.*.tmp")):
        shutil.rmtree(old, ignore_errors=True)


def _build(
    folder: Path,
    clips: Sequence[Clip],
    digest: str,
    front_end: FrontEnd,
    workers: int,
    progress: Progress | None,
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(workers) as pool:
        lengths = list(pool.map(seconds_of, clips))
    check_room(folder.parent, sum(_stored_bytes(seconds, front_end) for seconds in lengths))
    temporary = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir()
        rows = extract_all(clips, front_end, workers, progress)
        try:
            facts = write(temporary / _FEATURES, clips, rows, front_end.storage)
        finally:
            rows.close()  # type: ignore[attr-defined]
        size = (temporary / _FEATURES).stat().st_size
        _write_index(temporary / _INDEX, clips, digest, front_end, facts, size)
        _flush_folder(temporary)
        temporary.replace(folder)
        _flush_folder(folder.parent)
    except OSError as error:
        raise no_room(folder.parent, error) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_index(
    path: Path, clips: Sequence[Clip], digest: str, front_end: FrontEnd, facts: Sequence[Row], size: int
) -> None:
    index = {
        "version": _VERSION,
        "data_digest": digest,
        "front_end": {
            "sample_rate": front_end.sample_rate,
            "mel_bins": front_end.width,
            "storage": front_end.storage,
        },
        "labels": sorted({clip.label for clip in clips}),
        "bytes": size,
        "bad": {
            str(i): (clip.title, row.reason, row.detail)
            for i, (clip, row) in enumerate(zip(clips, facts, strict=True))
            if row.reason
        },
        "clips": [(row.frames, row.seconds, row.total, row.squares, row.silent, row.scale) for row in facts],
    }
    with path.open("w") as file:
        json.dump(index, file)
        file.flush()
        os.fsync(file.fileno())


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


def _stored_bytes(seconds: float, front_end: FrontEnd) -> int:
    frames = min(MAX_FRAMES, front_end.frames_of(int(seconds * front_end.sample_rate)))
    return 2 * front_end.rows(frames) * front_end.width + 256
