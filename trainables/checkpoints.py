"""Checkpoints of one search: safetensors files with the trained tensors, the optimiser's and a few numbers.

Never the frozen backbone, never a pickle. `last` is what a trial continues from, `best` what is evaluated and
exported. Every file carries its epoch and the digest of its content in its name
(`<trial>/last-000012-1f0c….safetensors`): which one is newest needs no reading, and a torn or altered one is known
as such. The two newest of a kind stay, so that there is an older one to fall back on.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from safetensors.torch import load, save

from petl.guarded import unique
from trainables.storage import Storage, StorageError

Kind = Literal["last", "best"]

_NAME = re.compile(r"(last|best)-(\d{6,})-([0-9a-f]{16})\.safetensors")
_HEADER_BYTES = 64 * 2**20


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


class _Version(NamedTuple):
    """A file of a trial, in the order of age."""

    epoch: int
    name: str
    kind: str


class CheckpointStore:
    """Checkpoints by trial id under one root.

    Args:
        root: a directory or URI as `Storage` takes it, or a storage.

    Every method raises `StorageError` when the storage fails for longer than its patience.

    Attributes:
        skipped: files that the latest `read` passed over because they are torn or altered.
    """

    def __init__(self, root: str | Storage) -> None:
        self._storage = Storage(root) if isinstance(root, str) else root
        self.root = self._storage.root
        self.skipped: list[str] = []
        self._torn: set[str] = set()  # a file's name says what its content must be: torn once is torn for good
        self._known: dict[tuple[str, Kind], list[_Version]] = {}

    def write(self, trial: str, kind: Kind, checkpoint: Checkpoint) -> None:
        """Add a checkpoint of epoch `meta["epoch"]` (0 where it names none) and drop all but the two newest."""
        epoch = int(checkpoint.meta.get("epoch", 0))
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
        data = save(tensors, metadata={"petl": json.dumps(checkpoint.meta)})
        name = f"{kind}-{epoch:06d}-{hashlib.sha256(data).hexdigest()[:16]}.safetensors"
        self._storage.write(f"{trial}/{name}", data)
        written = _Version(epoch, name, kind)
        self._torn.discard(f"{trial}/{name}")
        try:
            self._tidy(trial, kind, written)
        except StorageError:  # written it is; what could not be tidied goes next time
            self._known.clear()

    def read(self, trial: str, kind: Kind, accept: Callable[[dict[str, Any]], bool] | None = None) -> Checkpoint | None:
        """The newest checkpoint that is whole, None when there is none.

        Args:
            accept: is given a checkpoint's `meta`; those for which it is false are passed over.
        """
        self.skipped = []
        for version in reversed(self._versions(trial, kind)):
            checkpoint = self._open(trial, version)
            if checkpoint is not None and (accept is None or accept(checkpoint.meta)):
                return checkpoint
        return None

    def prune(self, trial: str) -> None:
        """Drop what a finished trial no longer needs: every `last`, and every `best` but the two newest whole ones.

        Where there is no `best` at all (no epoch's metric was a number), `last` is all there is, and stays.
        """
        best = self._versions(trial, "best")
        drop = self._versions(trial, "last") if best else []
        if len(best) > 2:
            whole = [version for version in reversed(best) if self._open(trial, version) is not None][:2]
            drop += [version for version in best if version not in whole]
        for version in drop:
            self._storage.delete(f"{trial}/{version.name}")
        self._known.clear()

    def disown(self, trial: str, accept: Callable[[dict[str, Any]], bool]) -> None:
        """Drop the whole checkpoints of either kind whose `meta` is not accepted; reads every one."""
        kinds: tuple[Kind, ...] = ("last", "best")
        for kind in kinds:
            for version in self._versions(trial, kind):
                checkpoint = self._open(trial, version)
                if checkpoint is not None and not accept(checkpoint.meta):
                    self._storage.delete(f"{trial}/{version.name}")
        self._known.clear()

    def _versions(self, trial: str, kind: Kind) -> list[_Version]:
        """The files of a kind, oldest first."""
        found = [match for match in map(_NAME.fullmatch, self._storage.names(trial)) if match]
        return sorted(_Version(int(m[2]), m[0], m[1]) for m in found if m[1] == kind)

    def _open(self, trial: str, version: _Version) -> Checkpoint | None:
        path = f"{trial}/{version.name}"
        if path in self._torn:
            self.skipped.append(version.name)
            return None
        data = self._storage.read(path)
        if data is None:  # dropped since it was listed
            return None
        digest = hashlib.sha256(data).hexdigest()[:16]
        checkpoint = parse(data) if version.name.endswith(f"-{digest}.safetensors") else None
        if checkpoint is None or checkpoint.meta.get("epoch", 0) != version.epoch:
            self._torn.add(path)
            self.skipped.append(version.name)
            return None
        return checkpoint

    def _tidy(self, trial: str, kind: Kind, written: _Version) -> None:
        """Keep what was just written and the newest before it that is not known to be torn.

        Files of later epochs stay, unless torn: they belong to somebody who is ahead, or are passed in time.
        """
        known = self._known.get((trial, kind))
        if known is None:  # listed once per trial: afterwards this store knows what it wrote
            if any(other != trial for other, _ in self._known):
                self._known.clear()
            known = self._versions(trial, kind)
        kept: list[_Version] = []
        spare = False
        for version in sorted({*known, written}, reverse=True):
            torn = f"{trial}/{version.name}" in self._torn
            older = version.epoch < written.epoch
            if version == written or (version.epoch > written.epoch and not torn):
                kept.append(version)
            elif older and not torn and not spare:
                spare = True
                kept.append(version)
            else:
                self._storage.delete(f"{trial}/{version.name}", patience=0.0)
        self._known[trial, kind] = kept


def parse(data: bytes) -> Checkpoint | None:
    """A checkpoint from the bytes of its file; None when they are not one, whatever they are."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(len(data) - 8, _HEADER_BYTES):
        return None
    try:
        tensors = load(data)  # checks the header's structure before anything of it is kept
        header = json.loads(data[8 : 8 + length], object_pairs_hook=unique)
        meta = json.loads(header["__metadata__"]["petl"], object_pairs_hook=unique)
    except Exception:  # bytes that a stranger may have made: which error they provoke does not matter
        return None
    return Checkpoint(tensors, meta) if isinstance(meta, dict) else None
