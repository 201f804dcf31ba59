"""Features of many clips in one Arrow IPC file: written as a stream, read as memory that all processes share.

The file is ordinary Arrow (columns name, label, features: list<float16>, or list<int16> for waveforms), so that
anything that reads Arrow reads it. Reading maps it into memory; a row is then a view of the file's pages, not a copy.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from trainables.data.clips import Clip
from trainables.data.features import Row

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

_BATCH_BYTES = 16 << 20  # of one record batch: all the memory that writing needs


class BrokenFile(Exception):
    """The file is not whole."""


def write(path: Path, clips: Sequence[Clip], rows: Iterable[Row], storage: str = "float16") -> list[Row]:
    """Write the rows as they come, flushed to the disk; give them back without their features."""
    import pyarrow as pa

    features = pa.list_(pa.type_for_alias(storage))
    schema = pa.schema([("name", pa.string()), ("label", pa.string()), ("features", features)])
    facts: list[Row] = []
    with path.open("wb") as file:
        with pa.ipc.new_file(pa.PythonFile(file), schema) as writer:
            held: list[tuple[Clip, Row]] = []
            size = 0
            for clip, row in zip(clips, rows, strict=True):
                held.append((clip, row))
                size += row.features_TM.nbytes
                if size >= _BATCH_BYTES:
                    facts += _write_batch(writer, schema, held)
                    held, size = [], 0
            if held:
                facts += _write_batch(writer, schema, held)
        file.flush()
        os.fsync(file.fileno())
    return facts


def _write_batch(writer: pa.RecordBatchFileWriter, schema: pa.Schema, held: list[tuple[Clip, Row]]) -> list[Row]:
    import numpy as np
    import pyarrow as pa

    flat = np.concatenate([row.features_TM.reshape(-1) for _, row in held])
    ends = np.cumsum([row.features_TM.size for _, row in held], dtype=np.int32)
    offsets = np.concatenate([np.zeros(1, np.int32), ends])
    writer.write_batch(
        pa.record_batch(
            [
                pa.array([clip.name for clip, _ in held], pa.string()),
                pa.array([clip.label for clip, _ in held], pa.string()),
                pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat, schema.field("features").type.value_type)),
            ],
            schema=schema,
        )
    )
    nothing = np.zeros((0, 0), np.float16)
    return [replace(row, features_TM=nothing) for _, row in held]


class ArrowFeatures:
    """The features of an Arrow file, row by row, without copying: each (T, `width`). Raises `BrokenFile`."""

    def __init__(self, path: Path, width: int, storage: str = "float16") -> None:
        import numpy as np
        import pyarrow as pa
        import torch

        self.width = width
        try:
            with path.open("rb") as file:
                # A private mapping: pages are shared with every process until written, and nobody writes.
                # (Unlike a read-only one, torch may look at it without a warning.)
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            whole = pa.py_buffer(self._map)
            reader = pa.ipc.open_file(pa.BufferReader(whole))
            starts, lengths = [], []
            for number in range(reader.num_record_batches):
                column = reader.get_batch(number).column("features")
                values = column.values
                if values.type != pa.type_for_alias(storage):
                    raise BrokenFile(f"features are {values.type}, not {storage}")
                first = values.buffers()[1].address - whole.address
                offsets = column.offsets.to_numpy().astype(np.int64)
                starts.append(first // 2 + values.offset + offsets[:-1])
                lengths.append(np.diff(offsets))
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            raise BrokenFile(str(error)) from None
        self._starts = np.concatenate(starts) if starts else np.zeros(0, np.int64)
        self._lengths = np.concatenate(lengths) if lengths else np.zeros(0, np.int64)
        if (self._starts + self._lengths > len(self._map) // 2).any() or (self._lengths % width).any():
            raise BrokenFile("rows point outside of the file")
        self._flat = torch.frombuffer(self._map, dtype=getattr(torch, storage), count=len(self._map) // 2)

    def __len__(self) -> int:
        return len(self._starts)

    def rows(self, row: int) -> int:
        """T of one clip."""
        return int(self._lengths[row]) // self.width

    def row(self, row: int, most: int | None = None) -> Tensor:
        """Features (T, M) of one clip as stored, its first `most` rows if given: a view, not to be written."""
        length = int(self._lengths[row])
        if most is not None:
            length = min(length, most * self.width)
        start = int(self._starts[row])
        return self._flat[start : start + length].view(-1, self.width)
