"""What has to be right before a search starts: places, locks, data, cluster, signals (torch-free to import)."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
import uuid
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from petl.counts import BackboneShape, backbone_parameters
from petl.errors import UserError
from petl.hub import read_front_end
from search import environment
from search.mlflow_address import shown
from search.records import SearchRecord
from search.request import Request
from search.resources import Resources, local_resources
from search.space import Space, load_space
from trainables.config import TrialConfig

if TYPE_CHECKING:
    from search.live import View
    from trainables.data import AudioData


def place(request: Request) -> tuple[Path, Space]:
    """The run directory and the space, of a new search or of the one to resume."""
    if request.resume is not None:
        if not request.resume.is_dir():
            raise UserError(f"--resume {request.resume}: there is no such directory")
        if not (request.resume / "space.yaml").is_file():
            raise UserError(f"--resume {request.resume}: not the directory of a search (it holds no space.yaml)")
        return request.resume, load_space(request.resume / "space.yaml", request.overrides)
    if request.space is None:
        raise UserError("say what to search: --space FILE (for example --space spaces/moa.yaml), or --resume DIR")
    space = load_space(request.space, request.overrides)
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    directory = request.output or Path("runs") / f"{space.name}-{stamp}"
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UserError(f"--output {directory} exists already; name another, or continue it with --resume {directory}")
    return directory, space


def check_same_data(directory: Path, earlier: SearchRecord, data: AudioData) -> None:
    """Trials on different recordings cannot be compared."""
    before = earlier.info["data_digest"]
    if before != data.digest:
        raise UserError(
            f"{directory} was searched on other data (digest {before[:12]}, now {data.digest[:12]}): its trials "
            "could not be compared with new ones. Restore the data, or start a new search."
        )


def tracking_uri(request: Request, earlier: SearchRecord | None) -> str:
    """Where runs are tracked: as asked, else as before, else the default."""
    from search.tracking import default_uri, resolve_uri

    before = earlier.info["mlflow"] if earlier else ""
    if request.mlflow or not before:
        return resolve_uri(request.mlflow or default_uri())
    if ":***@" not in before:
        return before
    # Passwords are never written down, so the address of the earlier session is not complete.
    if shown(default_uri()) == before:
        return default_uri()
    raise UserError(f"the search was tracked at {before}; give the address with its password again: --mlflow URI")


def earlier_record(request: Request) -> SearchRecord | None:
    if request.resume is None:
        return None
    from search.journal import read_journal

    return read_journal(request.resume)


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
    if not os.access(parent, os.W_OK):
        raise UserError(
            f"the output directory {directory} cannot be made: {parent} is not writable; choose another --output"
        )
    free = shutil.disk_usage(parent).free
    if free < 200 * 2**20:
        raise UserError(f"only {free / 2**20:.0f} MB are free on the disk of {parent}; a search needs 200 MB at least")


def prepare_data(base: TrialConfig, view: View) -> AudioData:
    from petl.frontend import FrontEnd
    from trainables.data import open_data

    front_end = FrontEnd.from_preprocessor(read_front_end(base.backbone, base.revision))
    view.phase("reading the audio")
    return open_data(
        base.data, front_end, progress=lambda done, total: view.progress(done, total, "computing features")
    )


def cluster(request: Request) -> tuple[Resources, dict[str, Any]]:
    """What there is to run on, and the arguments of `ray.init` that reach it."""
    if request.address is None:
        local = local_resources()
        return local, {"num_cpus": local.cpus, "num_gpus": local.gpus or None}
    import ray

    from search.workforce import connect

    args = {"address": request.address}
    try:
        connect(args)
        total = ray.cluster_resources()
    except (ConnectionError, RuntimeError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"--address {request.address}: no Ray cluster answers there ({first}). "
            "Start one (`ray start --head`), or leave --address out to run on this machine."
        ) from None
    finally:
        ray.shutdown()
    return Resources(int(total.get("CPU", 0)), int(total.get("GPU", 0))), args


@contextlib.contextmanager
def signals() -> Iterator[threading.Event]:
    """SIGINT and SIGTERM ask the search to end; a second one ends the process at once."""
    asked = threading.Event()

    def ask(number: int, frame: Any) -> None:
        if asked.is_set():
            os._exit(130)
        asked.set()

    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)


def facts(
    space: Space, base: TrialConfig, shape: BackboneShape, data: AudioData, mlflow_uri: str, storage: str
) -> dict[str, Any]:
    """What the report, the tracker and a later resume need to know; the keys are tabled in `search.report`."""
    described = data.describe()
    known = environment.versions()
    return {
        "search_id": uuid.uuid4().hex,
        "space": space.source,
        "space_digest": space.digest(),
        "backbone": base.backbone,
        "backbone_revision": base.revision,
        "backbone_params": backbone_parameters(shape, data.front_end.frames),
        "dataset": base.data.dataset,
        "data": base.data.path,
        "data_digest": data.digest,
        "splits": {split: facts["clips"] for split, facts in described["splits"].items()},
        "protocol": described["protocol"],
        "classes": len(data.labels),
        "normalisation": f"mean {data.front_end.mean:.4f}, deviation {data.front_end.std:.4f} ({base.data.normalize})",
        "frames": data.front_end.frames,
        "positions": _positions_note(base, shape, data),
        "bad_files": [{"file": b.name, "reason": f"{b.reason} ({b.detail})"} for b in data.bad_files],
        "epochs": base.epochs,
        "seed": base.seed,
        "mlflow": shown(mlflow_uri),
        "storage": storage,
        "versions": known["versions"],
        "hardware": known["processor"],
        "git_commit": known["git_commit"],
    }


def _positions_note(base: TrialConfig, shape: BackboneShape, data: AudioData) -> str:
    have, want = shape.max_frames, data.front_end.frames
    if have == want:
        return f"as pretrained, for {want} frames"
    how = "set to zero" if base.positions == "zero" else "cut" if want < have else "interpolated"
    return f"{how}: pretrained for {have} frames, used for {want}"


def tags(record: SearchRecord) -> dict[str, str]:
    return {
        "petl.search_id": record.info["search_id"],
        "petl.space_digest": record.info["space_digest"],
        "petl.data_digest": record.info["data_digest"],
        "petl.backbone": record.info["backbone"],
        "petl.dataset": record.info["dataset"],
    }
