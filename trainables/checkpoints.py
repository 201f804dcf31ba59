"""Checkpoints of one search: safetensors files with the trained tensors, the optimiser's and a few numbers.

Never the frozen backbone, never a pickle. `last` is what a trial continues from, `best` what is evaluated and
exported; both are written to a temporary name and moved, so a reader sees a whole file or none. The place is
any pyarrow filesystem: a local or shared directory, or an object store.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from pyarrow import fs as pafs
from safetensors import SafetensorError
from safetensors.torch import load, save

Kind = Literal["last", "best"]


@dataclass
class Checkpoint:
    """Tensors by name (`model/...`, `optimizer/...`) and what must be known to go on from them."""

    tensors: dict[str, torch.Tensor]
    meta: dict[str, Any] = field(default_factory=dict)

    def part(self, prefix: str) -> dict[str, torch.Tensor]:
        """The tensors under `prefix/`, without it."""
        return under(self.tensors, prefix)


def under(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Those whose names begin with `prefix/`, without it."""
    return {n.removeprefix(prefix + "/"): t for n, t in tensors.items() if n.startswith(prefix + "/")}


class CheckpointStore:
    """Checkpoints by trial id under one root: `<root>/<trial>/last.safetensors`."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._fs, self._path = open_storage(root)

    def write(self, trial: str, kind: Kind, checkpoint: Checkpoint) -> None:
        folder = f"{self._path}/{trial}"
        self._fs.create_dir(folder, recursive=True)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
        data = save(tensors, metadata={"petl": json.dumps(checkpoint.meta)})
        # A name of its own: a retried trial may overlap with the group that was given up on.
        unfinished = f"{folder}/{kind}-{uuid.uuid4().hex}.tmp"
        with self._fs.open_output_stream(unfinished) as stream:
            stream.write(data)
        self._fs.move(unfinished, f"{folder}/{kind}.safetensors")

    def read(self, trial: str, kind: Kind) -> Checkpoint | None:
        """The checkpoint, or None when there is none or it is not whole."""
        path = f"{self._path}/{trial}/{kind}.safetensors"
        if self._fs.get_file_info(path).type != pafs.FileType.File:
            return None
        with self._fs.open_input_stream(path) as stream:
            data = stream.read()
        try:
            length = int.from_bytes(data[:8], "little")
            header = json.loads(data[8 : 8 + length])
            return Checkpoint(load(data), json.loads(header["__metadata__"]["petl"]))
        except (SafetensorError, KeyError, ValueError):
            return None

    def drop(self, trial: str, kind: Kind) -> None:
        """Remove a checkpoint that nobody needs any more; one that is not there is fine."""
        path = f"{self._path}/{trial}/{kind}.safetensors"
        if self._fs.get_file_info(path).type == pafs.FileType.File:
            self._fs.delete_file(path)


def open_storage(root: str) -> tuple[pafs.FileSystem, str]:
    """A pyarrow filesystem and the path in it, from a local path or a URI (`s3://`, `gs://`, `file://`)."""
    if "://" in root:
        return pafs.FileSystem.from_uri(root)
    return pafs.LocalFileSystem(), root
