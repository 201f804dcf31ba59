"""One search from its first line to its last: prepare, run under Ray Tune, choose, evaluate, export, report."""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petl.counts import BackboneShape
from petl.errors import UserError
from search import environment
from search.files import Artifact, write_files
from search.journal import Journal
from search.mlflow_address import shown
from search.plan import backbone_shape
from search.prepare import (
    as_before,
    asked,
    check_output,
    check_precisions,
    check_same_data,
    check_sampled,
    checkpoint_root,
    cluster,
    deadline,
    earlier_record,
    facts,
    only_one,
    place,
    prepare_data,
    signals,
    tags,
    tracking_uri,
)
from search.records import SearchRecord, Status, TrialRecord
from search.request import Interrupted, Outcome, Request
from search.resources import GroupPlan, plan_groups
from search.sizes import check_inputs, method_sizes, trainable_params
from search.space import Space, dump
from trainables.config import AugOptions, TrialConfig

if TYPE_CHECKING:
    from search.groups import Groups
    from search.live import View
    from search.scheduler import Asha
    from search.tracking import Tracker
    from search.workforce import Workforce
    from trainables.data import AudioData

_log = logging.getLogger(__name__)

_SLOW_START_S = 90.0


def run_search(request: Request, view: View) -> Outcome:
    """Carry out a search or continue one.

    Raises:
        UserError: the request is wrong; nothing was written.
        Interrupted: a person stopped it before it had written anything.
    """
    from search.tracking import Tracker, check
    from search.workforce import Workforce
    from trainables.data import default_cache_root

    environment.quiet_libraries()
    directory, space = place(request)
    earlier = earlier_record(request)
    base = space.trial_config(space.complete({}))
    shape = backbone_shape(base)
    check_inputs(space, shape)
    mlflow_uri = tracking_uri(request, earlier)
    check(mlflow_uri)
    check_output(directory)
    request = as_before(request, earlier)
    checkpoints = checkpoint_root(request, directory)
    available, ray_args = cluster(request)
    plan = plan_groups(
        available,
        workers_per_trial=request.workers_per_trial or 1,
        gpus_per_worker=request.gpus_per_worker,
        concurrent=request.concurrent,
        trials=space.budget.trials,
    )
    if earlier and _is_over(earlier, space):
        return _conclude(directory, earlier, space, mlflow_uri, view)
    check_precisions(space, gpu=plan.gpus > 0)
    worker = {
        "storage": checkpoints,
        "cache_root": str(default_cache_root()),
        "monitor": (space.objectives[0].metric, space.objectives[0].mode),
        "precision": base.train.precision,
        "width": shape.hidden,
    }
    with signals() as interrupted, Workforce(ray_args, plan, worker, interrupted) as workforce:
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
        with only_one(directory):
            (directory / "space.yaml").write_text(dump(space), encoding="utf-8")  # a resumed one: its new budget
            if earlier:
                journal = Journal.reopen(directory)
            else:
                info = {**facts(space, base, shape, repeats), **asked(request), "mlflow": shown(mlflow_uri)}
                record = SearchRecord(space.name, str(directory), list(space.objectives), info)
                journal = Journal.create(directory, record)
            tracker = Tracker(mlflow_uri, space.name, directory, notify=view.note)
            try:
                begin_tracking(tracker, journal.record, space, data)
            except UserError:
                if not earlier:
                    journal.close()
                    shutil.rmtree(directory)  # the request was wrong: as if it had not been made
                raise
            return _Search(
                space=space,
                base=base,
                shape=shape,
                data=data,
                deadline=deadline(base, len(repeats)),
                journal=journal,
                tracker=tracker,
                view=view,
                plan=plan,
                workforce=workforce,
                checkpoints=checkpoints,
                interrupted=interrupted,
            ).run()


def begin_tracking(tracker: Tracker, record: SearchRecord, space: Space, data: AudioData) -> None:
    """Find or make the search's runs in MLflow.

    Raises:
        UserError: the store cannot be used.
    """
    tracker.start(record, tags=tags(record), params=dict(space.base), dataset=data.describe())


def _is_over(record: SearchRecord, space: Space) -> bool:
    """Whether an earlier session left nothing to do."""
    ended = all(trial.status is not Status.RUNNING for trial in record.trials)
    limit = space.budget.trials
    best = Path(record.directory) / "best"
    others = record.info.get("repeats", [])[1:]
    folders = [best, *(best.with_name(f"best-{title}") for title in others)]
    exported = best.with_suffix(".yaml").is_file() and all((one / "petl_config.json").is_file() for one in folders)
    return exported and bool(record.test) and ended and limit is not None and len(record.trials) >= limit


def _conclude(directory: Path, record: SearchRecord, space: Space, mlflow_uri: str, view: View) -> Outcome:
    """Nothing is left to train: write the files again and deliver what MLflow may still lack."""
    from search.tracking import Tracker

    outcome = Outcome(record, directory, best=directory / "best", mlflow_uri=shown(mlflow_uri))
    with (
        only_one(directory),
        Tracker(mlflow_uri, space.name, directory, notify=view.note) as tracker,
    ):
        tracker.start(record, tags=tags(record), params=dict(space.base))
        tracker.finish(record, artifacts=write_files(outcome, space))
    return outcome


@dataclass
class _Search:
    """The parts of one running search, and the order in which they start and end."""

    space: Space
    base: TrialConfig  # the configuration with every parameter at its default
    shape: BackboneShape  # the checkpoint's
    data: AudioData  # of the first repeat
    deadline: float  # seconds, of a command
    journal: Journal
    tracker: Tracker
    view: View
    plan: GroupPlan
    workforce: Workforce
    checkpoints: str
    interrupted: threading.Event

    def __post_init__(self) -> None:
        from search.control import Stop

        self.record = self.journal.record
        self.directory = Path(self.record.directory)
        self._spent = self.record.seconds  # by earlier sessions of this search
        self._began = time.monotonic()
        budget = self.space.budget.time
        self.stop = Stop(self.interrupted, None if budget is None else self._began + max(0.0, budget - self._spent))
        self.problem = ""
        self._over = threading.Event()

    def run(self) -> Outcome:
        self.view.start(self.record, self.space.budget.trials, self.space.budget.time)
        outcome = Outcome(self.record, self.directory, mlflow_uri=self.record.info["mlflow"])
        watcher: threading.Thread | None = None
        try:
            groups = self.workforce.groups
            watcher = threading.Thread(target=self._watch, args=(groups,), daemon=True, name="watch")
            watcher.start()
            if self._more() or any(trial.status is Status.RUNNING for trial in self.record.trials):
                self._tune(groups)
            if not self.stop.interrupted.is_set() and self.record.ranked():
                outcome.best = self._finish(groups)
        except KeyboardInterrupt:
            self.stop.interrupted.set()
        except Exception as error:
            _log.debug("the search failed", exc_info=True)
            self.problem = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            with contextlib.suppress(OSError):  # a full disk may be what failed
                self.journal.note("problem", what=self.problem)
        finally:
            outcome.interrupted = self.stop.interrupted.is_set()
            outcome.problem = self.problem or self._nothing_trained()
            self._over.set()
            if watcher is not None:
                watcher.join()  # nobody may be inside Ray when it shuts down
            self.workforce.release()
            self._leave(outcome)
        return outcome

    # -- the Tune run ------------------------------------------------------------------------------------

    def _watch(self, groups: Groups) -> None:
        """Notice an interruption or the loss of every group while the main thread is inside Tune."""
        from ray.exceptions import RayActorError

        told, warned, since = False, False, time.monotonic()
        while not self._over.is_set():
            interrupted = self.stop.interrupted.wait(1.0)
            try:
                if interrupted:
                    groups.stop_answering()
                    return
                self.stop.dead = groups.dead()
                if not told and groups.facts():
                    facts = next(iter(groups.facts().values()))
                    self.view.note(f"{self.plan}; {facts['device']}; {facts['precision']}")
                    self.journal.record.info["device"] = facts["device"]
                    self.journal.record.info["precision"] = facts["precision"]
                    told = True
                if not told and not warned and time.monotonic() - since > _SLOW_START_S:
                    self.view.note(f"no worker has come up yet; Ray's logs are in {groups.logs()}")
                    warned = True
            except RayActorError:
                self.stop.dead = "the process that keeps the worker groups died"
                return
            except Exception:
                _log.debug("the worker groups gave no answer", exc_info=True)  # busy: ask again

    def _tune(self, groups: Groups) -> None:
        from ray import tune
        from ray.tune import PlacementGroupFactory

        from search.control import Events, Stopper
        from search.proxy import TrialProxy
        from search.sampler import OptunaSampler
        from search.scheduler import Asha, AshaScheduler

        first = self.space.objectives[0]
        options = self.space.scheduler
        rule = Asha(first.mode, options.rungs(self.space.max_epochs()), options.eta)
        self._replay(rule)
        scheduler = AshaScheduler(rule, first.metric)
        events = Events(self.journal, scheduler, self.stop, [self.tracker, self.view], groups.abandon, groups.alive)
        sampler = OptunaSampler(
            self.space,
            self.journal,
            self._size,
            wrap=lambda trial: {
                "trial": trial.id,
                "hub": groups.hub_name,
                "flat": self.space.trial_config(trial.params).to_flat(),
                "deadline": self.deadline,
            },
            more=self._more,
            on_start=events.on_start,
        )
        events.listeners.insert(0, sampler)
        with tempfile.TemporaryDirectory(prefix="petl-tune-") as scratch:
            tune.Tuner(
                tune.with_resources(TrialProxy, PlacementGroupFactory([{"node:__internal_head__": 0.0001}])),
                tune_config=tune.TuneConfig(
                    search_alg=sampler,
                    scheduler=scheduler,
                    num_samples=-1,
                    max_concurrent_trials=self.plan.groups,
                    reuse_actors=True,
                ),
                run_config=tune.RunConfig(
                    name="search",
                    storage_path=scratch,
                    stop=Stopper(self.stop),
                    callbacks=[events],
                    failure_config=tune.FailureConfig(max_failures=2),
                    checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                    verbose=0,
                ),
            ).fit()
        groups.free_all()  # Tune may have killed a proxy in the middle of an epoch
        if self.stop.dead and not self.stop.interrupted.is_set():
            self.problem = self.stop.dead
        elif self.stop.out_of_time:
            for trial in self.record.trials:
                if trial.status is Status.RUNNING:
                    self.journal.ended(trial, Status.STOPPED, "the time budget was spent")
                    self.tracker.trial_ended(trial)
                    self.view.trial_ended(trial)
        if sampler.exhausted:
            self.view.note("the sampler found nothing new: all that it proposed at last was tried before or rejected")

    def _replay(self, rule: Asha) -> None:
        """Fill the rungs with what earlier trials reported.

        Less the last epoch of a trial that is to be continued: it is reported once more, and judged then.
        """
        metric = self.space.objectives[0].metric
        for trial in self.record.trials:
            judged = trial.epochs[:-1] if trial.status is Status.RUNNING else trial.epochs
            for epoch in judged:
                rule.report(trial.id, epoch.epoch, epoch.metrics.get(metric, float("nan")))

    def _more(self) -> bool:
        limit = self.space.budget.trials
        return not self.stop.now and (limit is None or len(self.record.trials) < limit)

    def _size(self, params: dict[str, Any]) -> int:
        frames = self.data.front_end.backbone_frames
        return trainable_params(self.space, params, self.shape, self.data.output, frames)

    # -- the end -----------------------------------------------------------------------------------------

    def _finish(self, groups: Groups) -> Path:
        """Evaluate the winner's best epoch once on the test split and export it."""
        from search.export import export_winner

        winner = self.record.ranked()[0]
        config = self.space.trial_config(winner.params)
        self.view.phase(f"evaluating {winner.name} on the test split")
        if self.record.winner != winner.id or not self.record.test:  # the test split is read once
            command = {
                "op": "evaluate",
                "trial": winner.id,
                "flat": config.to_flat(),
                "deadline": self.deadline,
            }
            again = groups.ask({**command, "split": "val"})
            tested = groups.ask({**command, "split": "test"})
            self._check_reload(winner, again["metrics"])
            self.record.winner = winner.id
            self.record.test = {f"test/{name}": value for name, value in tested["metrics"].items()}
            tables = tested["tables"]
            info = {**tables, "tables": list(tables), "intervals": tested["intervals"], "best_config": config.to_flat()}
            self.record.info.update(info)
            self.journal.note("finished", winner=winner.id, test=self.record.test, info=info)
        self.view.phase("exporting the winner")
        return export_winner(self.space, self.record, winner, config, self.checkpoints, self.directory)

    def _check_reload(self, winner: TrialRecord, metrics: dict[str, float]) -> None:
        """The reloaded best epoch must score what it scored in training, else the weights are not its own."""
        first = self.space.objectives[0]
        best = winner.best(first)
        reached = metrics.get(first.metric.removeprefix("val/"))
        if best is not None and reached is not None and abs(reached - best.metrics[first.metric]) > 0.02:
            self.view.note(
                f"warning: {winner.name} scored {best.metrics[first.metric]:.4f} in training, "
                f"but {reached:.4f} when its best epoch was reloaded"
            )

    def _nothing_trained(self) -> str:
        if self.record.ranked() or self.stop.interrupted.is_set():
            return ""
        failed = [t for t in self.record.trials if t.status is Status.FAILED]
        if failed:
            return f"every trial failed; the first: {failed[0].name}: {failed[0].reason}"
        if self.record.rejected:
            return f"every configuration was rejected; the first: {self.record.rejected[0]['reason']}"
        return "no trial finished an epoch"

    def _leave(self, outcome: Outcome) -> None:
        """Write what is known, whatever the end was."""
        self.record.seconds = self._spent + time.monotonic() - self._began
        self.record.info["interrupted"] = outcome.interrupted
        if outcome.interrupted:
            with contextlib.suppress(OSError):
                self.journal.note("interrupted")
        files: list[Artifact] = []
        try:
            files = write_files(outcome, self.space)
        except OSError as error:
            outcome.problem = outcome.problem or f"the report could not be written: {error}"
        self.view.phase("delivering to MLflow")
        if outcome.interrupted:
            self.tracker.interrupted()
        else:
            self.tracker.finish(self.record, artifacts=files, failed=bool(outcome.problem))
        self.tracker.close()
        self.view.finish(self.record)
        self.view.stop()
        self.journal.close()
