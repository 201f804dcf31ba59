"""What the journal and the scheduler make of what a proxy reports through Tune."""

from __future__ import annotations

import math
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler

from search.control import Events, Stop
from search.journal import Journal, read_journal
from search.records import Objective, SearchRecord, Status, TrialRecord
from search.scheduler import Asha, AshaScheduler
from search.sealed import order, reported


def _trial(name: str) -> SimpleNamespace:
    """A trial of Tune's, as far as callbacks and schedulers of ours look at one."""
    return SimpleNamespace(config=order(name, flat={}))


def _report(epoch: int, accuracy: float, **more: Any) -> dict[str, Any]:
    return reported({"epoch": epoch, "seconds": 1.5, "val/accuracy": accuracy, "done": False, **more})


def test_the_worse_are_stopped_at_a_rung() -> None:
    scheduler = AshaScheduler(Asha("max", (2,), 2), "val/accuracy")

    def decided(name: str, epoch: int, accuracy: float) -> str:
        return scheduler.on_trial_result(None, _trial(name), _report(epoch, accuracy))

    assert decided("t0001", 1, 0.1) == TrialScheduler.CONTINUE
    assert decided("t0001", 2, 0.9) == TrialScheduler.CONTINUE, "the first at its rung"
    assert decided("t0002", 2, 0.4) == TrialScheduler.STOP
    assert decided("t0003", 2, 0.95) == TrialScheduler.CONTINUE
    assert scheduler.stopped == {"t0002": 2}
    failed = scheduler.on_trial_result(None, _trial("t0004"), reported({"failed": "why", "done": True}))
    assert failed == TrialScheduler.CONTINUE, "nothing to compare"


@pytest.fixture
def events(tmp_path: Path) -> tuple[Events, Stop, AshaScheduler]:
    record = SearchRecord("s", str(tmp_path), [Objective("val/accuracy", "max")], {"epochs": 4})
    journal = Journal.create(tmp_path, record)
    journal.started(TrialRecord("t0001", 1, "t0001-linear", {"method": "linear"}, 1417))
    scheduler, stop = AshaScheduler(Asha("max", (), 3), "val/accuracy"), Stop(threading.Event(), None)
    return Events(journal, scheduler, stop, [], lambda trial: None, lambda: True), stop, scheduler


def _hear(events: Events, result: dict[str, Any]) -> None:
    events.on_trial_result(iteration=0, trials=[], trial=_trial("t0001"), result=result)


def _kept(tmp_path: Path) -> TrialRecord:
    return read_journal(tmp_path).trials[0]


def test_epochs_are_written_down_and_the_last_one_completes(events: Any, tmp_path: Path) -> None:
    """Tune sets its own `done` on the trials that it stops; what counts is the report's."""
    heard, _, _ = events
    _hear(heard, {**_report(1, 0.25, parts=2), "done": True, "training_iteration": 1})
    assert _kept(tmp_path).status is Status.RUNNING
    assert [(e.epoch, e.metrics, e.seconds) for e in _kept(tmp_path).epochs] == [(1, {"val/accuracy": 0.25}, 1.5)]
    _hear(heard, _report(2, 0.5, done=True))
    assert _kept(tmp_path).status is Status.COMPLETE and len(_kept(tmp_path).epochs) == 2


def test_epochs_that_another_driver_heard_of_come_first(events: Any, tmp_path: Path) -> None:
    heard, _, _ = events
    past = [{"epoch": 1, "metrics": {"val/accuracy": 0.25}, "seconds": 1.0}]
    _hear(heard, _report(2, 0.5, past=past, notes=["checkpoint 1 is torn"]))
    kept = _kept(tmp_path)
    assert [e.metrics["val/accuracy"] for e in kept.epochs] == [0.25, 0.5]
    assert [(i.kind, i.reason) for i in kept.incidents] == [("checkpoint", "checkpoint 1 is torn")]


def test_a_stopped_trial_is_called_stopped(events: Any, tmp_path: Path) -> None:
    heard, _, scheduler = events
    scheduler.stopped["t0001"] = 1
    _hear(heard, _report(1, 0.25))
    assert _kept(tmp_path).status is Status.STOPPED


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        ({"failed": "worker died"}, "worker died"),
        ({"refused": "no clip fits"}, "no clip fits"),
        ({"diverged": "the loss is nan", "val/loss": math.nan}, "diverged: the loss is nan"),
    ],
)
def test_a_trial_that_fails_says_why(events: Any, tmp_path: Path, report: dict[str, Any], reason: str) -> None:
    heard, stop, _ = events
    _hear(heard, reported({**report, "done": True}))
    assert (_kept(tmp_path).status, _kept(tmp_path).reason) == (Status.FAILED, reason)
    assert not stop.now


def test_what_a_person_has_to_mend_ends_the_search_and_not_the_trial(events: Any, tmp_path: Path) -> None:
    heard, stop, _ = events
    _hear(heard, reported({"halt": "the disk is full", "done": True}))
    assert stop.now and stop.dead == "the disk is full"
    assert _kept(tmp_path).status is Status.RUNNING
