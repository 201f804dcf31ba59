"""Tells MLflow what a search does, without ever holding the search up (torch-free, Ray-free).

The search's calls only put a small event into a queue; one background thread delivers them, many at a time. While
MLflow is away, from the first moment on or later, they wait in `<run directory>/mlflow-spool.jsonl`, one JSON event
a line. What could not be delivered by the end goes out with `petl-search sync`, or when the search is resumed. After
a killed driver nothing needs a spool: the journal holds every epoch, and it is compared with what MLflow has.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from search.clock import now_ms
from search.mlflow_address import check, default_uri, resolve_uri, shown, ui_command
from search.mlflow_delivery import Delivery, first_wait
from search.mlflow_files import left_out, only_own
from search.mlflow_probe import MlflowAway
from search.mlflow_spool import SPOOL, SPOOL_FORMAT, read_spool
from search.mlflow_store import DEFAULT_EXPERIMENT, Dataset, MlflowStore
from search.records import EpochRecord, Incident, Objective, SearchRecord, Status, TrialRecord
from search.tracking_events import (
    Event,
    begun,
    dataset_of,
    describing_tags,
    disturbed,
    ended,
    history,
    past_epochs,
    past_incidents,
    reported,
    results,
    snapshot,
)

__all__ = [
    "DEFAULT_EXPERIMENT",
    "SPOOL",
    "Dataset",
    "MlflowAway",
    "Tracker",
    "check",
    "default_uri",
    "resolve_uri",
    "ui_command",
]

_LONGEST_STOPPED_S = 60.0  # that somebody waits who has pressed Ctrl-C

_log = logging.getLogger(__name__)


class Tracker:
    """The MLflow side of one search: a parent run, a child run per trial.

    Args:
        uri: address of the MLflow store; a relative SQLite path is taken from the current directory.
        experiment: MLflow experiment that holds the search's runs.
        run_dir: where the spool goes; by default the directory of the record given to `start`.
        patience: seconds that `close` waits without any progress before it spools what is left.
        longest: seconds that `close` waits in all, while entries do arrive; a minute after Ctrl-C.
        notify: takes one line for the person (outage, recovery, spool); by default a log warning.
    """

    def __init__(
        self,
        uri: str,
        experiment: str = DEFAULT_EXPERIMENT,
        run_dir: Path | str | None = None,
        *,
        patience: float = 30.0,
        longest: float = 300.0,
        notify: Callable[[str], None] | None = None,
    ) -> None:
        self.uri = resolve_uri(uri)
        self._store = MlflowStore(self.uri, experiment)
        self._run_dir = None if run_dir is None else Path(run_dir)
        self._patience, self._longest = patience, longest
        self._notify = notify or _log.warning
        self._objectives: list[Objective] = []
        self._final: str | None = None
        self._delivery: Delivery | None = None  # while events are taken
        self._leaving: Delivery | None = None  # while `close` waits

    @property
    def parent_run_id(self) -> str:
        """The id of the search's parent run, "" until MLflow has answered."""
        return self._store.parent

    def start(
        self,
        record: SearchRecord,
        tags: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        dataset: Dataset | Mapping[str, Any] | None = None,
    ) -> str:
        """Find or create the search's parent run and start delivering; returns the parent's run id.

        A server that does not answer within seconds is told once, and gets everything when it is back; the run id is
        "" then. Of a resumed search everything that MLflow lacks (epochs, ends, whole trials) is delivered anew;
        finished trials that are whole are left alone, and runs of trials that the record does not know are ended and
        marked `status: lost`. `record.info` may hold `search_id` (the identity across resumes) and `git_commit`.
        `dataset` may be a mapping with `dataset` or `name`, `digest`, `path` and any facts.

        Raises:
            UserError: what is at the address cannot be used; nothing was started.
        """
        directory = Path(record.directory) if self._run_dir is None else self._run_dir
        identity = str(record.info.get("search_id") or record.directory)
        source = dataset if isinstance(dataset, Dataset | None) else dataset_of(dataset)
        everywhere = {**describing_tags(record), **(tags or {})}
        name = directory.name or record.name
        head: Event = {
            "event": "search",
            "format": SPOOL_FORMAT,
            "uri": shown(self.uri),
            "experiment": self._store.experiment,
            "search_id": identity,
            "name": name,
            "tags": everywhere,
            "params": dict(params or {}),
            "dataset": None if source is None else asdict(source),
        }
        self._objectives = record.objectives
        before = [snapshot(trial) for trial in record.trials]
        spooled = read_spool(directory / SPOOL)[1] if (directory / SPOOL).is_file() else None
        doubtful = {event.get("trial") for event in spooled or ()}

        def open_store() -> list[Event]:
            known = {trial.id: trial.params for trial in before}
            self._store.open(identity, name, everywhere, params, source, known=known)
            lacking = [trial for trial in before if not self._whole(trial, thorough=trial.id in doubtful)]
            return [event for trial in lacking for event in history(trial, self._objectives)]

        delivery = Delivery(self._store, open_store, directory, head, self._notify)
        if spooled is not None:
            # The journal covers the trials, and this search has not ended.
            waiting, foreign = only_own([e for e in spooled if e["event"] != "close" and "trial" not in e], directory)
            if foreign:
                self._notify(left_out(foreign, directory))
            delivery.backlog.add(waiting)
            with contextlib.suppress(OSError):
                delivery.backlog.keep(head)
        delivery.start(first_wait(self.uri))
        self._delivery = delivery
        atexit.register(self.close)
        return self.parent_run_id

    def trial_started(self, trial: TrialRecord) -> None:
        """Begin or continue a trial's run; epochs the trial already has are added where they are missing."""
        self._put(begun(trial), *past_epochs(trial), *past_incidents(trial))

    def epoch(self, trial: TrialRecord, epoch: EpochRecord) -> None:
        """Log one epoch. Costs the caller some microseconds."""
        self._put(reported(trial, epoch, now_ms()))

    def incident(self, trial: TrialRecord, incident: Incident) -> None:
        """Say that something went wrong with a trial: tag `petl.incidents` and metric `incidents` of its run."""
        self._put(disturbed(trial))

    def trial_ended(self, trial: TrialRecord) -> None:
        """Close a trial's run with its status, reason, incidents and best epoch."""
        self._put(ended(trial, self._objectives))

    def finish(
        self,
        record: SearchRecord,
        artifacts: Iterable[Path | tuple[Path, str]] = (),
        metrics: Mapping[str, float] | None = None,
        failed: bool = False,
    ) -> None:
        """Log the search's results on the parent run: counts, best and test metrics, `metrics`, artifacts.

        An artifact is a file or directory, alone or with the folder it goes to; a link in the run directory that
        leads out of it is left out. `failed` says how `close` ends the parent.
        """
        self._final = "FAILED" if failed else "FINISHED"
        self._put(results(record, metrics or {}))
        directory = Path(record.directory) if self._run_dir is None else self._run_dir
        for item in artifacts:
            path, folder = item if isinstance(item, tuple) else (item, "")
            event: Event = {"event": "artifact", "path": str(Path(path).absolute()), "folder": folder}
            own, foreign = [event], list[str]()
            if path.exists() and path.absolute().is_relative_to(directory.absolute()):
                own, foreign = only_own(own, directory)
            if foreign:
                self._notify(left_out(foreign, directory))
            self._put(*own)

    def interrupted(self) -> None:
        """Say that a person stopped the search: `close` ends the parent as KILLED."""
        self._final = "KILLED"

    def delivered(self) -> bool:
        """Whether MLflow has everything that was said so far."""
        delivery = self._delivery
        return delivery is None or delivery.idle()

    def close(self, status: str | None = None, patience: float | None = None) -> None:
        """Deliver what is left, end every run of the search, and spool what could not be delivered.

        `status` is FINISHED, FAILED or KILLED; by default what `finish` or `interrupted` said, else FAILED.
        Children still running are KILLED. Calling it again does nothing; while the first call waits, from a signal
        handler, say, it ends the wait and spools at once.
        """
        delivery, self._delivery = self._delivery, None
        if delivery is None:
            if self._leaving is not None:
                self._leaving.abandon()
            return
        self._leaving = delivery
        atexit.unregister(self.close)
        last = {"event": "close", "status": status or self._final or "FAILED", "time": now_ms()}
        try:
            longest = min(self._longest, _LONGEST_STOPPED_S) if self._final == "KILLED" else self._longest
            delivery.close(last, self._patience if patience is None else patience, longest)
        finally:
            self._leaving = None

    def leave(self) -> None:
        """Say no more, at once: another driver has taken the run over, and MLflow's runs with it.

        No results, no run is ended, no spool is kept, and `finish` and `close` do nothing any more. A request that
        is under way is the last one. Safe from any thread; calling it again does nothing.
        """
        delivery, self._delivery = self._delivery or self._leaving, None
        if delivery is not None:
            atexit.unregister(self.close)
            delivery.leave()

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self.interrupted()
        self.close("FAILED" if kind is not None and self._final != "KILLED" else None)

    def _put(self, *events: Event) -> None:
        delivery = self._delivery  # `leave` may come from another thread
        if delivery is not None:
            for event in events:
                delivery.put(event)

    def _whole(self, trial: TrialRecord, *, thorough: bool) -> bool:
        """Whether MLflow has all of a trial that has ended."""
        if trial.status is Status.RUNNING:
            return False
        epochs = {epoch.epoch for epoch in trial.epochs}
        return self._store.holds(trial.id, str(trial.status), epochs, len(trial.incidents), thorough=thorough)
