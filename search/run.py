"""A search that runs: under Ray Tune to the end of its trials, then the winner's test, its export, the report."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petl.counts import BackboneShape
from petl.errors import UserError
from search.files import Artifact, write_files
from search.journal import Journal
from search.ray_access import keep_credentials_home
from search.records import Status, TrialRecord
from search.request import Outcome, resume_command
from search.resources import GroupPlan
from search.sealed import order
from search.sizes import trainable_params
from search.space import Space
from trainables.config import TrialConfig

if TYPE_CHECKING:
    from search.control import Events, Listener
    from search.groups import Groups
    from search.live import View
    from search.mirror import RunMirror
    from search.sampler import OptunaSampler
    from search.scheduler import Asha
    from search.tracking import Tracker
    from search.workforce import Workforce
    from trainables.data import AudioData

_log = logging.getLogger(__name__)


@dataclass
class Run:
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
    mirror: RunMirror | None  # where the run directory is copied to as it grows
    interrupted: threading.Event
    end_now: Callable[[], None]  # ends the process, after what must not be left undone

    def __post_init__(self) -> None:
        from search.control import Live, Stop
        from search.janitor import Janitor
        from search.watch import GroupWatch

        self.record = self.journal.record
        self.directory = Path(self.record.directory)
        mirror = self.mirror
        copied = None if mirror is None else lambda: mirror.sent
        self.janitor = Janitor(self.checkpoints, lambda: self.journal.size, copied)
        self._spent = self.record.seconds  # by earlier sessions of this search
        self._began = time.monotonic()
        budget = self.space.budget.time
        self.stop = Stop(self.interrupted, None if budget is None else self._began + max(0.0, budget - self._spent))
        self.problem = ""
        self.events: Events | None = None
        self.sampler: OptunaSampler | None = None
        self.live = Live()
        self.watch = GroupWatch(
            self.workforce.groups,
            self.plan,
            self.record,
            self.stop,
            self._useful,
            self._incident,
            self._taken_over,
            self.view,
            self._give_up,
        )

    def run(self) -> Outcome:
        self.view.start(self.record, self.space.budget.trials, self.space.budget.time)
        outcome = Outcome(self.record, self.directory, mlflow_uri=self.record.info["mlflow"])
        try:
            groups = self.workforce.groups
            self.watch.start()
            if self._more() or any(trial.status is Status.RUNNING for trial in self.record.trials):
                self._tune(groups)
            # What only waits for somebody to mend something is not over: the test split is not for it yet.
            if not self.stop.interrupted.is_set() and not self.stop.dead and self.record.ranked():
                outcome.best = self._finish(groups)
        except KeyboardInterrupt:
            self.stop.interrupted.set()
        except Exception as error:
            _log.debug("the search failed", exc_info=True)
            self.problem = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        finally:
            outcome.interrupted = self.stop.interrupted.is_set()
            dead = "" if outcome.interrupted else self.stop.dead
            outcome.problem = dead or self.problem or self._nothing_trained()
            if outcome.problem:
                with contextlib.suppress(OSError):  # a full disk may be what failed
                    self.journal.note("problem", what=outcome.problem)
            self.watch.close()
            if outcome.problem and not outcome.interrupted and self.workforce.scratch.keep_logs(self._logs):
                self.view.note(f"what Ray's processes said is kept in {self._logs}")
            self.workforce.release()
            self.janitor.close()
            self._leave(outcome)
        return outcome

    # -- the Tune run ------------------------------------------------------------------------------------

    def _useful(self) -> int:
        """How many groups have something to do now: one for every trial that runs or may still be started."""
        running = sum(trial.status is Status.RUNNING for trial in list(self.record.trials))
        limit = self.space.budget.trials
        if self.stop.now or (self.sampler is not None and self.sampler.exhausted):
            useful = running
        elif limit is None:
            useful = self.plan.groups
        else:
            useful = running + max(0, limit - len(self.record.trials))
        return max(1, min(useful, self.plan.groups))  # one evaluates the winner

    def _incident(self, incident: dict[str, Any]) -> None:
        if self.events is not None and self.journal.knows(incident["trial"]):
            self.events.incident(incident["trial"], incident["kind"], incident["reason"], incident["stack"])

    def _room(self) -> bool:
        """Whether a trial that is handed out now would find a group; at the end all go, to be ended where they end."""
        return self.stop.now or self.live.count < self.watch.slots

    def _tune(self, groups: Groups) -> None:
        from ray import tune

        from search.control import Events, Stopper, no_snapshots
        from search.proxy import TrialProxy
        from search.sampler import OptunaSampler
        from search.scheduler import Asha, AshaScheduler

        first = self.space.objectives[0]
        options = self.space.scheduler
        rule = Asha(first.mode, options.rungs(self.space.max_epochs()), options.eta)
        self._replay(rule)
        scheduler = AshaScheduler(rule, first.metric)
        listeners: list[Listener] = [self.live, self.tracker, self.view, self.janitor]
        events = Events(self.journal, scheduler, self.stop, listeners, groups.abandon, groups.alive)
        sampler = OptunaSampler(
            self.space,
            self.journal,
            self._size,
            wrap=lambda trial: order(
                trial.id,
                hub=groups.hub_name,
                flat=self.space.trial_config(trial.params).to_flat(),
                deadline=self.deadline,
                patience=self.base.train.storage_patience,
            ),
            more=self._more,
            on_start=events.on_start,
            room=self._room,
        )
        events.listeners.insert(0, sampler)
        self.events, self.sampler = events, sampler
        keep_credentials_home()
        tuner = tune.Tuner(
            TrialProxy,
            tune_config=tune.TuneConfig(
                search_alg=sampler,
                scheduler=scheduler,
                num_samples=-1,
                max_concurrent_trials=self.plan.groups,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="search",
                storage_path=str(self.workforce.scratch.folder / "tune"),
                stop=Stopper(self.stop),
                callbacks=[events],
                failure_config=tune.FailureConfig(max_failures=2),  # of the proxies, which do nothing but wait
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                verbose=0,
            ),
        )
        with no_snapshots():
            tuner.fit()
        if self.stop.dead:
            return
        groups.free_all()  # Tune may have killed a proxy in the middle of an epoch
        if self.stop.out_of_time:
            for trial in self.record.trials:
                if trial.status is Status.RUNNING:
                    self.journal.ended(trial, Status.STOPPED, "the time budget was spent")
                    for listener in listeners:
                        listener.trial_ended(trial)
        if sampler.exhausted:
            self.view.note("the sampler found nothing new: all that it proposed at last was tried before or rejected")

    def _give_up(self) -> None:
        with contextlib.suppress(OSError):
            self.journal.note("interrupted")
        self.view.note(f"Ray is gone; the search ends here. Continue with {resume_command(self.record)}")
        self.end_now()

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
            command = {"op": "evaluate", "flat": config.to_flat(), "deadline": self.deadline}
            command["patience"] = self.base.train.storage_patience
            again = groups.ask(winner.id, {**command, "split": "val"})
            tested = groups.ask(winner.id, {**command, "split": "test"})
            if again.get("warning"):
                self.view.note(f"warning: {winner.name}: {again['warning']}")
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

    def _taken_over(self) -> str:
        by = self.mirror.taken_over if self.mirror is not None else ""
        return by and f"the search was taken over by {by}"

    @property
    def _logs(self) -> Path:
        return self.directory / "ray-logs"

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
        if self._taken_over():
            self.tracker.leave()  # its runs are another driver's now
        elif outcome.interrupted:
            self.tracker.interrupted()
        else:
            self.tracker.finish(self.record, artifacts=files, failed=bool(outcome.problem))
        self.tracker.close()
        self.view.finish(self.record)
        self.view.stop()
        self.journal.close()
