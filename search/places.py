"""Where a search is: its run directory, its place on shared storage, who else may be at it (torch-free).

A run directory may be new, one to continue, or one that another machine left on shared storage.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from shlex import quote
from typing import Any

from filelock import FileLock, Timeout

from petl.errors import UserError
from search.mlflow_address import complete, shown, trusted
from search.records import SearchRecord
from search.request import Request
from search.space import Space, load_space
from trainables.config import WHEREABOUTS

_OF_NOTHING = frozenset({".lock", "space.yaml", "journal.jsonl"})
"""What a run directory holds whose search ended before its first word."""


@dataclass(frozen=True)
class Place:
    """Where a search is: its run directory, its space, and where it was brought from ("": it is of this machine)."""

    directory: Path
    space: Space
    fetched: str = ""


def place(request: Request, note: Callable[[str], None] = lambda _: None) -> Place:
    """The run directory and the space, of a new search or of the one to resume.

    One that was begun on another machine is brought from what that left on the shared storage.
    """
    if request.resume is not None:
        directory, fetched = _at_hand(request.resume, request.output, note)
        return Place(directory, _same_question(directory / "space.yaml", request.overrides), fetched)
    if request.space is None:
        raise UserError("say what to search: --space FILE (for example --space spaces/moa.yaml), or --resume DIR")
    space = load_space(request.space, request.overrides).absolute()
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    directory = request.output or Path("runs") / f"{space.name}-{stamp}"
    if directory.exists() and not directory.is_dir():
        raise UserError(f"--output {directory} is a file; name a directory that is to be made")
    if directory.exists() and not _says_nothing(directory):
        raise UserError(
            f"--output {directory} exists already; name another, or continue it with --resume {quote(str(directory))}"
        )
    return Place(directory, space)


def _says_nothing(directory: Path) -> bool:
    journal = directory / "journal.jsonl"
    if journal.is_file() and b"\n" in journal.read_bytes():
        return False
    return {path.name for path in directory.iterdir()} <= _OF_NOTHING


def _at_hand(resume: str, output: Path | None, note: Callable[[str], None]) -> tuple[Path, str]:
    """The directory to resume, here, and where it was fetched from."""
    directory = Path(resume)
    mirrored = "://" in resume or (directory / "run" / "search.json").is_file()
    if mirrored and not (directory / "journal.jsonl").is_file():
        from search.mirror import fetch, run_name

        return fetch(resume, output or Path("runs") / run_name(resume), notify=note), resume
    if output is not None:
        raise UserError(f"--output {output}: a search that is resumed here stays in its directory, {directory}")
    if not directory.is_dir():
        raise UserError(f"--resume {directory}: there is no such directory")
    if not (directory / "space.yaml").is_file():
        raise UserError(f"--resume {directory}: not the directory of a search (it holds no space.yaml)")
    return directory, ""


def _same_question(file: Path, overrides: dict[str, Any]) -> Space:
    """The space to resume. Only its budget may change: trials under other conditions cannot be compared."""
    before, after = load_space(file), load_space(file, overrides)
    # That recordings in another place are the same ones is checked later (`prepare.check_same_data`).
    same = {key: value for key, value in after.base.items() if key not in WHEREABOUTS}
    same |= {key: before.base[key] for key in WHEREABOUTS if key in before.base}
    if replace(after, budget=before.budget, base=same) != before:
        changed = sorted(key for key in overrides if not key.startswith("budget.") and key not in WHEREABOUTS)
        raise UserError(
            f"--resume {file.parent} together with other values for {', '.join(changed)}: trials before and after "
            "could not be compared. A resumed search may get another budget (--trials, --time-budget), find its "
            "recordings in another place (--data), wait for longer (train.deadline, train.storage_patience) and load "
            "with other threads (train.loaders); for anything else start a new search."
        )
    return after


_SIZES = ("workers_per_trial", "gpus_per_worker", "cpus_per_worker", "concurrent")


def asked(request: Request) -> dict[str, Any]:
    """The part of the request that a later resume takes over."""
    return {"asked": {name: getattr(request, name) for name in (*_SIZES, "address", "storage")}}


def as_before(request: Request, earlier: SearchRecord | None) -> Request:
    """The request, completed by what the earlier session was asked for, as far as that suits the present one.

    The cluster is not: it may be gone, and a search is resumed on this machine unless `--address` says otherwise. How
    large workers are is taken over where both run on a cluster, or both do not.
    """
    before = earlier.info.get("asked", {}) if earlier else {}
    if (before.get("address") is None) != (request.address is None):
        return request
    missing: dict[str, Any] = {name: before.get(name) for name in _SIZES if getattr(request, name) is None}
    return replace(request, **missing)


def storage_root(request: Request, found: Place, earlier: SearchRecord | None, note: Callable[[str], None]) -> str:
    """Where the search keeps what has to outlive this machine: a folder of its own in `--storage`; "" without one.

    Checked now, because workers would only find out later, and whether no other driver is at it. A search that was
    begun without gets its checkpoints copied there.

    Raises:
        UserError: the storage cannot be reached or written, another driver is at the run, or the resumed search has
            its checkpoints elsewhere.
    """
    before: str = found.fetched or (earlier.info.get("storage_root", "") if earlier else "")
    if not before and not request.storage:
        return ""
    from search.mirror import ensure_free, run_name, run_root
    from trainables.storage import Storage

    root = before
    if request.storage:
        root = run_root(request.storage, run_name(before) if before else found.directory.name)
        if before and Storage(root).root != Storage(before).root:
            raise UserError(
                f"--storage {request.storage}: the checkpoints of this search are in {before}; it goes on there. "
                "Leave --storage out."
            )
    Storage(root, patience=15.0).check()
    if earlier:
        ensure_free(root, note)
        if not before:
            _bring(found.directory / "checkpoints", root, note)
    return root


def _bring(checkpoints: Path, root: str, note: Callable[[str], None]) -> None:
    """Copy the checkpoints of a search that was begun on this machine alone."""
    from search.mirror import checkpoints_root
    from trainables.storage import Storage

    files = sorted(path for path in checkpoints.rglob("*.safetensors"))
    if files:
        note(f"copying {len(files)} checkpoints to {root}")
    target = Storage(checkpoints_root(root))
    for file in files:
        target.write(file.relative_to(checkpoints).as_posix(), file.read_bytes())


def tracking_uri(request: Request, earlier: SearchRecord | None) -> str:
    """Where runs are tracked: as asked, else as before, else the default."""
    from search.tracking import default_uri, resolve_uri

    before = earlier.info["mlflow"] if earlier else ""
    if request.mlflow or not before:
        return resolve_uri(request.mlflow or default_uri())
    if complete(before):
        return trusted(before)
    # Passwords are never written down, so the address of the earlier session is not complete.
    if shown(default_uri()) == before:
        return default_uri()
    raise UserError(f"the search was tracked at {before}; give the address with its password again: --mlflow URI")


def earlier_record(request: Request, directory: Path) -> SearchRecord | None:
    if request.resume is None:
        return None
    from search.journal import read_journal

    return read_journal(directory)


@contextlib.contextmanager
def only_one(directory: Path) -> Iterator[None]:
    """Two drivers on one run directory would write over each other."""
    lock = FileLock(directory / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"{directory} is being searched by another process; wait for it or stop it first") from None
    try:
        yield
    finally:
        lock.release()


def check_output(directory: Path) -> None:
    """Refuse before any work when the output cannot be written or the disk is all but full."""
    parent = directory if directory.exists() else directory.parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise UserError(f"the output directory {directory} cannot be made: {parent} is a file; choose another --output")
    if not os.access(parent, os.W_OK):
        raise UserError(
            f"the output directory {directory} cannot be made: {parent} is not writable; choose another --output"
        )
    free = shutil.disk_usage(parent).free
    if free < 200 * 2**20:
        raise UserError(f"only {free / 2**20:.0f} MB are free on the disk of {parent}; a search needs 200 MB at least")
