"""Where a run is on shared storage: `<storage>/<name>`, its mirror below `run`, its `checkpoints` (torch-free)."""

from __future__ import annotations

from petl.errors import UserError
from trainables.storage_address import joined, parse


def run_root(storage: str, name: str) -> str:
    """The root of a run on a storage.

    Raises:
        UserError: the storage's address, or the name, cannot be used.
    """
    if "/" in name or name in ("", ".", ".."):
        raise UserError(f"a run on shared storage needs a plain name without '/', not {name!r}")
    return joined(storage, name)


def checkpoints_root(root: str) -> str:
    """Where the checkpoints of the run at a run root are."""
    return joined(root, "checkpoints")


def run_name(root: str) -> str:
    """The name of the run at a run root, unquoted."""
    return parse(root).path.rstrip("/").rpartition("/")[2] or parse(root).bucket
