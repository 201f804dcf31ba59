"""Features of many clips in Arrow IPC files: written as a stream, read row by row.

Such a file ("shard") is ordinary Arrow, one row per clip: `key` (see `digest.clip_keys`), the facts of `features.Row`,
and `features`: list<float16>, or list<int16> for waveforms. Anything that reads Arrow reads it, and it says all that
is known about its clips.

Rows are read with positioned reads into memory of their own, not through a mapping of the file. That costs about the
same as long as the file is in the page cache, and much less than a plain mapping when it has to come from the disk, for
the system is asked for the whole row at once instead of page by page (`benchmarks/cache_streaming.py`). A process then
also holds no more memory after an epoch than before, and a file that is cut short under it is an error, not a fatal
signal.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Sequence
from functools import lru_cache
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

from trainables.data.features import Row
from trainables.data.places import CacheError

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

KEY_BYTES = 16
FACTS = {
    "frames": "int32",
    "seconds": "double",
    "total": "double",
    "squares": "double",
    "silent": "bool",
    "truncated": "bool",
    "scale": "double",
    "reason": "string",
    "detail": "string",
}
"""Column -> Arrow type of what is known about a clip; the names are those of `features.Row`."""

_BATCH_BYTES = 16 << 20  # of one record batch: all the memory that writing needs
_OPEN_FILES = 512  # at most; every second or third user meets a limit of 1024 per process
_ITEM = 2  # bytes of a stored number
_MAGIC = b"ARROW1"
_STAMP = b"petl"


class BrokenFile(Exception):
    """The file is not whole, or not what it should be."""


def write(path: Path, rows: Iterable[tuple[bytes, Row]], storage: str, stamp: str, most: int) -> int:
    """Write (key, row) as they come until `most` bytes are reached or `rows` ends; return how many.

    Everything is on the disk when this returns. `stamp` is what `read_facts` will want to see.
    """
    import pyarrow as pa

    fields = [("key", pa.binary(KEY_BYTES)), *((name, pa.type_for_alias(kind)) for name, kind in FACTS.items())]
    schema = pa.schema([*fields, ("features", pa.list_(pa.type_for_alias(storage)))], {_STAMP: stamp.encode()})
    count = total = 0
    with path.open("wb") as file:
        with pa.ipc.new_file(pa.PythonFile(file), schema) as writer:
            held: list[tuple[bytes, Row]] = []
            size = 0
            for key, row in rows:
                held.append((key, row))
                count += 1
                size += row.features_TM.nbytes
                if size >= _BATCH_BYTES or total + size >= most:
                    _write_batch(writer, schema, held)
                    total, size, held = total + size, 0, []
                    if total >= most:
                        break
            if held:
                _write_batch(writer, schema, held)
        file.flush()
        os.fsync(file.fileno())
    return count


def _write_batch(writer: pa.RecordBatchFileWriter, schema: pa.Schema, held: Sequence[tuple[bytes, Row]]) -> None:
    import numpy as np
    import pyarrow as pa

    flat = np.concatenate([row.features_TM.reshape(-1) for _, row in held])
    ends = np.cumsum([row.features_TM.size for _, row in held], dtype=np.int32)
    offsets = np.concatenate([np.zeros(1, np.int32), ends])
    columns = [pa.array([key for key, _ in held], schema.field("key").type)]
    columns += [pa.array([getattr(row, name) for _, row in held], schema.field(name).type) for name in FACTS]
    values = pa.array(flat, schema.field("features").type.value_type)
    columns.append(pa.ListArray.from_arrays(pa.array(offsets), values))
    writer.write_batch(pa.record_batch(columns, schema=schema))


def read_facts(path: Path, storage: str, stamp: str) -> pa.Table:
    """Every column but the features, and where those are: `offset` in bytes, `length` in numbers.

    Raises `BrokenFile` for a file that is damaged, cut short, or carries another stamp.
    """
    import numpy as np
    import pyarrow as pa

    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        whole = pa.py_buffer(mapped)
        reader = pa.ipc.open_file(pa.BufferReader(whole))
        if (reader.schema.metadata or {}).get(_STAMP) != stamp.encode():
            raise BrokenFile(f"{path.name} was written by another version or for another front end")
        parts = []
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            column = batch.column("features")
            values = column.values
            if values.type != pa.type_for_alias(storage):
                raise BrokenFile(f"features are {values.type}, not {storage}")
            first = values.buffers()[1].address - whole.address if len(values) else 0
            offsets = column.offsets.to_numpy().astype(np.int64)
            table = pa.Table.from_batches([batch.select(["key", *FACTS])]).replace_schema_metadata(None)
            table = table.append_column("offset", pa.array(first + _ITEM * (values.offset + offsets[:-1])))
            table = table.append_column("length", pa.array(np.diff(offsets)))
            parts.append(table)
        found = _unmapped(pa.concat_tables(parts)) if parts else None
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise BrokenFile(str(error)) from None
    if found is None:
        raise BrokenFile(f"{path.name} holds no clips")
    return found


def _unmapped(table: pa.Table) -> pa.Table:
    """A copy, so that no column keeps the file mapped."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return pa.ipc.open_stream(sink.getvalue()).read_all()


def check_whole(path: Path, size: int) -> None:
    """`BrokenFile` unless the file has this many bytes and ends as a finished Arrow file does."""
    try:
        with path.open("rb", buffering=0) as file:
            found = os.fstat(file.fileno()).st_size
            tail = os.pread(file.fileno(), len(_MAGIC), max(0, found - len(_MAGIC)))
    except OSError as error:
        raise BrokenFile(f"{path.name}: {error.strerror}") from None
    if found != size or tail != _MAGIC:
        raise BrokenFile(f"{path.name} is cut short or overwritten")


class RowFiles:
    """Numbers out of shards. Many threads may read at once; some hundred files are kept open."""

    def __init__(self, paths: Sequence[Path], storage: str, sizes: Sequence[int] | None = None) -> None:
        self._paths, self._sizes = paths, sizes
        self._storage = storage
        # Whoever reads holds the file, so one that falls out of the cache is closed after the last read.
        self._file = lru_cache(maxsize=_most_open())(self._opened)

    def _opened(self, number: int) -> FileIO:
        file = self._paths[number].open("rb", buffering=0)
        if self._sizes is not None and os.fstat(file.fileno()).st_size != self._sizes[number]:
            file.close()
            raise OSError(None, "it was written anew")
        if hasattr(os, "posix_fadvise"):  # what follows a row is not the next one to be asked for
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        return file

    def read(self, number: int, offset: int, count: int) -> Tensor:
        """`count` stored numbers from byte `offset` of file `number` on: a tensor that belongs to the caller.

        Raises `CacheError` when they are not there any more.
        """
        import torch

        values = torch.empty(count, dtype=getattr(torch, self._storage))
        left = values.numpy().data.cast("B") if count else memoryview(b"")
        try:
            file = self._file(number)
            while len(left):
                done = os.preadv(file.fileno(), [left], offset)
                if not done:
                    raise OSError(None, "it ends too early")
                left, offset = left[done:], offset + done
        except OSError as error:
            raise CacheError(
                f"{self._paths[number]}, a part of the feature cache, can no longer be read ({error.strerror}): it was "
                "removed or damaged while it was in use. Start again; what is missing is then computed once more"
            ) from None
        return values


def _most_open() -> int:
    try:
        import resource
    except ImportError:
        return 64
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _OPEN_FILES if limit == resource.RLIM_INFINITY else max(8, min(_OPEN_FILES, limit // 4))
