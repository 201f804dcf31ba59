"""One search from its first line to its last: everything is looked at, opened, run (`search.run`), and closed."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from petl.errors import UserError
from search import environment
from search.compute import Compute, compute_for
from search.files import write_files
from search.journal import Journal
from search.mlflow_address import shown
from search.places import (
    Place,
    as_before,
    asked,
    check_output,
    earlier_record,
    only_one,
    place,
    storage_root,
    tracking_uri,
)
from search.plan import backbone_shape
from search.prepare import (
    check_precisions,
    check_same_data,
    check_sampled,
    deadline,
    facts,
    prepare_data,
    tags,
)
from search.records import SearchRecord, Status
from search.request import Interrupted, Outcome, Request
from search.sizes import check_inputs, method_sizes
from search.space import Space, dump
from trainables.config import AugOptions

if TYPE_CHECKING:
    from search.live import View
    from search.mirror import RunMirror

_MARKER = ".here"
_COPIED_S = 120.0  # for the last of the run to reach the shared storage


def run_search(request: Request, view: View) -> Outcome:
    """Carry out a search or continue one.

    Raises:
        UserError: the request is wrong; nothing was written.
        Interrupted: a person stopped it before it had written anything.
    """
    from search.tracking import check

    environment.quiet_libraries()
    found = place(request, view.note)
    earlier = earlier_record(request, found.directory)
    mlflow_uri = tracking_uri(request, earlier)
    check(mlflow_uri)
    check_output(found.directory)
    with ExitStack() as held:
        if earlier:  # at once: what follows takes time, and may start machines
            held.enter_context(only_one(found.directory))
        root = storage_root(request, found, earlier, view.note)
        request = as_before(request, earlier)
        if earlier and _is_over(earlier, found.space):
            return _conclude(found, earlier, root, mlflow_uri, view)
        shared = replace(request, storage=request.storage or root or None)
        compute = compute_for(shared, found.space.budget.trials, view.note)
        return _search(request, found, earlier, root, compute, mlflow_uri, view)


def _search(
    request: Request,
    found: Place,
    earlier: SearchRecord | None,
    root: str,
    compute: Compute,
    mlflow_uri: str,
    view: View,
) -> Outcome:
    from search.mirror import RunMirror, checkpoints_root
    from search.run import Run
    from search.signals import interrupts
    from search.tracking import Tracker
    from search.workforce import Workforce

    directory, space = found.directory, found.space
    base = space.trial_config(space.complete({}))
    shape = backbone_shape(base)
    check_inputs(space, shape)
    check_precisions(space, gpu=compute.plan.gpus > 0)
    checkpoints = checkpoints_root(root) if root else str(directory.resolve() / "checkpoints")
    worker = {
        "storage": checkpoints,
        "marker": _mark(checkpoints) if compute.plan.grows else None,
        "patience": base.train.storage_patience,
        # On a cluster every node has its own place for it.
        "cache_root": None if compute.plan.grows else _cache_root(),
        "monitor": (space.objectives[0].metric, space.objectives[0].mode),
        "precision": base.train.precision,
        "width": shape.hidden,
    }
    with (
        interrupts() as ctrl_c,
        Workforce(compute.ray_args, compute.token, compute.plan, worker, ctrl_c.asked) as workforce,
    ):
        interrupted = ctrl_c.asked
        ctrl_c.at_once.append(workforce.drop)
        waveforms = any(parameter.key in AugOptions.WAVEFORM for parameter in space.params)
        repeats = prepare_data(base, view, interrupted, waveforms=waveforms)
        data = repeats[0]
        if earlier:
            check_same_data(directory, earlier, data)
        if interrupted.is_set():
            raise Interrupted
        # Says now what would fail or be refused in every trial.
        method_sizes(space, shape, data.output, data.front_end.backbone_frames)
        check_sampled(space, data)
        directory.mkdir(parents=True, exist_ok=True)
        with ExitStack() as leaving:
            if earlier:
                info = {**earlier.info, "storage_root": root}
            else:
                leaving.enter_context(only_one(directory))
                info = {**facts(space, base, shape, repeats), **asked(request), "mlflow": shown(mlflow_uri)}
                info["storage_root"] = root
            mirror = RunMirror(root, directory, info["search_id"], notify=view.note) if root else None
            tracker = Tracker(mlflow_uri, space.name, directory, notify=view.note)
            try:
                if mirror is not None:  # first: if the run is somebody else's, nothing of it may change
                    mirror.start()
                (directory / "space.yaml").write_text(dump(space), encoding="utf-8")  # a resumed one: its new budget
                if earlier:
                    journal = Journal.reopen(directory, {"storage_root": root, **asked(request)})
                else:
                    (directory / "journal.jsonl").unlink(missing_ok=True)  # of one that ended before its first word
                    record = SearchRecord(space.name, str(directory), list(space.objectives), info)
                    journal = Journal.create(directory, record)
                leaving.callback(journal.close)
                tracker.start(
                    journal.record, tags=tags(journal.record), params=dict(space.base), dataset=data.describe()
                )
            except UserError:
                if earlier:
                    _close(mirror)
                else:  # the request was wrong: as if it had not been made
                    if mirror is not None:
                        mirror.discard()
                    leaving.close()
                    shutil.rmtree(directory)
                raise
            if mirror is not None:
                journal.grew = mirror.poke
                mirror.poke()
            ctrl_c.at_once.insert(0, lambda: tracker.close("KILLED", patience=2.0))
            outcome = Run(
                space=space,
                base=base,
                shape=shape,
                data=data,
                deadline=deadline(base, len(repeats)),
                journal=journal,
                tracker=tracker,
                view=view,
                plan=compute.plan,
                workforce=workforce,
                checkpoints=checkpoints,
                mirror=mirror,
                interrupted=interrupted,
                end_now=ctrl_c.end_now,
            ).run()
            outcome.problem = outcome.problem or _close(mirror)
            return outcome


def _close(mirror: RunMirror | None) -> str:
    """Let the copy on the shared storage be finished; what to say when it is not."""
    if mirror is None or mirror.close(_COPIED_S) or mirror.taken_over:
        return ""
    return f"the copy of this run at {mirror.root} is not whole: {mirror.behind() or 'the storage does not answer'}"


def _cache_root() -> str:
    from trainables.data import default_cache_root

    return str(default_cache_root())


def _mark(checkpoints: str) -> str:
    """A file beside the checkpoints, by which a worker sees that its place is the same as everybody's."""
    from trainables.storage import Storage

    Storage(checkpoints, patience=15.0).write(_MARKER, b"the checkpoints of a search are here\n")
    return _MARKER


def _is_over(record: SearchRecord, space: Space) -> bool:
    """Whether an earlier session left nothing to do."""
    ended = all(trial.status is not Status.RUNNING for trial in record.trials)
    limit = space.budget.trials
    best = Path(record.directory) / "best"
    others = record.info.get("repeats", [])[1:]
    folders = [best, *(best.with_name(f"best-{title}") for title in others)]
    exported = best.with_suffix(".yaml").is_file() and all((one / "petl_config.json").is_file() for one in folders)
    first = record.ranked()
    # The export may be an earlier session's, of another winner.
    tested = bool(record.test) and bool(first) and record.winner == first[0].id
    return exported and tested and ended and limit is not None and len(record.trials) >= limit


def _conclude(found: Place, record: SearchRecord, root: str, mlflow_uri: str, view: View) -> Outcome:
    """Nothing is left to train: write the files again and deliver what MLflow and the shared storage may still lack."""
    from search.mirror import RunMirror
    from search.tracking import Tracker

    directory, space = found.directory, found.space
    outcome = Outcome(record, directory, best=directory / "best", mlflow_uri=shown(mlflow_uri))
    mirror = RunMirror(root, directory, record.info["search_id"], notify=view.note) if root else None
    if mirror is not None:
        mirror.start()
    with Tracker(mlflow_uri, space.name, directory, notify=view.note) as tracker:
        tracker.start(record, tags=tags(record), params=dict(space.base))
        tracker.finish(record, artifacts=write_files(outcome, space))
    outcome.problem = _close(mirror)
    return outcome
