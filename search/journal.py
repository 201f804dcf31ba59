"""The journal: what happened in a search, one JSON object a line, appended as it happens (torch-free).

It is the one truth that outlives the driver. Resuming, the report, `trials.parquet` and the tracker are all
derived from it. Lines are written whole and flushed; a torn last line (power cut, full disk) is dropped when
read, everything before it counts. Nothing in it needs unpickling.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from petl.errors import UserError
from search.clock import not_before, now
from search.records import EpochRecord, Incident, Objective, SearchRecord, Status, TrialRecord

FORMAT = "petl.journal/1"


class Journal:
    """Appends events to `<directory>/journal.jsonl` and keeps the record they add up to. Safe for several threads."""

    def __init__(self, directory: Path, record: SearchRecord) -> None:
        self._file = (directory / "journal.jsonl").open("ab", buffering=0)
        self._lock = threading.Lock()
        self.record = record
        self._by_id = {trial.id: trial for trial in record.trials}
        self.grew: Callable[[], None] = lambda: None
        """Called after every line: whoever copies the journal elsewhere."""

    @classmethod
    def create(cls, directory: Path, record: SearchRecord) -> Journal:
        journal = cls(directory, record)
        journal._write(
            "search",
            format=FORMAT,
            name=record.name,
            objectives=[asdict(o) for o in record.objectives],
            info=record.info,
        )
        return journal

    @classmethod
    def reopen(cls, directory: Path, info: dict[str, Any] | None = None) -> Journal:
        """Continue an interrupted search; trials that were running stay RUNNING until they report again.

        `info`: facts of the search that are other from now on.
        """
        _mend(directory / "journal.jsonl")
        record, latest = _read(directory)
        not_before(latest)  # this machine's clock may be behind the one of before
        journal = cls(directory, record)
        journal.record.info.update(info or {})
        journal._write("resumed", info=info or {})
        return journal

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return os.fstat(self._file.fileno()).st_size

    def trial(self, id: str) -> TrialRecord:
        return self._by_id[id]

    def knows(self, id: str) -> bool:
        return id in self._by_id

    def started(self, trial: TrialRecord) -> None:
        self.record.trials.append(trial)
        self._by_id[trial.id] = trial
        self._write(
            "trial",
            trial=trial.id,
            number=trial.number,
            name=trial.name,
            params=trial.params,
            trainable_params=trial.trainable_params,
            enqueued=trial.enqueued,
        )

    def epoch(self, trial: TrialRecord, epoch: EpochRecord) -> bool:
        """Record an epoch; False when the trial has it already (a retry reports its last epoch again)."""
        if trial.epochs and epoch.epoch <= trial.epochs[-1].epoch:
            return False
        trial.epochs.append(epoch)
        self._write(
            "epoch",
            trial=trial.id,
            epoch=epoch.epoch,
            metrics=_json_safe(epoch.metrics),
            seconds=epoch.seconds,
        )
        return True

    def ended(self, trial: TrialRecord, status: Status, reason: str = "") -> None:
        trial.status, trial.reason, trial.ended = status, reason, now()
        self._write("end", trial=trial.id, status=str(status), reason=reason)

    def incident(self, trial: TrialRecord, kind: str, reason: str, stack: str = "") -> None:
        """Something went wrong with a trial and was dealt with."""
        found = Incident(kind, reason, now(), trial.epochs[-1].epoch if trial.epochs else 0, stack)
        trial.incidents.append(found)
        self._write("incident", trial=trial.id, kind=kind, reason=reason, epoch=found.epoch, stack=stack)

    def rejected(self, params: dict[str, Any], trainable_params: int | None, reason: str) -> None:
        entry = {"params": params, "trainable_params": trainable_params, "reason": reason}
        self.record.rejected.append(entry)
        self._write("rejected", **entry)

    def note(self, event: str, **facts: Any) -> None:
        """Anything else worth keeping: interruptions, the final evaluation."""
        self._write(event, **facts)

    def close(self) -> None:
        self._file.close()

    def _write(self, event: str, **facts: Any) -> None:
        line = json.dumps({"event": event, "time": now(), **facts}, ensure_ascii=False) + "\n"
        with self._lock:
            before = os.fstat(self._file.fileno()).st_size
            try:
                data = line.encode()
                written = self._file.write(data)
                if written != len(data):
                    raise OSError(errno.ENOSPC, "only a part of a line could be written to the journal")
                os.fsync(self._file.fileno())
            except OSError:
                # A part of a line would make everything after it unreadable.
                with contextlib.suppress(OSError):
                    os.ftruncate(self._file.fileno(), before)
                raise
        self.grew()


def read_journal(directory: Path) -> SearchRecord:
    """The record a journal adds up to.

    Raises:
        UserError: when there is no journal there, or it is not one of ours.
    """
    return _read(directory)[0]


def _read(directory: Path) -> tuple[SearchRecord, float]:
    """The record, and the latest time in it."""
    path = directory / "journal.jsonl"
    if not path.is_file():
        raise UserError(
            f"{directory} is not the directory of a search: it holds no journal.jsonl. "
            "Give the directory that the search printed when it started (runs/<space>-<time>)."
        )
    record: SearchRecord | None = None
    trials: dict[str, TrialRecord] = {}
    opened = latest = behind = 0.0
    number = 0
    try:
        for number, event in enumerate(_events(path), start=1):  # noqa: B007 - for what is said of a wrong one
            kind, when = event.get("event"), float(event.get("time", 0.0)) + behind
            if kind == "search":
                if event.get("format") != FORMAT:
                    raise UserError(f"{path} has format {event.get('format')!r}; this version reads {FORMAT!r}")
                objectives = [Objective(**o) for o in event["objectives"]]
                record = SearchRecord(event["name"], str(directory), objectives, event["info"])
                opened = when
            elif record is None:
                raise UserError(f"{path} does not begin with the search it belongs to")
            elif kind == "resumed":
                record.seconds += max(0.0, latest - opened)
                behind += max(0.0, latest - when)  # another machine's times go on from where those before it ended
                opened = latest = when = max(latest, when)
                record.info = {**record.info, **event.get("info", {})}
            elif kind == "trial":
                fresh = TrialRecord(
                    id=event["trial"],
                    number=event["number"],
                    name=event["name"],
                    params=event["params"],
                    trainable_params=event["trainable_params"],
                    enqueued=event["enqueued"],
                    started=when,
                )
                trials[fresh.id] = fresh
                record.trials.append(fresh)
            elif kind == "epoch":
                metrics = {k: float("nan") if v is None else float(v) for k, v in event["metrics"].items()}
                trials[event["trial"]].epochs.append(EpochRecord(event["epoch"], metrics, event["seconds"]))
            elif kind == "end":
                ended = trials[event["trial"]]
                ended.status, ended.reason, ended.ended = Status(event["status"]), event["reason"], when
            elif kind == "incident":
                found = Incident(event["kind"], event["reason"], when, event["epoch"], event["stack"])
                trials[event["trial"]].incidents.append(found)
            elif kind == "rejected":
                record.rejected.append({k: event[k] for k in ("params", "trainable_params", "reason")})
            elif kind == "finished":
                record.winner, record.test = event["winner"], event["test"]
                record.info = {**record.info, **event.get("info", {})}
            latest = max(latest, when)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _changed(path, number, f"{type(error).__name__}: {error}") from error
    if record is None:
        raise UserError(f"{path} is empty: nothing was recorded, so there is nothing to resume; start the search anew")
    record.seconds += max(0.0, latest - opened)
    return record, latest


def _events(path: Path) -> list[dict[str, Any]]:
    # Not `splitlines`: that also parts lines at characters which JSON text may hold.
    lines = path.read_text(encoding="utf-8", errors="replace").removesuffix("\n").split("\n")
    events = []
    for number, line in enumerate(lines, start=1):
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:
            if number == len(lines):
                break  # torn by the crash that ended the search
            raise _changed(path, number, "not JSON") from None
    return events


def _changed(path: Path, number: int, what: str) -> UserError:
    return UserError(
        f"{path}, line {number}: {what}; the journal was changed from outside. Put a copy of it back; one "
        "that the search left on a shared storage is fetched with --resume STORAGE/NAME --output ANOTHER. Or cut the "
        "file off before this line: what came later is trained again."
    )


def _mend(path: Path) -> None:
    """Cut off a torn last line, so that what is appended begins on a line of its own."""
    if not path.is_file():
        return
    data = path.read_bytes()
    if data and not data.endswith(b"\n"):
        os.truncate(path, data.rfind(b"\n") + 1)


def _json_safe(metrics: dict[str, float]) -> dict[str, float | None]:
    """JSON knows no NaN: it is written as null."""
    return {k: (v if v == v and abs(v) != float("inf") else None) for k, v in metrics.items()}
