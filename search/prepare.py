"""What has to be right before a search starts: places, locks, data, cluster, signals (torch-free to import)."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from petl.counts import BackboneShape, backbone_parameters
from petl.errors import ConfigError, UserError
from petl.families import ALIASES, family_of
from petl.hub import read_config
from search import environment
from search.mlflow_address import shown
from search.plan import backbone_shape
from search.records import SearchRecord
from search.request import Interrupted, Request
from search.resources import Resources, local_resources
from search.sizes import fitted
from search.space import Space, load_space, tree
from trainables import precision
from trainables.config import AugOptions, TrialConfig

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
        return request.resume, _same_question(request.resume / "space.yaml", request.overrides)
    if request.space is None:
        raise UserError("say what to search: --space FILE (for example --space spaces/moa.yaml), or --resume DIR")
    space = load_space(request.space, request.overrides).absolute()
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    directory = request.output or Path("runs") / f"{space.name}-{stamp}"
    if directory.exists() and not directory.is_dir():
        raise UserError(f"--output {directory} is a file; name a directory that is to be made")
    if directory.exists() and any(directory.iterdir()):
        raise UserError(f"--output {directory} exists already; name another, or continue it with --resume {directory}")
    return directory, space


def _same_question(file: Path, overrides: dict[str, Any]) -> Space:
    """The space to resume. Only its budget may change: trials under other conditions cannot be compared."""
    before, after = load_space(file), load_space(file, overrides)
    if replace(after, budget=before.budget) != before:
        changed = sorted(key for key in overrides if not key.startswith("budget."))
        raise UserError(
            f"--resume {file.parent} together with other values for {', '.join(changed)}: trials before and after "
            "could not be compared. A resumed search may get another budget (--trials, --time-budget); for anything "
            "else start a new search."
        )
    return after


_KEPT = ("workers_per_trial", "gpus_per_worker", "concurrent", "address", "storage")
"""What a resumed search takes over from the command that began it, unless it is told otherwise."""


def asked(request: Request) -> dict[str, Any]:
    """The part of the request that a later resume takes over."""
    return {"asked": {name: getattr(request, name) for name in _KEPT}}


def as_before(request: Request, earlier: SearchRecord | None) -> Request:
    """The request, completed by what the earlier session was asked for."""
    before = earlier.info.get("asked", {}) if earlier else {}
    missing: dict[str, Any] = {name: before.get(name) for name in _KEPT if getattr(request, name) is None}
    return replace(request, **missing)


def checkpoint_root(request: Request, directory: Path) -> str:
    """Where checkpoints go: checked now, because workers would only find out later.

    Raises:
        UserError: the storage cannot be reached or written.
    """
    if not request.storage:
        return str((directory / "checkpoints").resolve())
    from trainables.checkpoints import open_storage

    root = request.storage if "://" in request.storage else str(Path(request.storage).resolve())
    try:
        filesystem, path = open_storage(root)
        filesystem.create_dir(path, recursive=True)
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"--storage {request.storage} cannot be used: {str(error).splitlines()[0]}") from None
    return root


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
    if not parent.is_dir():
        raise UserError(f"the output directory {directory} cannot be made: {parent} is a file; choose another --output")
    if not os.access(parent, os.W_OK):
        raise UserError(
            f"the output directory {directory} cannot be made: {parent} is not writable; choose another --output"
        )
    free = shutil.disk_usage(parent).free
    if free < 200 * 2**20:
        raise UserError(f"only {free / 2**20:.0f} MB are free on the disk of {parent}; a search needs 200 MB at least")


def prepare_data(
    base: TrialConfig, view: View, interrupted: threading.Event, *, waveforms: bool = False
) -> list[AudioData]:
    """Read the data of every repeat, features from the cache or computed now; Ctrl-C ends it between two clips.

    `waveforms`: some trials will need those, too, even if `base` does not.
    """
    from trainables import checks
    from trainables.opening import open_for

    backbone_shape(base)  # refuses what does not fit the backbone, which computing features would only delay
    view.phase("reading the audio")

    def progress(done: int, total: int) -> None:
        if interrupted.is_set():
            raise Interrupted
        view.progress(done, total, "computing features")

    if waveforms and not base.aug.of_waveform:
        open_for(base.model_copy(update={"aug": AugOptions(gain=1.0)}), progress=progress)
    repeats = open_for(base, progress=progress)
    checks.check(base, repeats[0])
    return repeats


def check_precisions(space: Space, *, gpu: bool) -> None:
    """Look for a number format that cannot be had with, or without, a GPU: fixed, sampled, or a recipe's.

    Raises:
        UserError: names the line of the space.
    """
    asked = [p for p in space.params if p.key in ("recipe", "train.precision")]
    found = [*tree.covering(space.params, ([(p.key, value)] for p in asked for value in p.domain.ends()))]
    if "recipe" in space.base or any(p.key == "recipe" for p in asked):
        found += space.branches()  # what a recipe says may depend on the method
    for params in found:
        try:
            precision.check(space.trial_config(params).train.precision, gpu=gpu)
        except ConfigError as error:
            key = next((key for key in (error.key or "", "recipe") if key in space.lines), "")
            raise UserError(f"{space.where(key)}: {error}") from None


_OF_TASK = frozenset({"aug.gain", "aug.mixup", "aug.roll", "train.balanced"})
"""Options that mean nothing on some data, or to some front ends."""


def check_sampled(space: Space, data: AudioData) -> None:
    """Look for sampled options that mean nothing on these data, before anything is trained.

    Raises:
        UserError: names the line of the space.
    """
    from trainables import augment, checks

    sampled = [p for p in space.params if p.key in _OF_TASK]
    for params in tree.covering(space.params, ([(p.key, value)] for p in sampled for value in p.domain.ends())):
        try:
            config = space.trial_config(params)
            augment.check(config.aug, data.front_end)
            checks.check(config, data)
        except ConfigError as error:
            raise UserError(f"{space.where(error.key or '')}: {error}") from None


def deadline(config: TrialConfig, repeats: int) -> float:
    """Seconds that a command may take: it is carried out for every repeat, one after the other."""
    return config.train.deadline * repeats


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
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    except (ConnectionError, RuntimeError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"--address {request.address}: no Ray cluster answers there ({first}). "
            "Start one (`ray start --head`), or leave --address out to run on this machine."
        ) from None
    finally:
        ray.shutdown()
    if len(nodes) > 1 and not request.storage:
        raise UserError(
            f"the cluster at {request.address} has {len(nodes)} nodes: give a place for checkpoints that all of them "
            "see, --storage PATH (a shared directory) or --storage s3://BUCKET/FOLDER"
        )
    largest = max(int(node.get("CPU", 0)) for node in nodes)
    return Resources(int(total.get("CPU", 0)), int(total.get("GPU", 0)), largest), args


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


def facts(space: Space, base: TrialConfig, shape: BackboneShape, repeats: list[AudioData]) -> dict[str, Any]:
    """What the report, the tracker and a later resume need to know; the keys are tabled in `search.report`.

    `shape` is the checkpoint's.
    """
    data = repeats[0]
    described = data.describe()
    known = environment.versions()
    used = fitted(shape, base, data.front_end.backbone_frames)
    return {
        "search_id": uuid.uuid4().hex,
        "space": space.source,
        "space_digest": space.digest(),
        "backbone": base.backbone,
        "backbone_revision": base.revision,
        "backbone_params": backbone_parameters(used),
        "dataset": base.data.dataset,
        "data": base.data.path,
        "data_digest": data.digest,
        "splits": {split: facts["clips"] for split, facts in described["splits"].items()},
        "target": described["target"],
        "task": described["task"],
        "protocol": protocol_note(repeats),
        "reads_test": described["reads_test"],
        "repeats": [one.title for one in repeats if one.title],
        "classes": len(data.labels),
        "labels_are": data.output.noun,
        "dropped": [{"file": data.dropped_title(i), "reason": why} for i, why in data.dropped],
        "left_out": list(data.plan.left_out),
        "normalisation": f"{data.front_end.normalisation} ({described['normalize']})",
        "frames": data.front_end.frames,
        "positions": positions_note(base, shape, used, data.front_end.frames),
        "bad_files": [{"file": b.name, "reason": f"{b.reason} ({b.detail})"} for b in data.bad_files],
        "epochs": space.max_epochs(),
        "seed": base.seed,
        "versions": known["versions"],
        "hardware": known["processor"],
        "git_commit": known["git_commit"],
    }


def protocol_note(repeats: list[AudioData]) -> str:
    """How the data are split, in a sentence; of several repeats the first one's stands for all.

    It says so where clips that one repeat holds out for the test choose epochs and winner in another.
    """
    first = repeats[0]
    if len(repeats) == 1:
        return first.plan.splits.protocol
    chosen_on = {clip.order for one in repeats for clip in one.clips("val")}
    again = any(clip.order in chosen_on for one in repeats for clip in one.clips("test"))
    note = ", the winner chosen on the mean, so that validation clips of some are test clips of others" if again else ""
    return f"mean over {', '.join(one.title for one in repeats)}{note}; {first.title}: {first.plan.splits.protocol}"


def positions_note(base: TrialConfig, own: BackboneShape, used: BackboneShape, frames: int) -> str:
    """What became of the positions of a checkpoint (`own`) in the backbone that is used, for inputs of `frames`."""
    if own.samples:
        return f"relative: inputs of any length, here of at most {frames} frames of 10 ms"
    if family_of(own.family).layout != "grid":
        if used.max_frames == own.max_frames:
            return f"as pretrained, for {frames} frames"
        return f"the first {used.tokens()} of {own.tokens()}: pretrained for {own.max_frames} frames, used for {frames}"
    config = read_config(base.backbone, base.revision)
    image = config.get("model_type") in ALIASES
    old, new = _image_grid(config, own) if image else own.grid(), used.grid()
    if old == new:
        return f"as pretrained, {_patches(new)} for {frames} frames"
    if base.positions == "zero":
        how = "set to zero"
    else:
        ways: dict[str, list[str]] = {"cut": [], "interpolated": []}
        for axis, have, want in (("time", old[1], new[1]), ("frequency", old[0], new[0])):
            if want != have:
                ways["cut" if want < have else "interpolated"].append(axis)
        how = ", ".join(f"{way} along {' and '.join(axes)}" for way, axes in ways.items() if axes)
    pretrained = "images" if image else f"{own.max_frames} frames"
    return f"{how}: pretrained with {_patches(old)} for {pretrained}, used with {_patches(new)} for {frames} frames"


def _patches(grid: tuple[int, int]) -> str:
    return f"{grid[0]} x {grid[1]} patches"


def _image_grid(config: Mapping[str, Any], shape: BackboneShape) -> tuple[int, int]:
    """Patches of an image model, side by side without overlap: those along its height, those along its width."""
    size = config.get("image_size", 224)
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    return height // shape.patch, width // shape.patch


def tags(record: SearchRecord) -> dict[str, str]:
    return {
        "petl.search_id": record.info["search_id"],
        "petl.space_digest": record.info["space_digest"],
        "petl.data_digest": record.info["data_digest"],
        "petl.backbone": record.info["backbone"],
        "petl.dataset": record.info["dataset"],
    }
