"""The audit: silent about a sound run, and every check of it can fail."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from search.journal import Journal
from search.leaderboard import write_leaderboard
from search.records import SearchRecord, Status
from search.report import write_report
from search.tables import write_trials
from search.tracking import Tracker
from tests.faults.audit import audit
from tests.search.fake_search import fake_record


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search of eleven trials in `run`, delivered to `mlflow.db` beside it."""
    root = tmp_path_factory.mktemp("audited")
    made = fake_record(11, epochs=9, directory=str(root / "run"))
    made.info["search_id"] = "feed"
    made.trials[3].epochs[1].metrics["val/loss"] = float("nan")
    _write(root / "run", made, f"sqlite:///{root}/mlflow.db")
    return root


def _write(directory: Path, made: SearchRecord, uri: str) -> None:
    directory.mkdir()
    empty = SearchRecord(made.name, str(directory), made.objectives, made.info)
    journal, tracker = Journal.create(directory, empty), Tracker(uri, made.name, directory)
    tracker.start(empty, params={"epochs": 9})
    for trial in made.trials:
        epochs, status, trial.epochs, trial.status = trial.epochs, trial.status, [], Status.RUNNING
        journal.started(trial)
        tracker.trial_started(trial)
        for epoch in epochs:
            journal.epoch(trial, epoch)
            tracker.epoch(trial, epoch)
        journal.ended(trial, status, trial.reason)
        tracker.trial_ended(trial)
        (directory / "checkpoints" / trial.id).mkdir(parents=True)
        _safetensors(directory / "checkpoints" / trial.id / "best.safetensors")
    empty.winner, empty.test = made.winner, made.test
    journal.note("finished", winner=made.winner, test=made.test, info={})
    journal.close()
    write_trials(empty, directory / "trials.parquet")
    write_leaderboard(empty, directory / "leaderboard.csv")
    write_report(empty, directory / "report.html", command_lines=[])
    winner = journal.trial(str(made.winner))
    best = winner.best(made.objectives[0])
    assert best is not None
    (directory / "best.yaml").write_text(yaml.safe_dump({"name": winner.name, "config": winner.params}))
    (directory / "best").mkdir()
    _safetensors(directory / "best" / "adapter_model.safetensors")
    provenance = {"metadata": {"provenance": {"trial": winner.name, "epoch": best.epoch}}}
    (directory / "best" / "petl_config.json").write_text(json.dumps(provenance))
    tracker.finish(empty)
    tracker.close()


def _safetensors(path: Path) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))


def _lines(run: Path, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    path = run / "journal.jsonl"
    events = [json.loads(line) for line in path.read_text().splitlines()]
    change(events)
    path.write_text("".join(json.dumps(event) + "\n" for event in events))


def _first(events: list[dict[str, Any]], kind: str, trial: str) -> int:
    return next(i for i, e in enumerate(events) if e["event"] == kind and e.get("trial") == trial)


def _sub(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def _no_last_line_feed(run: Path) -> None:
    path = run / "journal.jsonl"
    path.write_bytes(path.read_bytes() + b'{"event": "ep')


def _winner(run: Path) -> str:
    events = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    return str(next(e["winner"] for e in events if e["event"] == "finished"))


def _another_winner(run: Path) -> None:
    other = "t0001" if _winner(run) != "t0001" else "t0002"
    _lines(run, lambda events: [e.update(winner=other) for e in events if e["event"] == "finished"])


def _copied(run: Path, kind: str, trial: str) -> None:
    _lines(run, lambda events: events.insert(_first(events, kind, trial) + 1, events[_first(events, kind, trial)]))


def _dropped(run: Path, kind: str, trial: str) -> None:
    _lines(run, lambda events: events.pop(_first(events, kind, trial)))


def _value(run: Path) -> None:
    _lines(run, lambda events: events[_first(events, "epoch", "t0002")]["metrics"].update({"train/loss": 7.5}))


def _status(run: Path) -> None:
    _lines(run, lambda events: events[_first(events, "end", "t0009")].update(status="stopped"))


_BROKEN: dict[str, tuple[Callable[[Path], Any], list[str]]] = {
    "torn journal": (_no_last_line_feed, ["its last line is torn"]),
    "trial twice": (lambda run: _copied(run, "trial", "t0004"), ["t0004 begins a second time"]),
    "trial gone": (
        lambda run: _dropped(run, "trial", "t0004"),
        ["epoch of t0004, which never began", "trials are numbered", "t0004 is not in the journal", "no trial of this"],
    ),
    "epoch twice": (lambda run: _copied(run, "epoch", "t0004"), ["t0004 has epoch 1 twice"]),
    "epoch gone": (lambda run: _dropped(run, "epoch", "t0004"), ["not 1 to", "trials.parquet: t0004: epochs [1"]),
    "end twice": (lambda run: _copied(run, "end", "t0004"), ["end of t0004, which was"]),
    "no end": (lambda run: _dropped(run, "end", "t0004"), ["t0004 still runs", "t0004: status is"]),
    "value": (_value, ["t0002: train/loss of epoch 1 is"]),
    "status": (_status, ["t0009 is stopped without an epoch", "t0009: status is 'failed'", "t0009 is failed, in the"]),
    "another winner": (_another_winner, ["the best is", "report.html: the winner is", "best.yaml: of", "best/: of"]),
    "no table": (lambda run: (run / "trials.parquet").unlink(), ["trials.parquet: missing"]),
    "no report": (lambda run: (run / "report.html").unlink(), ["report.html: missing"]),
    "report": (lambda run: _sub(run / "report.html", "<h2>The winner: ", "<h2>The winner: x"), ["report.html: the"]),
    "report so far": (
        lambda run: _sub(run / "report.html", "<h2>The winner: ", "<h2>The winner so far: "),
        ["so far, not"],
    ),
    "trial file": (lambda run: (run / "best.yaml").unlink(), ["best.yaml: missing"]),
    "trial file's parameters": (lambda run: _sub(run / "best.yaml", "optim.lr: 0.0", "optim.lr: 0.1"), ["optim.lr is"]),
    "half an adapter": (lambda run: (run / "best" / "petl_config.json").unlink(), ["not a whole adapter"]),
    "adapter's epoch": (
        lambda run: _sub(run / "best" / "petl_config.json", '"epoch": ', '"epoch": 9'),
        ["best/: of"],
    ),
    "torn adapter": (
        lambda run: (run / "best" / "adapter_model.safetensors").write_bytes(b"12345678"),
        ["adapter_model.safetensors: torn"],
    ),
    "temporary checkpoint": (
        lambda run: (run / "checkpoints" / "t0001" / "last-17.tmp").touch(),
        ["last-17.tmp is an unfinished file"],
    ),
    "short checkpoint": (
        lambda run: (run / "checkpoints" / "t0001" / "best.safetensors").open("ab").write(b"x"),
        ["its header says"],
    ),
    "no checkpoints": (lambda run: shutil.rmtree(run / "checkpoints"), ["checkpoints is missing"]),
    "unknown checkpoint": (lambda run: (run / "checkpoints" / "t0777").mkdir(), ["t0777 is no trial"]),
    "spool": (lambda run: (run / "mlflow-spool.jsonl").touch(), ["undelivered"]),
    "temporary file": (lambda run: (run / "report.html.part").touch(), ["report.html.part is an unfinished file"]),
    "leaderboard": (lambda run: _sub(run / "leaderboard.csv", "failed", "stopped"), ["leaderboard.csv: t0009"]),
}


def test_a_sound_run_has_no_contradiction(sound: Path) -> None:
    assert audit(sound / "run", f"sqlite:///{sound}/mlflow.db") == []


@pytest.mark.parametrize("case", _BROKEN)
def test_files_that_disagree(case: str, sound: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(sound / "run", run)
    assert audit(run, None) == []
    change, wanted = _BROKEN[case]
    change(run)
    found = audit(run, None)
    for text in wanted:
        assert any(text in line for line in found), (text, found)


def test_an_unfinished_trial_needs_a_checkpoint_to_go_on_from(sound: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(sound / "run", run)
    _lines(run, lambda events: events.pop(_first(events, "end", "t0004")))
    _lines(run, lambda events: events.pop())  # "finished"
    assert "checkpoints: t0004 is to go on after epoch 3, but has none" in audit(run, None)


def test_mlflow_that_disagrees(sound: Path, tmp_path: Path) -> None:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    shutil.copytree(sound, tmp_path, dirs_exist_ok=True)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = MlflowClient(uri)
    experiments = [e.experiment_id for e in client.search_experiments()]
    runs = {r.data.tags.get("petl.trial_id", "search"): r for r in client.search_runs(experiments)}
    id = {trial: run.info.run_id for trial, run in runs.items()}

    def again(trial: str) -> None:
        tags = {k: v for k, v in runs[trial].data.tags.items() if k != "mlflow.runName"}
        client.create_run(runs[trial].info.experiment_id, tags=tags, run_name=trial)

    again("t0000")
    client.delete_run(id["t0001"])
    client.log_metric(id["t0002"], "val/accuracy", 0.5, step=1)
    client.log_metric(id["t0003"], "train/loss", 0.5, step=77)
    client.log_batch(id["t0005"], metrics=[Metric("val/odd", 1.0, 1, 1)])
    client.update_run(id["t0006"], status="RUNNING")
    client.set_tag(id["t0007"], "status", "failed")
    client.set_tag(id["t0008"], "mlflow.parentRunId", "nobody")
    client.log_param(id["t0009"], "lora.rank", "5")
    client.update_run(id["t0010"], name="somebody")
    client.set_tag(id["search"], "winner", "t0000")
    client.update_run(id["search"], status="RUNNING")
    client.log_metric(id["search"], "test/accuracy", 0.1)
    for trial in ("t0000", "t0004"):
        client.set_tag(id[trial], "winner", "true")
    _lines(tmp_path / "run", lambda events: events[_first(events, "epoch", "t0004")]["metrics"].update({"val/loss": 9}))
    found = audit(tmp_path / "run", uri)
    for text in (
        "t0000 has 2 runs",
        "t0001 has no run",
        "t0002: val/accuracy: epochs twice: [1]",
        "t0003: train/loss: epochs not in the journal: [77]",
        "t0004: val/loss of epoch 1 is",
        "t0004: tagged winner=true",
        "t0005: val/odd is not in the journal",
        "t0006: its run is RUNNING, the trial",
        "t0007: its run is tagged failed",
        "the run of t0008 is no child",
        "t0009: parameters differ: lora.rank",
        "t0010: its run is called somebody",
        "the search's run is RUNNING",
        "MLflow: the winner is t0000, not",
        "test/accuracy of the search is 0.1",
    ):
        assert any(text in line for line in found), (text, found)
    again("search")
    assert "MLflow: 2 parent runs of search feed" in audit(tmp_path / "run", uri)
