"""Tells MLflow what a search does, without ever holding the search up (torch-free, Ray-free).

The search's calls only put a small event into a queue; one background thread delivers them, many at a time.
When MLflow is away the thread keeps the events and tries again; what could not be delivered by the end lies in
`<run directory>/mlflow-spool.jsonl`, one JSON event a line, and goes out when the search is resumed or with
`deliver_spool`. After a killed driver nothing needs a spool: the journal holds every epoch, and `start` compares
it with what MLflow has.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from petl.errors import UserError
from search.metric_text import repeats_of
from search.mlflow_address import check, default_uri, resolve_uri, shown, ui_command
from search.mlflow_store import DEFAULT_EXPERIMENT, Dataset, MlflowStore, is_permanent
from search.records import EpochRecord, Objective, SearchRecord, Status, TrialRecord
from search.tracking_events import (
    SPOOL,
    SPOOL_FORMAT,
    Event,
    apply,
    begun,
    describe,
    ended,
    grouped,
    one_line,
    past_epochs,
    read_spool,
    reported,
    results,
    write_spool,
)

__all__ = [
    "DEFAULT_EXPERIMENT",
    "SPOOL",
    "Dataset",
    "Tracker",
    "check",
    "default_uri",
    "deliver_spool",
    "resolve_uri",
    "ui_command",
]

_LINGER_S = 0.2  # events that come within this time travel together
_LONGEST_PAUSE_S = 30.0
_TRIES_AT_THE_END = 3
_TRIES_BEFORE_ASIDE = 4  # of one event, while the store answers other requests

_log = logging.getLogger(__name__)


class Tracker:
    """The MLflow side of one search: a parent run, a child run per trial.

    Args:
        uri: address of the MLflow store; a relative SQLite path is taken from the current directory.
        experiment: MLflow experiment that holds the search's runs.
        run_dir: where the spool goes; by default the directory of the record given to `start`.
        patience: seconds that `close` waits without any progress before it spools what is left.
        notify: takes one line for the person (outage, recovery, spool); by default a log warning.
    """

    def __init__(
        self,
        uri: str,
        experiment: str = DEFAULT_EXPERIMENT,
        run_dir: Path | str | None = None,
        *,
        patience: float = 30.0,
        notify: Callable[[str], None] | None = None,
    ) -> None:
        self.uri = resolve_uri(uri)
        self.parent_run_id = ""
        self._store = MlflowStore(self.uri, experiment)
        self._run_dir = None if run_dir is None else Path(run_dir)
        self._patience = patience
        self._notify = notify or _log.warning
        self._objectives: list[Objective] = []
        self._head: Event = {}
        self._final: str | None = None
        self._incoming: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._pending: list[Event] = []  # taken from the queue, not delivered; guarded by _lock
        self._aside: list[Event] = []  # refused by the store for good, with the reason
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._progress = 0.0
        self._thread: threading.Thread | None = None
        self._open = False

    # -- what the search calls ---------------------------------------------------------------------------

    def start(
        self,
        record: SearchRecord,
        tags: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        dataset: Dataset | Mapping[str, Any] | None = None,
    ) -> str:
        """Find or create the search's parent run and start delivering; returns the parent's run id.

        Of a resumed search everything that MLflow lacks (epochs, ends, whole trials) is delivered anew; finished
        trials that are whole are left alone. `record.info` may hold `search_id` (the identity across resumes)
        and `git_commit`. `dataset` may be a mapping with `dataset` or `name`, `digest`, `path` and any facts.

        Raises:
            UserError: the store does not answer or cannot be used; nothing was started.
        """
        directory = Path(record.directory) if self._run_dir is None else self._run_dir
        self._run_dir = directory
        identity = str(record.info.get("search_id") or record.directory)
        source = dataset if isinstance(dataset, Dataset | None) else _as_dataset(dataset)
        everywhere = {**_git_tags(record), **_task_tags(record), **(tags or {})}
        self.parent_run_id = self._store.open(identity, directory.name or record.name, everywhere, params, source)
        self._objectives = record.objectives
        self._head = {
            "event": "search",
            "format": SPOOL_FORMAT,
            "uri": shown(self.uri),
            "experiment": self._store.experiment,
            "search_id": identity,
            "name": record.name,
            "tags": everywhere,
            "dataset": None if source is None else asdict(source),
            "parent_run_id": self.parent_run_id,
        }
        for event in self._left_over(directory, {t.id for t in record.trials}):
            self._incoming.put(event)
        for trial in record.trials:
            self._catch_up(trial)
        self._progress = time.monotonic()
        self._open = True
        self._thread = threading.Thread(target=self._work, daemon=True, name="mlflow-tracker")
        self._thread.start()
        atexit.register(self.close)
        return self.parent_run_id

    def trial_started(self, trial: TrialRecord) -> None:
        """Begin or continue a trial's run; epochs the trial already has are added where they are missing."""
        if not self._open:
            return
        self._incoming.put(begun(trial))
        for event in past_epochs(trial):
            self._incoming.put(event)

    def epoch(self, trial: TrialRecord, epoch: EpochRecord) -> None:
        """Log one epoch. Costs the caller some microseconds."""
        if self._open:
            self._incoming.put(reported(trial, epoch, int(time.time() * 1000)))

    def trial_ended(self, trial: TrialRecord) -> None:
        """Close a trial's run with its status, reason and best epoch."""
        if self._open:
            self._incoming.put(ended(trial, self._objectives))

    def finish(
        self,
        record: SearchRecord,
        artifacts: Iterable[Path | tuple[Path, str]] = (),
        metrics: Mapping[str, float] | None = None,
        failed: bool = False,
    ) -> None:
        """Log the search's results on the parent run: counts, best and test metrics, `metrics`, artifacts.

        An artifact is a file or directory, alone or with the folder it goes to. `failed` says how `close` ends
        the parent.
        """
        self._final = "FAILED" if failed else "FINISHED"
        if not self._open:
            return
        self._incoming.put(results(record, metrics or {}))
        for item in artifacts:
            path, folder = item if isinstance(item, tuple) else (item, "")
            self._incoming.put({"event": "artifact", "path": str(Path(path).absolute()), "folder": folder})

    def interrupted(self) -> None:
        """Say that a person stopped the search: `close` ends the parent as KILLED."""
        self._final = "KILLED"

    def close(self, status: str | None = None, patience: float | None = None) -> None:
        """Deliver what is left, end every run of the search, and spool what could not be delivered.

        `status` is FINISHED, FAILED or KILLED; by default what `finish` or `interrupted` said, else FAILED.
        Children still running are KILLED. Calling it again does nothing.
        """
        if not self._open or self._thread is None:
            return
        self._open = False
        atexit.unregister(self.close)
        final = self._head["final"] = status or self._final or "FAILED"
        self._incoming.put({"event": "close", "status": final, "time": int(time.time() * 1000)})
        self._progress = time.monotonic()
        self._closing.set()
        self._incoming.put(None)
        patience = self._patience if patience is None else patience
        try:
            while self._thread.is_alive() and time.monotonic() - self._progress < patience:
                self._thread.join(0.05)
        finally:  # a second Ctrl-C ends the wait, not the spooling
            self._spool()

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self.interrupted()
        self.close("FAILED" if kind is not None and self._final != "KILLED" else None)

    # -- the background thread ---------------------------------------------------------------------------

    def _work(self) -> None:
        failures, told = 0, False
        while True:
            if not self._pending and not self._closing.is_set():
                self._take(block=True)
            if not self._closing.is_set():
                self._closing.wait(min(_LONGEST_PAUSE_S, 0.5 * 2**failures) if failures else _LINGER_S)
            elif failures:
                time.sleep(0.3)  # the last tries follow each other quickly
            closing = self._closing.is_set()
            self._take(block=False)
            before = len(self._pending)
            try:
                self._deliver()
            except Exception as error:
                _log.debug("MLflow did not take an entry", exc_info=True)
                failures = 1 if len(self._pending) < before else failures + 1
                if failures == 2 and not told:  # one failure may be a busy database
                    told = True
                    self._say(f"MLflow at {shown(self.uri)} does not answer; entries are kept ({one_line(error)})")
            else:
                if told:
                    self._say("MLflow answers again; what was kept has been delivered")
                failures, told = 0, False
            if closing and (not self._pending or failures >= _TRIES_AT_THE_END):
                return

    def _take(self, block: bool) -> None:
        """Move what is in the queue to the pending events; with `block`, wait for the first one."""
        taken: list[Event | None] = []
        with contextlib.suppress(queue.Empty):
            taken.append(self._incoming.get(block=block))
            while True:
                taken.append(self._incoming.get_nowait())
        with self._lock:
            self._pending += [event for event in taken if event is not None]

    def _deliver(self) -> None:
        """Deliver the pending events; raises at the first failure that may pass, what is done is taken off."""
        for group in grouped(self._pending):
            try:
                apply(self._store, group)
            except Exception as error:
                self._store.forget()
                if not self._give_up(group, error):
                    raise
            done = {id(event) for event in group}
            with self._lock:
                self._pending = [event for event in self._pending if id(event) not in done]
            self._progress = time.monotonic()

    def _give_up(self, group: list[Event], error: Exception) -> bool:
        """Put events aside that the store will never take, so that they do not block all others."""
        for event in group:
            event["tries"] = event.get("tries", 0) + 1
        stuck = group[0]["tries"] >= _TRIES_BEFORE_ASIDE and self._store.answers()
        if not (is_permanent(error) or stuck):
            return False
        self._say(f"MLflow refused an entry ({describe(group[0])}): {one_line(error)}")
        with self._lock:
            self._aside += [{**event, "refused": one_line(error)} for event in group]
        return True

    def _spool(self) -> None:
        """Write undelivered events to the spool, or remove a spool that has been delivered."""
        self._take(block=False)
        with self._lock:
            left = [*self._aside, *self._pending]
        if self._run_dir is None:
            return
        path = self._run_dir / SPOOL
        try:
            if not left:
                path.unlink(missing_ok=True)
                return
            write_spool(path, self._head, left)
        except OSError as error:
            self._say(f"{len(left)} entries for MLflow are lost: {path} cannot be written ({error})")
            return
        self._say(
            f"{len(left)} entries could not be delivered to MLflow at {shown(self.uri)}; they are kept in {path} "
            "and go out when the search is resumed"
        )

    def _say(self, text: str) -> None:
        with contextlib.suppress(Exception):
            self._notify(text)

    # -- resuming ----------------------------------------------------------------------------------------

    def _catch_up(self, trial: TrialRecord) -> None:
        """Queue what the journal knows of a trial unless MLflow has it all."""
        events = [begun(trial), *past_epochs(trial)]
        if trial.status is not Status.RUNNING:
            tags = self._store.tags_if_ended(trial.id)
            if tags.get("status") == str(trial.status) and tags.get("petl.epochs") == str(len(trial.epochs)):
                return
            events.append(ended(trial, self._objectives))
        for event in events:
            self._incoming.put(event)

    def _left_over(self, directory: Path, known: set[str]) -> list[Event]:
        """Spooled events that still matter: the journal covers its own trials, and this search has not ended."""
        path = directory / SPOOL
        if not path.is_file():
            return []
        _, events = read_spool(path)
        return [e for e in events if e["event"] != "close" and e.get("trial") not in known]


def deliver_spool(directory: Path | str, uri: str | None = None) -> int:
    """Deliver the spool of a search that has ended and remove it; returns how many events it held.

    Args:
        directory: the search's run directory.
        uri: address of the store, needed when the spool's own had a password (which is not kept).

    Raises:
        UserError: the store does not answer, refuses an entry, or the spool is not one of ours.
    """
    path = Path(directory) / SPOOL
    if not path.is_file():
        return 0
    head, events = read_spool(path)
    store = MlflowStore(uri or head["uri"], head["experiment"])
    store.open(head["search_id"], head["name"], head["tags"], {}, head["dataset"] and Dataset(**head["dataset"]))
    done: set[int] = set()
    try:
        for group in grouped(events):
            apply(store, group)
            done |= {id(event) for event in group}
    except Exception as error:
        left = [event for event in events if id(event) not in done]
        write_spool(path, head, left)
        raise UserError(
            f"MLflow at {shown(store.uri)} took {len(done)} of {len(events)} entries of {path}, then: "
            f"{one_line(error)}. The others are still there; run it again when the store is back."
        ) from error
    if not any(event["event"] == "close" for event in events):
        store.end_search(head["final"], int(time.time() * 1000))
    path.unlink()
    return len(events)


def _as_dataset(facts: Mapping[str, Any]) -> Dataset:
    """Facts as `AudioData.describe` gives them; lists of labels and files are too long for a profile."""
    known = {"name", "dataset", "digest", "path", "source", "labels", "bad_files"}
    profile = {k: v for k, v in facts.items() if k not in known}
    profile["bad_files"] = len(facts.get("bad_files", ()))
    return Dataset(
        name=str(facts.get("name") or facts.get("dataset") or "audio"),
        digest=str(facts["digest"]),
        source=str(facts.get("source") or facts.get("path") or ""),
        schema={"inputs": "audio", "labels": [str(label) for label in facts.get("labels", ())]},
        profile=profile,
    )


def _git_tags(record: SearchRecord) -> dict[str, str]:
    commit = str(record.info.get("git_commit") or "")
    if not commit:
        return {}
    changed = {"petl.git_dirty": "true"} if commit.endswith("-dirty") else {}
    return {"mlflow.source.git.commit": commit.removesuffix("-dirty"), **changed}


def _task_tags(record: SearchRecord) -> dict[str, str]:
    """What is learned and how it is measured: runs of different tasks or protocols are not to be compared."""
    info = record.info
    found = {f"petl.{key}": str(info[key]) for key in ("task", "target", "protocol") if info.get(key)}
    if "reads_test" in info:
        found["petl.reads_test"] = str(bool(info["reads_test"])).lower()
    if repeats_of(info):
        found["petl.repeats"] = ", ".join(repeats_of(info))
    return found
