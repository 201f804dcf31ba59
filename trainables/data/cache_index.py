"""The index of a feature cache: what is known about each clip and where its features are, mapped into memory.

One Arrow file with a row per clip, so that two million clips open as quickly as two: processes share its pages, and
none holds an object per clip.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from trainables.data.arrow_file import FACTS, KEY_BYTES, BrokenFile

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

INDEX = "index.arrow"
VERSION = 2  # of everything in a cache's folder; raised whenever what is there can no longer be read

_NOTES = b"petl"
_TEXT = ("reason", "detail")


@dataclass(frozen=True)
class ClipFacts:
    """What is known about the stored features of one clip (see `features.Row`)."""

    frames: int
    seconds: float
    total: float
    squares: float
    silent: bool
    truncated: bool
    scale: float


class Facts(Sequence[ClipFacts]):
    """`facts[row]` is one clip; the columns are NumPy arrays of all of them, for whoever needs many.

    `frames` (of 10 ms) and `seconds` are 0 and `length` is 0 for clips that cannot be used. `truncated`: the header
    promises more than the file holds.
    """

    def __init__(self, batch: pa.RecordBatch) -> None:
        def column(name: str) -> np.ndarray:
            return batch.column(name).to_numpy(zero_copy_only=False)  # flags are bits, and have to be copied

        self.frames, self.seconds = column("frames"), column("seconds")
        self.total, self.squares = column("total"), column("squares")
        self.silent, self.truncated = column("silent"), column("truncated")
        self.scale = column("scale")
        # Where the features are: number of the shard, first byte in it, how many numbers.
        self.shard, self.offset, self.length = column("shard"), column("offset"), column("length")

    def __len__(self) -> int:
        return len(self.frames)

    @overload
    def __getitem__(self, row: int) -> ClipFacts: ...
    @overload
    def __getitem__(self, row: slice) -> list[ClipFacts]: ...
    def __getitem__(self, row: int | slice) -> ClipFacts | list[ClipFacts]:
        if isinstance(row, slice):
            return [self[i] for i in range(*row.indices(len(self)))]
        return ClipFacts(
            int(self.frames[row]),
            float(self.seconds[row]),
            float(self.total[row]),
            float(self.squares[row]),
            bool(self.silent[row]),
            bool(self.truncated[row]),
            float(self.scale[row]),
        )


class Index:
    """An index, opened. `notes` is what was written beside the rows. Raises `BrokenFile`."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        try:
            reader = pa.ipc.open_file(pa.memory_map(str(path)))
            self.notes: dict[str, Any] = json.loads((reader.schema.metadata or {})[_NOTES])
            self._batch = reader.get_batch(0)
            self.facts = Facts(self._batch)
            sizes = self.notes["shards"]
            self.shards: list[tuple[str, int]] = [(str(name), int(size)) for name, size in sizes]
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            raise BrokenFile(str(error)) from None
        self._check()

    def _check(self) -> None:
        """No row points outside of its shard."""
        import numpy as np

        facts = self.facts
        if not len(facts):
            return
        if facts.shard.min() < 0 or facts.shard.max() >= len(self.shards):
            raise BrokenFile("the index names shards that do not exist")
        ends = np.array([size for _, size in self.shards])[facts.shard]
        if (facts.offset < 0).any() or (facts.length < 0).any() or (facts.offset + 2 * facts.length > ends).any():
            raise BrokenFile("the index points outside of the shards")

    def keys(self) -> np.ndarray:
        """`digest.clip_keys` of all rows."""
        import numpy as np

        column = self._batch.column("key")
        first = column.offset * KEY_BYTES
        return np.frombuffer(column.buffers()[1], f"S{KEY_BYTES}", len(column), first)

    def bad(self) -> dict[int, tuple[str, str]]:
        """Row -> (reason, detail) of the clips that cannot be used."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        rows = np.flatnonzero(pc.not_equal(self._batch.column("reason"), "").to_numpy(zero_copy_only=False))
        reasons, details = (self._batch.column(name).take(pa.array(rows)).to_pylist() for name in _TEXT)
        return dict(zip(rows.tolist(), zip(reasons, details, strict=True), strict=True))


def write_index(path: Path, shards: Sequence[tuple[str, int, pa.Table]], notes: dict[str, Any]) -> None:
    """Write an index of (name, bytes, facts) of every shard, in the order of the clips; whole or not at all."""
    import numpy as np
    import pyarrow as pa

    parts = [
        facts.append_column("shard", pa.array(np.full(len(facts), number, np.int32)))
        for number, (_, _, facts) in enumerate(shards)
    ]
    [batch] = pa.concat_tables(parts).combine_chunks().to_batches() if parts else [_nothing()]
    notes = notes | {"shards": [(name, size) for name, size, _ in shards]}
    batch = batch.replace_schema_metadata({_NOTES: json.dumps(notes).encode()})
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        with pa.ipc.new_file(pa.PythonFile(file), batch.schema) as writer:
            writer.write_batch(batch)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _nothing() -> pa.RecordBatch:
    import pyarrow as pa

    columns = {"key": pa.binary(KEY_BYTES), **{name: pa.type_for_alias(kind) for name, kind in FACTS.items()}}
    columns |= {"offset": pa.int64(), "length": pa.int64(), "shard": pa.int32()}
    return pa.record_batch([pa.array([], kind) for kind in columns.values()], names=list(columns))
