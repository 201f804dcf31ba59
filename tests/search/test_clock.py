"""Clocks that are set under a search: by a time server, by a person, or by going on on another machine."""

from __future__ import annotations

import itertools
import json
import threading
import time
from pathlib import Path

import pytest

from search import clock
from search.control import Stop
from search.journal import Journal, read_journal
from search.records import EpochRecord, Objective, SearchRecord, Status, TrialRecord

_DAY = 86_400.0
_OBJECTIVES = [Objective("val/accuracy", "max")]


@pytest.fixture(autouse=True)
def wall(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process's own clock is as before when a test has moved it."""
    monkeypatch.setattr(clock, "_WALL", clock._WALL)


def _jumping(monkeypatch: pytest.MonkeyPatch) -> None:
    real, ahead = time.time, itertools.cycle((_DAY, 0.0, -_DAY))
    monkeypatch.setattr(time, "time", lambda: real() + next(ahead))


def _train(journal: Journal, number: int, epochs: int = 3) -> TrialRecord:
    trial = TrialRecord(f"t{number:04d}", number, f"t{number:04d}-lora", {"lora.rank": 1}, 10, started=clock.now())
    journal.started(trial)
    for epoch in range(1, epochs + 1):
        journal.epoch(trial, EpochRecord(epoch, {"val/accuracy": 0.5}, 0.1))
    return trial


def _times(directory: Path) -> list[float]:
    lines = (directory / "journal.jsonl").read_text().splitlines()
    return [json.loads(line)["time"] for line in lines]


def _sane(record: SearchRecord) -> bool:
    """Every trial's times are in order, and so are those of one trial after the other."""
    starts = [trial.started for trial in record.trials]
    ends = [trial.ended for trial in record.trials if trial.ended is not None]
    spans = [
        trial.started <= incident.time <= (trial.ended or incident.time)
        for trial in record.trials
        for incident in trial.incidents
    ]
    lasted = [trial.ended - trial.started for trial in record.trials if trial.ended is not None]
    return starts == sorted(starts) and ends == sorted(ends) and all(spans) and all(0 <= span < 60 for span in lasted)


def test_a_clock_that_jumps_changes_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.time()
    stop = Stop(threading.Event(), time.monotonic() + 60)
    _jumping(monkeypatch)
    journal = Journal.create(tmp_path, SearchRecord("demo", str(tmp_path), _OBJECTIVES, {}))
    for number in (1, 2, 3):
        trial = _train(journal, number)
        journal.incident(trial, "worker", "it died")
        journal.ended(trial, Status.COMPLETE)
        assert not stop.out_of_time
    journal.close()
    times = _times(tmp_path)
    assert times == sorted(times) and all(abs(when - began) < 30 for when in times)
    assert _sane(journal.record) and _sane(read_journal(tmp_path))
    assert 0 <= read_journal(tmp_path).seconds < 30
    spent = Stop(threading.Event(), time.monotonic() - 0.001)
    assert spent.out_of_time and spent.now


@pytest.mark.parametrize("behind", [_DAY, -_DAY])
def test_going_on_where_the_clock_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behind: float) -> None:
    journal = Journal.create(tmp_path, SearchRecord("demo", str(tmp_path), _OBJECTIVES, {}))
    journal.ended(_train(journal, 1), Status.COMPLETE)
    _train(journal, 2, epochs=1)
    journal.close()
    monkeypatch.setattr(clock, "_WALL", clock._WALL - behind)
    resumed = Journal.reopen(tmp_path)
    trial = resumed.trial("t0002")
    resumed.incident(trial, "node", "it went away")
    resumed.epoch(trial, EpochRecord(2, {"val/accuracy": 0.5}, 0.1))
    resumed.ended(_train(resumed, 3), Status.COMPLETE)
    resumed.close()
    times = _times(tmp_path)
    assert times == sorted(times)
    assert _sane(resumed.record) and _sane(read_journal(tmp_path))
    assert 0 <= read_journal(tmp_path).seconds < 30, "the day between the sessions was not spent"


def test_a_journal_whose_times_go_back(tmp_path: Path) -> None:
    """As written before journals went on from their last time."""
    journal = Journal.create(tmp_path, SearchRecord("demo", str(tmp_path), _OBJECTIVES, {}))
    trial = _train(journal, 1)
    journal.note("resumed")
    journal.incident(trial, "node", "it went away")
    journal.ended(trial, Status.COMPLETE)
    journal.ended(_train(journal, 2), Status.COMPLETE)
    journal.close()
    path, back = tmp_path / "journal.jsonl", 0.0
    events = [json.loads(line) for line in path.read_text().splitlines()]
    for event in events:
        back = _DAY if event["event"] == "resumed" else back
        event["time"] -= back
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    record = read_journal(tmp_path)
    assert _sane(record) and 0 <= record.seconds < 30
