"""Rows that another cache holds already, because it was built of some of the same files.

Another target of a data set, another subset, or a folder that got ten new files is another list of clips, and so
another cache. What both have in common is copied from the one to the other: that takes a fiftieth of the time of
decoding, and either can be deleted without the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from petl.frontend import FrontEnd
from trainables.data.arrow_file import KEY_BYTES, BrokenFile, RowFiles
from trainables.data.cache_index import INDEX, VERSION, Index
from trainables.data.features import Row
from trainables.data.places import CacheError

if TYPE_CHECKING:
    import numpy as np


class Known:
    """Where rows with these keys are found among the other caches beside `folder`."""

    def __init__(self, folder: Path, front_end: FrontEnd, keys: Sequence[bytes]) -> None:
        import numpy as np

        self._width = front_end.width
        self._storage = front_end.storage
        self._sources: list[tuple[Index, RowFiles]] = []
        wanted = np.array(keys, f"S{KEY_BYTES}")
        self._source = np.full(len(wanted), -1, np.int32)
        self._row = np.zeros(len(wanted), np.int64)
        for other in sorted(folder.parent.glob(f"*-{front_end.digest()}")):
            if other != folder and (self._source < 0).any():
                with suppress(BrokenFile):
                    self._look_into(other, wanted)

    def _look_into(self, folder: Path, wanted: np.ndarray) -> None:
        import numpy as np

        if not (folder / INDEX).is_file():
            return
        index = Index(folder / INDEX)
        # Clips that failed are tried again: it costs little, and the fault may have been the disk's.
        usable = np.flatnonzero(index.facts.length)
        if index.notes.get("version") != VERSION or not len(usable):
            return
        keys = index.keys()[usable]
        order = np.argsort(keys)
        place = np.searchsorted(keys, wanted, sorter=order).clip(max=len(keys) - 1)
        hits = (keys[order[place]] == wanted) & (self._source < 0)
        self._source[hits] = len(self._sources)
        self._row[hits] = usable[order[place[hits]]]
        paths = [folder / name for name, _ in index.shards]
        self._sources.append((index, RowFiles(paths, self._storage, [size for _, size in index.shards])))

    def row(self, number: int, otherwise: Callable[[], Row]) -> Row:
        """The row of the clip with the `number`-th key; `otherwise()` where no cache has it."""
        if self._source[number] < 0:
            return otherwise()
        index, files = self._sources[self._source[number]]
        row = int(self._row[number])
        facts = index.facts
        try:
            values = files.read(int(facts.shard[row]), int(facts.offset[row]), int(facts.length[row]))
        except CacheError:
            return otherwise()
        return Row(features_TM=values.view(-1, self._width).numpy(), **vars(facts[row]))
