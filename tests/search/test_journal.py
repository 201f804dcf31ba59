from __future__ import annotations

from pathlib import Path

import pytest

from petl.errors import UserError
from search.journal import Journal, read_journal
from search.records import EpochRecord, Objective, SearchRecord, Status, TrialRecord

OBJECTIVES = [Objective("val/accuracy", "max"), Objective("trainable_params", "min", bound_max=1e6)]


def _journal(directory: Path) -> Journal:
    journal = Journal.create(directory, SearchRecord("demo", str(directory), OBJECTIVES, {"labels": ["ä", "b"]}))
    for number in (1, 2, 3):
        trial = TrialRecord(
            f"t{number:04d}", number, f"t{number:04d}-lora", {"method": "lora", "lora.rank": number}, 10
        )
        journal.started(trial)
        journal.epoch(trial, EpochRecord(1, {"val/accuracy": number / 10, "train/loss": float("nan")}, 0.5))
    journal.ended(journal.trial("t0001"), Status.COMPLETE)
    journal.ended(journal.trial("t0002"), Status.FAILED, "diverged: the loss became nan")
    journal.rejected({"method": "full"}, 99, "too many")
    return journal


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    journal = _journal(tmp_path)
    journal.close()
    read = read_journal(tmp_path)
    assert (read.name, read.objectives, read.info) == ("demo", OBJECTIVES, {"labels": ["ä", "b"]})
    assert [(t.id, t.status, t.params) for t in read.trials] == [
        ("t0001", Status.COMPLETE, {"method": "lora", "lora.rank": 1}),
        ("t0002", Status.FAILED, {"method": "lora", "lora.rank": 2}),
        ("t0003", Status.RUNNING, {"method": "lora", "lora.rank": 3}),
    ]
    assert read.trials[1].reason == "diverged: the loss became nan"
    assert read.trials[0].epochs[0].metrics["val/accuracy"] == 0.1
    assert read.trials[0].epochs[0].metrics["train/loss"] != read.trials[0].epochs[0].metrics["train/loss"]
    assert read.rejected[0]["trainable_params"] == 99


def test_an_epoch_reported_twice_counts_once(tmp_path: Path) -> None:
    journal = _journal(tmp_path)
    trial = journal.trial("t0003")
    assert not journal.epoch(trial, EpochRecord(1, {"val/accuracy": 0.9}, 0.5))
    assert journal.epoch(trial, EpochRecord(2, {"val/accuracy": 0.4}, 0.5))
    journal.close()
    assert [e.metrics["val/accuracy"] for e in read_journal(tmp_path).trials[2].epochs] == [0.3, 0.4]


@pytest.mark.parametrize("cut", [1, 7, 40])
def test_a_torn_last_line_costs_only_itself(tmp_path: Path, cut: int) -> None:
    _journal(tmp_path).close()
    path = tmp_path / "journal.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    journal = Journal.reopen(tmp_path)
    assert len(journal.record.trials) == 3 and not journal.record.rejected
    journal.ended(journal.trial("t0003"), Status.STOPPED, "later")
    journal.close()
    assert read_journal(tmp_path).trials[2].status is Status.STOPPED


def test_time_between_sessions_does_not_count(tmp_path: Path) -> None:
    _journal(tmp_path).close()
    lines = (tmp_path / "journal.jsonl").read_text().splitlines()
    first = [line.replace('"time": ', '"time": 0.0, "was": ') for line in lines]
    (tmp_path / "journal.jsonl").write_text("\n".join(first) + "\n")
    Journal.reopen(tmp_path).close()
    assert read_journal(tmp_path).seconds < 5


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "holds no journal.jsonl"),
        ("", "nothing was recorded"),
        ('{"event": "search", "format": "other/9"}\n', "this version reads"),
        ("nonsense\n{}\n", "line 1: not JSON"),
        ('{"event": "trial"}\n', "does not begin with the search"),
    ],
)
def test_other_things_are_refused(tmp_path: Path, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / "journal.jsonl").write_text(content)
    with pytest.raises(UserError, match=said):
        read_journal(tmp_path)
