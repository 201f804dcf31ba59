"""The tracker against real MLflow stores in SQLite files; `test_mlflow_server` has the servers."""

from __future__ import annotations

import contextlib
import io
import json
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from petl.errors import UserError
from search.commands.sync import sync
from search.journal import Journal
from search.mlflow_address import shown, sqlite_path
from search.mlflow_store import Dataset, MlflowStore
from search.records import EpochRecord, Incident, Objective, SearchRecord, Status, TrialRecord
from search.result_tables import write_tables
from search.tracking import SPOOL, MlflowAway, Tracker, check, default_uri, resolve_uri, ui_command
from tests.search.mlflow_servers import free_port, server

DATA = Dataset("esc50", "d" * 64, "/data/esc10", profile={"clips": 400, "classes": 10})
TAGS = {"petl.space_digest": "s1", "petl.data_digest": "d1", "petl.backbone": "embedded"}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store, made once: making one takes seconds."""
    folder = tmp_path_factory.mktemp("store")
    MlflowStore(f"sqlite:///{folder}/mlflow.db", "x").open("none", "none")
    return folder / "mlflow.db"


@pytest.fixture
def uri(template: Path, tmp_path: Path) -> str:
    (tmp_path / "mlflow.db").write_bytes(template.read_bytes())
    return f"sqlite:///{tmp_path}/mlflow.db"


def make_record(tmp_path: Path, name: str = "moa") -> SearchRecord:
    (tmp_path / "run").mkdir(exist_ok=True)
    objectives = [Objective("val/accuracy", "max"), Objective("trainable_params", "min")]
    info = {"search_id": "abc123", "git_commit": "f" * 40 + "-dirty"}
    return SearchRecord(name, str(tmp_path / "run"), objectives, info)


def make_trial(record: SearchRecord, **more: Any) -> TrialRecord:
    n = len(record.trials)
    params = {"method": "lora", "lora.rank": 12 + n, "optim.lr": 0.005}
    trial = TrialRecord(f"t{n:04d}", n, f"t{n:04d}-lora-k{12 + n}", params, 50_000 + n, started=time.time(), **more)
    record.trials.append(trial)
    return trial


def train(tracker: Tracker | None, trial: TrialRecord, epochs: int) -> None:
    for _ in range(epochs):
        n = len(trial.epochs) + 1
        metrics = {"train/loss": 2.0 / n, "val/accuracy": 0.3 + 0.02 * (n if n < 20 else 40 - n)}
        trial.epochs.append(EpochRecord(n, metrics, 1.5))
        if tracker is not None:
            tracker.epoch(trial, trial.epochs[-1])


def end(tracker: Tracker | None, trial: TrialRecord, status: Status = Status.COMPLETE, reason: str = "") -> None:
    trial.status, trial.reason, trial.ended = status, reason, time.time()
    if tracker is not None:
        tracker.trial_ended(trial)


def client(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(uri)


def runs(uri: str) -> tuple[list[Any], dict[str, Any]]:
    """(parents, children by trial id) of the whole store."""
    c = client(uri)
    found = [r for e in c.search_experiments() for r in c.search_runs([e.experiment_id], max_results=5000)]
    parents = [r for r in found if r.data.tags.get("petl.kind") == "search" and r.info.run_name != "none"]
    children = [r for r in found if r.data.tags.get("petl.kind") == "trial"]
    by_id = {r.data.tags["petl.trial_id"]: r for r in children}
    assert len(by_id) == len(children), "a trial has two runs"
    return parents, by_id


def steps(uri: str, run: Any, key: str) -> list[int]:
    """Epochs at which a metric was logged, in order; one that was logged twice is there twice."""
    return sorted(m.step for m in client(uri).get_metric_history(run.info.run_id, key))


def synced(record: SearchRecord, uri: str | None = None) -> str:
    """What `petl-search sync` did, the journal being what it is after `record`."""
    directory = Path(record.directory)
    if not (directory / "journal.jsonl").exists():
        write_journal(record)
    out = Console(file=io.StringIO(), width=1000)
    assert sync(directory, uri, out, out) == 0
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue().partition(";")[0]


def wait_for_threads() -> None:
    """Until no tracker is in the middle of a request that it was too late for."""
    for thread in threading.enumerate():
        if thread.name == "mlflow-tracker":
            thread.join(60)
            assert not thread.is_alive()


def write_journal(record: SearchRecord, *notes: str) -> None:
    """The journal of a search that came as far as `record`, and what it said at its end."""
    empty = replace(record, trials=[])
    journal = Journal.create(Path(record.directory), empty)
    for trial in record.trials:
        fresh = replace(trial, epochs=[], incidents=[], status=Status.RUNNING)
        journal.started(fresh)
        for epoch in trial.epochs:
            journal.epoch(fresh, epoch)
        for incident in trial.incidents:
            journal.incident(fresh, incident.kind, incident.reason)
        if trial.status is not Status.RUNNING:
            journal.ended(fresh, trial.status, trial.reason)
    for note in notes:
        journal.note(note, winner=record.winner, test=record.test)
    journal.close()


def test_tree_names_statuses_tags_and_results(uri: str, tmp_path: Path) -> None:
    record = make_record(tmp_path)
    tracker = Tracker(uri, "moa")
    parent_id = tracker.start(record, TAGS, {"epochs": 27, "budget.trials": 3}, DATA)
    ends = ((Status.COMPLETE, ""), (Status.STOPPED, "among the worse at epoch 3"), (Status.FAILED, "diverged: nan"))
    for status, reason in ends:
        trial = make_trial(record, enqueued=status is Status.COMPLETE)
        tracker.trial_started(trial)
        train(tracker, trial, {"complete": 27, "stopped": 3, "failed": 1}[status])
        end(tracker, trial, status, reason)
    record.winner, record.test, record.seconds = "t0000", {"test/accuracy": 0.61}, 12.0
    record.rejected.append({"params": {}, "trainable_params": 9, "reason": "over"})
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "adapter_config.json").write_text("{}")
    (tmp_path / "report.html").write_text("<html>")
    (tmp_path / "loss.png").write_bytes(b"png")
    files: list[Path | tuple[Path, str]] = [tmp_path / "report.html", tmp_path / "best"]
    files.append((tmp_path / "loss.png", "figures"))
    tracker.finish(record, files, {"wait": 0.5})
    tracker.close()
    tracker.close()

    (parent,), children = runs(uri)
    assert parent.info.run_id == parent_id and parent.info.run_name == "run"
    assert parent.info.status == "FINISHED" and parent.data.tags["status"] == "complete"
    assert parent.data.params == {"epochs": "27", "budget.trials": "3"}
    assert parent.data.tags.items() >= {**TAGS, "winner": "t0000-lora-k12", "petl.git_dirty": "true"}.items()
    assert parent.data.metrics["test/accuracy"] == 0.61 and parent.data.metrics["wait"] == 0.5
    assert parent.data.metrics["trials/stopped"] == parent.data.metrics["trials/rejected"] == 1
    assert {n: c.info.status for n, c in children.items()} == {
        "t0000": "FINISHED",
        "t0001": "FINISHED",
        "t0002": "FAILED",
    }
    whole = children["t0000"]
    assert whole.info.run_name == "t0000-lora-k12"
    assert whole.data.params == {"method": "lora", "lora.rank": "12", "optim.lr": "0.005"}
    assert whole.data.tags.items() >= {**TAGS, "mlflow.parentRunId": parent_id, "status": "complete"}.items()
    assert whole.data.tags["mlflow.source.git.commit"] == "f" * 40
    assert whole.data.tags["winner"] == "true" and whole.data.tags["petl.enqueued"] == "true"
    assert children["t0001"].data.tags["reason"] == "among the worse at epoch 3"
    assert children["t0002"].data.tags.items() >= {"status": "failed", "reason": "diverged: nan"}.items()
    for key in ("train/loss", "val/accuracy", "seconds"):
        assert steps(uri, whole, key) == list(range(1, 28))
    assert whole.data.metrics["val/best_accuracy"] == pytest.approx(0.7)
    assert steps(uri, whole, "val/best_accuracy") == steps(uri, whole, "test/accuracy") == [20]
    assert whole.data.metrics["trainable_params"] == 50_000
    assert whole.info.end_time >= whole.info.start_time
    for run in (parent, whole):
        (data,) = client(uri).get_run(run.info.run_id).inputs.dataset_inputs
        assert (data.dataset.name, data.dataset.digest) == ("esc50", "d" * 36)
        assert json.loads(data.dataset.profile) == {"clips": 400, "classes": 10}
    listed = {f.path for p in (None, "best", "figures") for f in client(uri).list_artifacts(parent_id, p)}
    assert listed >= {"report.html", "best/adapter_config.json", "figures/loss.png"}
    assert (tmp_path / "mlartifacts" / "moa" / parent_id / "artifacts" / "report.html").read_text() == "<html>"
    assert not (tmp_path / "run" / SPOOL).exists()


def test_twenty_four_trials_arrive_whole_and_cost_the_search_nothing(uri: str, tmp_path: Path) -> None:
    record = make_record(tmp_path)
    tracker = Tracker(uri, "moa")
    tracker.start(record, TAGS, {}, DATA)
    slowest = spent = 0.0
    for _ in range(24):
        trial = make_trial(record)
        tracker.trial_started(trial)
        for _ in range(27):
            train(None, trial, 1)
            began = time.perf_counter()
            tracker.epoch(trial, trial.epochs[-1])
            took = time.perf_counter() - began
            slowest, spent = max(slowest, took), spent + took
        end(tracker, trial)
    began = time.perf_counter()
    tracker.finish(record)
    tracker.close()
    print(f"epoch event: mean {1e6 * spent / 648:.1f} µs; delivery of 648 epochs: {time.perf_counter() - began:.2f} s")
    assert spent / 648 < 1e-3
    _, children = runs(uri)
    assert len(children) == 24
    assert all(
        c.info.status == "FINISHED" and steps(uri, c, "seconds") == list(range(1, 28)) for c in children.values()
    )


_KILLED_DRIVER = """
import os, sys, time
sys.path.insert(0, {root!r})
from pathlib import Path
from search.tracking import Tracker
from tests.search.test_tracking import end, make_record, make_trial, train
record = make_record(Path({folder!r}))
tracker = Tracker({uri!r}, "moa")
tracker.start(record, {{}}, {{"budget.trials": 24}})
first, second, third = (make_trial(record) for _ in range(3))
for trial in (first, second):
    tracker.trial_started(trial)
train(tracker, first, 5)
end(tracker, first)
train(tracker, second, 3)
while not tracker.delivered():
    time.sleep(0.05)
tracker.trial_started(third)  # in the queue when the driver dies
os.kill(os.getpid(), 9)
"""


def test_a_killed_driver_is_resumed_without_duplicates(uri: str, tmp_path: Path) -> None:
    root = str(Path(__file__).parents[2])
    code = _KILLED_DRIVER.format(root=root, folder=str(tmp_path), uri=uri)
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert killed.returncode == -9, killed.stderr
    (parent,), children = runs(uri)
    assert parent.info.status == "RUNNING" and children["t0001"].info.status == "RUNNING"
    before = {n: c.info.run_id for n, c in children.items()}
    ended = children["t0000"].info.end_time

    record = make_record(tmp_path)  # what the journal says
    first, second, third = (make_trial(record) for _ in range(3))
    train(None, first, 5)
    end(None, first)
    train(None, second, 4)  # one epoch more than MLflow got
    train(None, third, 2)
    end(None, third, Status.STOPPED, "rung 3")  # never reached MLflow
    tracker = Tracker(uri, "moa")
    assert tracker.start(record, {}, {"budget.trials": 30}) == parent.info.run_id
    tracker.trial_started(second)
    tracker.epoch(second, second.epochs[-1])  # the retry reports its last epoch again
    train(tracker, second, 2)
    end(tracker, second)
    tracker.finish(record)
    tracker.close()

    (parent,), children = runs(uri)
    assert parent.info.status == "FINISHED"
    assert parent.data.params == {"budget.trials": "24"} and parent.data.tags["resumed.budget.trials"] == "30"
    assert {n: children[n].info.run_id for n in before} == before and set(children) == {"t0000", "t0001", "t0002"}
    assert all(c.info.status == "FINISHED" for c in children.values())
    assert children["t0000"].info.end_time == ended, "a finished trial was touched"
    assert [steps(uri, children[n], "val/accuracy") for n in sorted(children)] == [
        [1, 2, 3, 4, 5],
        [1, 2, 3, 4, 5, 6],
        [1, 2],
    ]
    assert children["t0002"].data.tags["reason"] == "rung 3"


def test_interrupted_is_killed_and_continues_in_the_same_runs(uri: str, tmp_path: Path) -> None:
    record = make_record(tmp_path)
    tracker = Tracker(uri, "moa")
    tracker.start(record)
    done, cut = make_trial(record), make_trial(record)
    for trial in (done, cut):
        tracker.trial_started(trial)
        train(tracker, trial, 3)
    end(tracker, done)
    tracker.interrupted()
    tracker.close()
    (parent,), children = runs(uri)
    assert parent.info.status == children["t0001"].info.status == "KILLED"
    assert parent.data.tags["status"] == children["t0001"].data.tags["status"] == "interrupted"
    assert children["t0000"].info.status == "FINISHED"

    again = Tracker(uri, "moa")
    again.start(record)
    assert runs(uri)[0][0].info.status == "RUNNING"
    again.trial_started(cut)
    train(again, cut, 2)
    end(again, cut)
    again.finish(record)
    again.close()
    (parent,), after = runs(uri)
    assert parent.info.status == after["t0001"].info.status == "FINISHED"
    assert after["t0001"].info.run_id == children["t0001"].info.run_id
    assert steps(uri, after["t0001"], "seconds") == [1, 2, 3, 4, 5]


def test_a_run_that_a_given_up_request_made_goes_to_the_bin(uri: str, tmp_path: Path) -> None:
    """A server that hung carries out later what was asked of it, after it has been asked again."""
    record = make_record(tmp_path)
    tracker = Tracker(uri, "moa")
    tracker.start(record)
    trial = make_trial(record)
    tracker.trial_started(trial)
    train(tracker, trial, 2)
    end(tracker, trial)
    while not tracker.delivered():
        time.sleep(0.05)
    c = client(uri)
    (parent,), children = runs(uri)
    for run in (parent, children["t0000"]):
        made = {k: v for k, v in run.data.tags.items() if k.startswith(("petl.", "mlflow.parent"))}
        c.create_run(run.info.experiment_id, tags={**made, "status": "running"}, start_time=run.info.start_time)
    tracker.finish(record)
    tracker.close()
    (parent,), children = runs(uri)
    assert parent.info.status == children["t0000"].info.status == "FINISHED"
    assert steps(uri, children["t0000"], "seconds") == [1, 2]
    binned = c.search_runs([parent.info.experiment_id], run_view_type=2)  # deleted ones only
    assert len(binned) == 2 and {run.info.status for run in binned} == {"KILLED"}


@pytest.mark.parametrize(("error", "status"), [(RuntimeError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_no_run_is_left_running_whatever_the_end(
    uri: str, tmp_path: Path, error: type[BaseException], status: str
) -> None:
    record = make_record(tmp_path)
    with contextlib.suppress(error), Tracker(uri, "moa") as tracker:
        tracker.start(record)
        tracker.trial_started(make_trial(record))
        raise error
    (parent,), children = runs(uri)
    assert parent.info.status == status and children["t0000"].info.status == "KILLED"


def test_an_exit_without_close_still_ends_the_runs(uri: str, tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
        "from pathlib import Path; from search.tracking import Tracker\n"
        "from tests.search.test_tracking import make_record, make_trial\n"
        f"r = make_record(Path({str(tmp_path)!r})); t = Tracker({uri!r}, 'moa'); t.start(r)\n"
        "t.trial_started(make_trial(r)); raise SystemExit(3)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120, check=False).returncode == 3
    (parent,), children = runs(uri)
    assert parent.info.status == "FAILED" and children["t0000"].info.status == "KILLED"


def test_repeats_and_tables_of_the_evaluation(uri: str, tmp_path: Path) -> None:
    record = make_record(tmp_path)
    record.objectives = [Objective("val/wer", "min")]
    record.info |= {
        "task": "speech_recognition",
        "target": "transcript",
        "protocol": "given splits",
        "reads_test": False,
    }
    record.info |= {
        "repeats": ["fold1", "fold3-draw2"],
        "confusion": {"labels": ["a", "b"], "matrix": [[3, 1], [0, 2]]},
    }
    tracker = Tracker(uri, "moa")
    tracker.start(record)
    trial = make_trial(record)
    tracker.trial_started(trial)
    for number, (one, other) in enumerate([(1.2, 1.4), (0.2, 0.4), (0.5, 0.5)], start=1):
        metrics = {"val/wer": (one + other) / 2, "val/wer_std": abs(one - other) / 2}
        metrics |= {"val/wer/fold1": one, "val/wer/fold3-draw2": other}
        trial.epochs.append(EpochRecord(number, metrics, 1.0))
        tracker.epoch(trial, trial.epochs[-1])
    end(tracker, trial)
    record.winner, record.test = trial.id, {"test/wer": 0.35, "test/wer_std": 0.1, "test/wer/fold1": 0.25}
    tracker.finish(record, [(path, "tables") for path in write_tables(record, tmp_path / "run" / "tables")])
    tracker.close()
    (parent,), children = runs(uri)
    run = children["t0000"]
    assert steps(uri, run, "val/wer/fold3-draw2") == steps(uri, run, "val/wer") == [1, 2, 3]
    assert run.data.metrics["val/best_wer"] == pytest.approx(0.3)
    assert run.data.metrics["val/best_wer_std"] == pytest.approx(0.1)
    assert steps(uri, run, "val/best_wer") == [2]
    assert parent.data.metrics.items() >= {"test/wer": 0.35, "test/wer_std": 0.1, "test/wer/fold1": 0.25}.items()
    told = {"petl.task": "speech_recognition", "petl.target": "transcript", "petl.protocol": "given splits"}
    told |= {"petl.reads_test": "false", "petl.repeats": "fold1, fold3-draw2"}
    assert parent.data.tags.items() >= told.items() and run.data.tags.items() >= told.items()
    listed = [f.path for f in client(uri).list_artifacts(parent.info.run_id, "tables")]
    assert listed == ["tables/confusion.csv", "tables/repeats.csv"]
    text = Path(client(uri).download_artifacts(parent.info.run_id, "tables/confusion.csv")).read_text().splitlines()
    assert text == ["true \\ predicted,a,b", "a,3,1", "b,0,2"]


def test_more_than_one_call_holds(uri: str, tmp_path: Path) -> None:
    record = make_record(tmp_path)
    tracker = Tracker(uri, "moa")
    tracker.start(record, {f"tag{i}": i for i in range(150)}, {f"p{i}": i for i in range(250)})
    trial = make_trial(record)
    tracker.trial_started(trial)
    for n in range(1, 301):
        trial.epochs.append(EpochRecord(n, {f"val/m{i}": i + n for i in range(8)}, 0.1))
        tracker.epoch(trial, trial.epochs[-1])
    end(tracker, trial)
    tracker.finish(record)
    tracker.close()
    (parent,), children = runs(uri)
    assert len(parent.data.params) == 250 and sum(k.startswith("tag") for k in parent.data.tags) == 150
    assert steps(uri, children["t0000"], "val/m7") == list(range(1, 301))


def test_odd_values_do_not_stop_the_rest(uri: str, tmp_path: Path) -> None:
    record = make_record(tmp_path)
    said: list[str] = []
    tracker = Tracker(uri, "moa", notify=said.append)
    tracker.start(record)
    trial = make_trial(record)
    trial.params |= {"layers": [1, 2], "note=bad key": "x" * 9000, "flag": True}
    tracker.trial_started(trial)
    odd: dict[str, Any] = {"val/loss": float("nan"), "val/peak": float("inf"), "val/odd": "no number", "val/(x)": 1.0}
    tracker.epoch(trial, EpochRecord(1, odd, 1.0))
    end(tracker, trial, Status.FAILED, "r" * 9000)
    tracker.finish(record, [tmp_path / "run" / "missing.html"])
    tracker.close()
    (parent,), children = runs(uri)
    run = children["t0000"]
    assert parent.info.status == "FINISHED" and run.info.status == "FAILED"
    assert run.data.params["layers"] == "[1, 2]" and run.data.params["flag"] == "true"
    assert run.data.metrics["val/loss"] != run.data.metrics["val/loss"]
    assert run.data.metrics["val/_x_"] == 1.0 and "val/odd" not in run.data.metrics
    assert len(said) == 2 and "missing.html" in said[0] and SPOOL in said[1]
    lines = [json.loads(line) for line in (tmp_path / "run" / SPOOL).read_text().splitlines()]
    assert [line["event"] for line in lines] == ["search", "artifact"] and "no such file" in lines[1]["refused"]
    (tmp_path / "run" / "missing.html").write_text("found again")
    assert synced(record) == "1 file delivered" and not (tmp_path / "run" / SPOOL).exists()
    assert runs(uri)[0][0].info.status == "FINISHED"
    assert [f.path for f in client(uri).list_artifacts(parent.info.run_id)] == ["missing.html"]


def test_a_store_that_is_away_at_the_end_leaves_a_spool(uri: str, tmp_path: Path) -> None:
    record, said = make_record(tmp_path), list[str]()
    tracker = Tracker(uri, "moa", notify=said.append)
    tracker.start(record, TAGS, {}, DATA)
    first = make_trial(record)
    tracker.trial_started(first)
    train(tracker, first, 2)
    while not runs(uri)[1] or steps(uri, runs(uri)[1]["t0000"], "seconds") != [1, 2]:
        time.sleep(0.1)
    database = tmp_path / "mlflow.db"
    taken = _lock_database(database)
    train(tracker, first, 2)
    end(tracker, first)
    second = make_trial(record)
    tracker.trial_started(second)
    train(tracker, second, 1)
    end(tracker, second, Status.STOPPED, "rung")
    tracker.finish(record)
    closing = threading.Thread(target=tracker.close)
    closing.start()
    time.sleep(1.0)
    began = time.monotonic()
    tracker.close()  # as a second Ctrl-C does
    assert time.monotonic() - began < 1 and (tmp_path / "run" / SPOOL).exists()
    closing.join()
    assert len(said) >= 1 and SPOOL in said[-1]
    assert len((tmp_path / "run" / SPOOL).read_text().splitlines()) == 1 + 2 + 1 + 3 + 2
    time.sleep(0.1)
    taken.close()
    # What the tracker was in the middle of is carried out now. After a search its process has ended; here it has not,
    # and two that make the same run at the same moment would make two.
    wait_for_threads()

    assert re.fullmatch("(2 runs|1 run), [13] epochs?, results delivered", synced(record))
    assert synced(record, uri) == "nothing to do"
    (parent,), children = runs(uri)
    assert parent.info.status == "FINISHED" and parent.data.metrics["trials/complete"] == 1
    assert [c.info.status for c in children.values()] == ["FINISHED", "FINISHED"]
    assert steps(uri, children["t0000"], "seconds") == [1, 2, 3, 4]
    assert children["t0001"].data.tags.items() >= {**TAGS, "reason": "rung"}.items()


def _lock_database(path: Path) -> Any:
    """Hold SQLite's write lock, as a hung process would."""
    import sqlite3

    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    return connection


def test_a_spool_that_is_not_ours_is_named(uri: str, tmp_path: Path) -> None:
    record = make_record(tmp_path)
    (tmp_path / "run" / SPOOL).write_text("{}\n")
    with pytest.raises(UserError, match=SPOOL):
        Tracker(uri, "moa").start(record)


def test_a_server_that_is_down_at_start_holds_nothing_up(tmp_path: Path) -> None:
    uri, said, record = f"http://127.0.0.1:{free_port()}", list[str](), make_record(tmp_path)
    assert "does not answer now" in check(uri)
    with pytest.raises(MlflowAway, match="nothing listens there"):
        check(uri, strict=True)
    began = time.monotonic()
    tracker = Tracker(uri, "moa", notify=said.append)
    assert tracker.start(record, TAGS, {"epochs": 27}, DATA) == "" == tracker.parent_run_id
    assert time.monotonic() - began < 8
    (first,) = said
    assert uri in first and "the search goes on" in first and str(tmp_path / "run" / SPOOL) in first
    trial = make_trial(record)
    tracker.trial_started(trial)
    train(tracker, trial, 2)
    spool = tmp_path / "run" / SPOOL
    while len(spool.read_text().splitlines()) < 4:  # what waits is on disk before the search ends
        time.sleep(0.1)
    head, *events = map(json.loads, spool.read_text().splitlines())
    assert head["params"] == {"epochs": 27} and [e["event"] for e in events] == ["trial", "epoch", "epoch"]
    tracker.interrupted()
    began = time.monotonic()
    tracker.close()
    assert time.monotonic() - began < 10
    assert "petl-search sync" in said[-1] and len(said) == 2
    assert json.loads(spool.read_text().splitlines()[-1])["status"] == "KILLED"


def test_a_server_that_never_answers_is_not_waited_for() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        assert "does not answer now" in check(uri, deadline=1.0)
        with pytest.raises(MlflowAway, match="no answer"):
            check(uri, deadline=1.0, strict=True)
        assert time.monotonic() - began < 8


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("mlflow.db", "sqlite:///FILE.db"),
        ("ftp://host/x", "Allowed"),
        ("http://:5000", "host is missing"),
        ("sqlite://", "database file"),
        ("sqlite:////proc/version/x/mlflow.db", "cannot be created"),
        ("sqlite:////proc/mlflow.db", "cannot be created"),
    ],
)
def test_wrong_addresses_are_explained(uri: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        check(uri)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("notes, not a database " * 100)
    with pytest.raises(UserError, match="cannot be used"):
        check(f"sqlite:///{tmp_path}/mlflow.db")


def test_check_describes_and_creates_nothing(uri: str, tmp_path: Path) -> None:
    assert "2 experiments" in check(uri)
    new = tmp_path / "sub" / "new.db"
    assert "will be created" in check(f"sqlite:///{new}") and not new.parent.exists()


def test_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_BACKEND_STORE_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    assert default_uri() == resolve_uri("sqlite:///mlflow.db") == f"sqlite:///{tmp_path}/mlflow.db"
    assert sqlite_path("sqlite:///x.db") == tmp_path / "x.db" and sqlite_path("http://h") is None
    assert ui_command("sqlite:///mlflow.db") == "mlflow ui"
    assert ui_command("sqlite:///x.db") == f"mlflow ui --backend-store-uri sqlite:///{tmp_path}/x.db"
    assert ui_command("http://h:5000") == "open http://h:5000"
    (tmp_path / "mlruns" / "0").mkdir(parents=True)
    (tmp_path / "mlruns" / "0" / "meta.yaml").write_text("")
    assert ui_command("sqlite:///mlflow.db") != "mlflow ui"  # it would open the old file store
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://h:1")
    assert default_uri() == "http://h:1"
    assert shown("postgresql://me:secret@h/db") == "postgresql://me:***@h/db"
    assert shown("at http://me:p@ss:w@h:5000/x, again") == "at http://me:***@h:5000/x, again"
    assert shown("postgresql://h/db?user=me&password=secret") == "postgresql://h/db?user=me&password=***"
    for address in ("ftp://me:secret@h", "https://me:a/secret@h", "https://me:1/secret@h", "https://secret/b@:x"):
        with pytest.raises(UserError) as caught:
            resolve_uri(address)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "masked"),
    [
        ("https://token@h:1/x", "https://***@h:1/x"),
        ("https://to/ken@h", "https://***@h"),
        ("http://u:a/b@h and http://u:c@d@h, http://h", "http://u:***@h and http://u:***@h, http://h"),
        ("mysql+pymysql://u:a/@:b@h/db", "mysql+pymysql://u:***@h/db"),
        ("postgresql://user@h/db", "postgresql://user@h/db"),
        ("postgresql:///mlflow", "postgresql:///mlflow"),
        ("sqlite:////home/a@b/mlflow.db", "sqlite:////home/a@b/mlflow.db"),
        ("http://h:5000", "http://h:5000"),
    ],
)
def test_passwords_of_addresses_are_masked(address: str, masked: str) -> None:
    assert shown(address) == masked


def test_incidents_are_seen_at_once_and_once(uri: str, tmp_path: Path) -> None:
    record = make_record(tmp_path)
    tracker = Tracker(uri, "moa")
    tracker.start(record)
    trial = make_trial(record)
    tracker.trial_started(trial)
    for n, kind in enumerate(("node", "worker"), start=1):
        train(tracker, trial, 1)
        trial.incidents.append(Incident(kind, "gone\nwith a stack", time.time(), n))
        tracker.incident(trial, trial.incidents[-1])
    while not tracker.delivered():
        time.sleep(0.02)
    text = "after epoch 1: node: gone\nafter epoch 2: worker: gone"
    run = runs(uri)[1]["t0000"]
    assert run.info.status == "RUNNING" and run.data.tags["petl.incidents"] == text
    for incident in trial.incidents:  # again, as after a failure
        tracker.incident(trial, incident)
    tracker.interrupted()
    tracker.close()
    run = runs(uri)[1]["t0000"]
    assert run.data.tags["petl.incidents"] == text and run.data.metrics["incidents"] == 2
    assert steps(uri, run, "incidents") == [1, 2]
    # Two more that the driver wrote down as it died; what a journal says comes by `sync`, and when it is resumed.
    trial.incidents += [Incident("hung", f"no answer {n}", time.time(), 2) for n in range(2)]
    write_journal(record, "interrupted")
    assert synced(record, uri) == "1 run, 0 epochs delivered" and synced(record, uri) == "nothing to do"
    assert runs(uri)[1]["t0000"].data.tags["petl.incidents"].count("\n") == 3
    trial.incidents.append(Incident("error", "once more", time.time(), 2))
    again = Tracker(uri, "moa")
    again.start(record)
    again.close()
    run = runs(uri)[1]["t0000"]
    assert run.data.metrics["incidents"] == 5 and run.data.tags["petl.incidents"].endswith("error: once more")


def test_many_incidents_leave_the_last(uri: str, tmp_path: Path) -> None:
    record = make_record(tmp_path)
    trial = make_trial(record)
    trial.incidents = [Incident("worker", f"{n}: " + "x" * 500, 1.0, n) for n in range(1, 101)]
    assert synced(record, uri) == "1 run, 0 epochs delivered"
    run = runs(uri)[1]["t0000"]
    assert run.data.metrics["incidents"] == 100
    assert "after epoch 0: worker: 100" in run.data.tags["petl.incidents"]


def test_a_driver_that_lost_its_run_says_no_more(uri: str, tmp_path: Path) -> None:
    record, said = make_record(tmp_path), list[str]()
    tracker = Tracker(uri, "moa", notify=said.append)
    tracker.start(record)
    trial = make_trial(record)
    tracker.trial_started(trial)
    train(tracker, trial, 2)
    while not tracker.delivered():
        time.sleep(0.02)
    before = runs(uri)[1]["t0000"].data
    taken = _lock_database(tmp_path / "mlflow.db")  # the thread is in the middle of something
    train(tracker, trial, 1)
    time.sleep(0.5)
    began = time.monotonic()
    tracker.leave()
    end(tracker, trial)
    tracker.finish(record, [tmp_path / "mlflow.db"])
    tracker.close()
    tracker.leave()
    assert time.monotonic() - began < 0.5 and tracker.delivered()
    taken.close()
    wait_for_threads()
    (parent,), children = runs(uri)
    assert parent.info.status == children["t0000"].info.status == "RUNNING"
    assert "trials/complete" not in parent.data.metrics
    assert children["t0000"].data.tags == before.tags
    assert said == [] and list((tmp_path / "run").iterdir()) == []


def test_a_driver_that_lost_its_run_leaves_no_spool(tmp_path: Path) -> None:
    record, said = make_record(tmp_path), list[str]()
    tracker = Tracker(f"http://127.0.0.1:{free_port()}", "moa", notify=said.append)
    tracker.start(record)
    trial = make_trial(record)
    tracker.trial_started(trial)
    spool = tmp_path / "run" / SPOOL
    while not spool.exists():
        time.sleep(0.02)
    tracker.leave()
    train(tracker, trial, 1)
    tracker.close()
    wait_for_threads()
    assert not spool.exists() and len(said) == 1


def test_importing_it_costs_no_heavy_library() -> None:
    code = (
        "import sys, search.tracking, search.live;"
        "print([m for m in ('torch', 'ray', 'mlflow', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_plain_mlflow_ui_shows_runs_and_artifacts(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = make_record(tmp_path)
    (tmp_path / "report.html").write_text("<html>hello")
    tracker = Tracker(uri, "moa")
    parent = tracker.start(record)
    tracker.finish(record, [tmp_path / "report.html"])
    tracker.close()
    monkeypatch.chdir(tmp_path)
    assert ui_command(uri) == "mlflow ui"
    with server(tmp_path, free_port(), ui=True) as address:
        assert client(address).get_run(parent).info.run_name == "run"
        listing = urllib.request.urlopen(f"{address}/api/2.0/mlflow/artifacts/list?run_id={parent}").read()
        assert json.loads(listing)["files"][0]["path"] == "report.html"
        got = urllib.request.urlopen(f"{address}/get-artifact?run_uuid={parent}&path=report.html").read()
        assert got == b"<html>hello"
