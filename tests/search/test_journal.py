from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from petl.errors import UserError
from search.journal import FORMAT, Journal, read_journal
from search.records import EpochRecord, Objective, SearchRecord, Status, TrialRecord

ROOT = Path(__file__).parents[2]
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


_HEAD = '{"event": "search", "format": "FORMAT", "name": "x", "objectives": [], "info": {}}'.replace("FORMAT", FORMAT)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "holds no journal.jsonl"),
        ("", "nothing was recorded"),
        ('{"event": "search", "format": "other/9"}\n', "this version reads"),
        ("nonsense\n{}\n", "line 1: not JSON"),
        (f'{_HEAD}\n{{"event": "end", "trial": "t9", "status": "complete"}}\n', "line 2: KeyError: 't9'.*Put a copy"),
        (f'{_HEAD}\n{{"event": "trial", "trial": "t1"}}\n', "line 2: KeyError: 'number'"),
        ('{"event": "trial"}\n', "does not begin with the search"),
    ],
)
def test_other_things_are_refused(tmp_path: Path, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / "journal.jsonl").write_text(content)
    with pytest.raises(UserError, match=said):
        read_journal(tmp_path)


def test_incidents_and_new_facts_are_kept(tmp_path: Path) -> None:
    journal = _journal(tmp_path)
    journal.incident(journal.trial("t0003"), "hung", "no answer for 600 s", "in forward")
    journal.close()
    again = Journal.reopen(tmp_path, {"storage_root": "s3://bucket/demo"})
    again.close()
    read = read_journal(tmp_path)
    (incident,) = next(t for t in read.trials if t.id == "t0003").incidents
    assert (incident.kind, incident.reason, incident.epoch, incident.stack) == (
        "hung",
        "no answer for 600 s",
        1,
        "in forward",
    )
    assert read.info == {"labels": ["ä", "b"], "storage_root": "s3://bucket/demo"} == again.record.info


def test_text_with_line_separators_of_unicode_is_one_line(tmp_path: Path) -> None:
    journal = _journal(tmp_path)
    odd = "a\u2028b\u2029c\u0085d"
    journal.incident(journal.trial("t0003"), "error", odd)
    journal.close()
    assert read_journal(tmp_path).trials[2].incidents[0].reason == odd


def test_a_line_that_does_not_fit_on_the_disk_is_no_part_of_the_journal(tmp_path: Path) -> None:
    """A file size limit stands for a full disk; other than that it can be set for one process."""
    program = f"""
import resource, signal, sys
from pathlib import Path
from search.journal import Journal
from tests.search.test_journal import _journal

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = _journal(Path({str(tmp_path)!r}))
size = (Path({str(tmp_path)!r}) / "journal.jsonl").stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, size + 100))
try:
    journal.note("problem", what="x" * 500)
except OSError:
    journal.note("a")  # a short one fits
    sys.exit(0)
sys.exit(1)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "journal.jsonl").read_text().split("\n")
    assert lines[-1] == "" and json.loads(lines[-2])["event"] == "a"
    assert len(read_journal(tmp_path).trials) == 3
