"""Whole searches through the command line: real Ray, real MLflow on SQLite, real audio files."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet
import pytest
import yaml

from search.journal import read_journal
from search.records import Objective, Status, TrialRecord
from tests.search.running import command, petl_search, processes_of, run, start, wait_for, workers_of, workplace

ACCURACY = Objective("val/accuracy", "max")

SPACE = """
schema: petl.space/1
name: small
base:
  backbone: {backbone}
  dataset: folder
  data: {data}
  epochs: {epochs}
  train.batch_size: 16
objectives:
  - {{metric: val/accuracy, mode: max}}
{objectives}
params:
  method: {{choice: [adapter, lora, linear]}}
  optim.lr: {{float: [1e-3, 2e-2], log: true, default: 1e-2}}
  adapter.reduction: {{choice: [2, 4, 8], ordered: true, when: {{method: adapter}}}}
  lora.rank: {{int: [1, 8], when: {{method: lora}}}}
{more}
enqueue:
{enqueue}
scheduler: {{name: asha, grace_epochs: 2, eta: 2}}
budget: {{trials: {trials}}}
"""


def _space(directory: Path, backbone: Path, data: Path, **values: Any) -> Path:
    values = {"epochs": 6, "trials": 6, "objectives": "", "more": "", "enqueue": "  - {method: linear}", **values}
    path = directory / "small.yaml"
    path.write_text(SPACE.format(backbone=backbone, data=data, **values))
    return path


def _mlflow_runs(directory: Path) -> tuple[Any, list[Any]]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{directory / 'mlflow.db'}")
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()], max_results=1000)
    parents = [r for r in runs if "mlflow.parentRunId" not in r.data.tags]
    assert len(parents) == 1
    return parents[0], [r for r in runs if r.data.tags.get("mlflow.parentRunId") == parents[0].info.run_id]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny_ast: Path, tones: Path) -> Iterator[SimpleNamespace]:
    """One small search with a diverging configuration in it and a bound that refuses another, run to its end."""
    directory = tmp_path_factory.mktemp("done")
    space = _space(
        directory,
        tiny_ast,
        tones,
        objectives="  - {metric: trainable_params, mode: min, max: 2000}",
        more="  train.grad_clip: {choice: [0.0, 1.0]}\n  optim.head_lr: {choice: [1e-2, 1e30]}",
        enqueue=(
            "  - {method: linear}\n  - {method: lora, optim.head_lr: 1e30}\n  - {method: adapter, adapter.reduction: 2}"
        ),
    )
    with workplace(directory) as environment:
        result = run(command("--space", space, "--output", "out"), directory, environment)
        assert result.returncode == 0, result.stdout + result.stderr
        left = processes_of(environment["RAY_TMPDIR"])
        yield SimpleNamespace(
            directory=directory,
            out=directory / "out",
            environment=environment,
            result=result,
            left=left,
            record=read_journal(directory / "out"),
            tones=tones,
        )


def test_the_search_runs_its_budget_and_leaves_no_process(done: SimpleNamespace) -> None:
    assert len(done.record.trials) == 6
    assert all(t.status in (Status.COMPLETE, Status.STOPPED, Status.FAILED) for t in done.record.trials)
    assert done.left == []


def test_enqueued_configurations_come_first_and_no_configuration_twice(done: SimpleNamespace) -> None:
    assert [t.params["method"] for t in done.record.trials[:2]] == ["linear", "lora"]
    assert [t.enqueued for t in done.record.trials[:2]] == [True, True]
    keys = [json.dumps(t.params, sort_keys=True) for t in done.record.trials]
    assert max(Counter(keys).values()) == 1


def test_a_diverged_trial_is_failed_with_its_reason_and_not_tried_again(done: SimpleNamespace) -> None:
    diverged = done.record.trials[1]
    assert diverged.status is Status.FAILED and diverged.reason.startswith("diverged: ")
    events = [json.loads(line) for line in (done.out / "journal.jsonl").read_text().splitlines()]
    assert not [e for e in events if e["event"] == "incident"]


def test_configurations_over_the_bound_are_never_trained(done: SimpleNamespace) -> None:
    refused = [r["params"] for r in done.record.rejected]
    assert {"method": "adapter", "adapter.reduction": 2}.items() <= refused[0].items()
    assert "more than 2,000" in done.record.rejected[0]["reason"]
    assert all(t.trainable_params <= 2000 for t in done.record.trials)


def test_the_run_directory_holds_everything(done: SimpleNamespace) -> None:
    table = pyarrow.parquet.read_table(done.out / "trials.parquet").to_pandas()
    assert len(table[table.epoch.notna()]) == sum(len(t.epochs) for t in done.record.trials)
    report = (done.out / "report.html").read_text()
    assert done.record.ranked()[0].name in report and "Pareto" in report
    for name in ("best.yaml", "space.yaml", "leaderboard.csv", "best/adapter_model.safetensors", "best/README.md"):
        assert (done.out / name).stat().st_size > 0
    assert "test/accuracy" in done.record.test


def test_checkpoints_hold_no_backbone(done: SimpleNamespace, tiny_ast: Path) -> None:
    from safetensors import safe_open

    with safe_open(tiny_ast / "model.safetensors", "pt") as backbone:
        largest = max(backbone.get_tensor(name).numel() for name in backbone.keys())  # noqa: SIM118
    for path in (done.out / "checkpoints").rglob("*.safetensors"):
        with safe_open(path, "pt") as saved:
            assert all(saved.get_tensor(name).numel() < largest for name in saved.keys())  # noqa: SIM118


def test_mlflow_has_one_parent_and_a_child_per_trial(done: SimpleNamespace) -> None:
    parent, children = _mlflow_runs(done.directory)
    assert parent.info.status == "FINISHED"
    statuses = {c.data.tags["petl.trial_id"]: (c.info.status, c.data.tags["status"]) for c in children}
    said = {Status.COMPLETE: "FINISHED", Status.STOPPED: "FINISHED", Status.FAILED: "FAILED"}
    assert statuses == {t.id: (said[t.status], str(t.status)) for t in done.record.trials}
    for child in children:
        trial = next(t for t in done.record.trials if t.id == child.data.tags["petl.trial_id"])
        assert child.info.run_name == trial.name
        assert set(trial.params) <= set(child.data.params)
        inactive = {"lora.rank", "adapter.reduction"} - set(trial.params)
        assert not inactive & set(child.data.params)
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{done.directory / 'mlflow.db'}")
    best = next(c for c in children if c.data.tags["petl.trial_id"] == done.record.winner)
    trial = next(t for t in done.record.trials if t.id == done.record.winner)
    history = client.get_metric_history(best.info.run_id, "val/accuracy")
    assert [(m.step, m.value) for m in history] == [(e.epoch, e.metrics["val/accuracy"]) for e in trial.epochs]
    assert {"report.html", "trials.parquet", "best"} <= {a.path for a in client.list_artifacts(parent.info.run_id)}
    assert parent.inputs.dataset_inputs[0].dataset.digest


def test_the_best_adapter_predicts(done: SimpleNamespace) -> None:
    clips = sorted((done.tones / "low").iterdir())[:2] + sorted((done.tones / "high").iterdir())[:2]
    told = run(petl_search("predict", done.out / "best", *clips, "--json"), done.directory, done.environment)
    assert told.returncode == 0, told.stderr
    lines = [json.loads(line) for line in told.stdout.splitlines()]
    assert [line["path"] for line in lines] == [str(c) for c in clips]
    assert all(abs(sum(line["probabilities"].values()) - 1) < 1e-5 for line in lines)
    plain = run(petl_search("predict", done.out / "best", clips[0]), done.directory, done.environment)
    assert plain.stdout.split()[1] == lines[0]["label"]
    broken = done.directory / "broken.wav"
    broken.write_bytes(b"RIFFnothing")
    mixed = run(petl_search("predict", done.out / "best", broken, clips[0]), done.directory, done.environment)
    assert mixed.returncode == 1 and "broken.wav" in mixed.stderr and lines[0]["label"] in mixed.stdout


def test_evaluating_the_adapter_gives_the_reported_test_accuracy(done: SimpleNamespace) -> None:
    told = run(petl_search("evaluate", done.out / "best", "--json"), done.directory, done.environment)
    assert told.returncode == 0, told.stderr
    measured = json.loads(told.stdout)
    assert measured["accuracy"] == pytest.approx(done.record.test["test/accuracy"], abs=1e-6)
    everything = run(
        petl_search("evaluate", done.out / "best", "--data", done.tones, "--split", "all", "--json"),
        done.directory,
        done.environment,
    )
    assert json.loads(everything.stdout)["clips"] == 60


def test_training_the_exported_trial_again_gives_the_same_numbers(done: SimpleNamespace) -> None:
    told = run(petl_search("train", done.out / "best.yaml", "--output", "again"), done.directory, done.environment)
    assert told.returncode == 0, told.stdout + told.stderr
    winner = next(t for t in done.record.trials if t.id == done.record.winner)
    best = winner.best(ACCURACY)
    assert best is not None
    assert f"test/accuracy {done.record.test['test/accuracy']:.4f}" in told.stdout.replace("\n", " ")
    assert f"best epoch {best.epoch}: val/accuracy {best.metrics['val/accuracy']:.4f}" in told.stdout
    assert (done.directory / "again" / "adapter_model.safetensors").is_file()


def test_resuming_a_finished_search_trains_nothing_again(done: SimpleNamespace) -> None:
    before = {t.id: len(t.epochs) for t in done.record.trials}
    told = run(command("--resume", "out"), done.directory, done.environment)
    assert told.returncode == 0, told.stdout + told.stderr
    assert {t.id: len(t.epochs) for t in read_journal(done.out).trials} == before
    assert len(_mlflow_runs(done.directory)[1]) == len(before)


def test_a_resumed_search_may_get_another_budget_and_nothing_else(done: SimpleNamespace) -> None:
    told = run(command("--resume", "out", "--set", "data.val_fraction=0.3"), done.directory, done.environment)
    assert told.returncode == 2 and "data.val_fraction" in told.stderr, told.stderr
    assert "start a new search" in " ".join(told.stderr.split())


@pytest.mark.slow
def test_a_search_killed_while_it_exported_exports_on_resuming_and_reads_no_test_split(done: SimpleNamespace) -> None:
    shutil.rmtree(done.out / "best")
    told = run(command("--resume", "out"), done.directory, done.environment)
    assert told.returncode == 0, told.stdout + told.stderr
    assert (done.out / "best" / "adapter_model.safetensors").is_file()
    assert (done.out / "journal.jsonl").read_text().count('"finished"') == 1
    assert read_journal(done.out).test == done.record.test
    assert _mlflow_runs(done.directory)[0].info.status == "FINISHED"


def test_the_last_screen_says_what_came_out_and_what_to_do_next(done: SimpleNamespace) -> None:
    screen = done.result.stdout
    for words in ("best:", "test", "out/best", "out/report.html", "mlflow ui", "petl-search predict"):
        assert words in screen, words


def _killable(tmp_path: Path, tiny_ast: Path, tones: Path) -> Path:
    """A space whose trials last seconds each, none stopped early: there is always one running to be killed."""
    return _space(tmp_path, tiny_ast, tones, epochs=240, trials=5)


@pytest.mark.slow  # two starts of Ray and a worker's: two minutes and more
@pytest.mark.timeout(700)
def test_a_killed_worker_and_a_killed_driver_lose_nothing(tmp_path: Path, tiny_ast: Path, tones: Path) -> None:
    space = _killable(tmp_path, tiny_ast, tones)
    out = tmp_path / "out"
    with workplace(tmp_path) as environment:
        ray = environment["RAY_TMPDIR"]
        driver = start(
            command("--space", space, "--output", "out", "--set", "scheduler.name=none"), tmp_path, environment
        )

        def trained() -> list[TrialRecord]:
            record = read_journal(out) if (out / "journal.jsonl").exists() else None
            return [t for t in record.trials if len(t.epochs) > 2] if record is not None else []

        wait_for(lambda: any(t.status is Status.RUNNING for t in trained()), 200, driver)
        for worker in workers_of(ray):  # every one: which of them trains, and which is still starting, cannot be told
            worker.send_signal(signal.SIGKILL)
        wait_for(lambda: '"incident"' in (out / "journal.jsonl").read_text(), 150, driver)
        wait_for(lambda: len(trained()) >= 3, 200, driver)
        driver.send_signal(signal.SIGKILL)
        driver.wait(10)
        before = read_journal(out)
        assert any(t.status is Status.RUNNING for t in before.trials)
        wait_for(lambda: processes_of(ray) == [], 30)

        resumed = run(command("--resume", "out"), tmp_path, environment)
        assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    after = read_journal(out)
    assert [t.id for t in after.trials][: len(before.trials)] == [t.id for t in before.trials]
    assert len(after.trials) == 5 and all(t.status is not Status.RUNNING for t in after.trials)
    for old, new in zip(before.trials, after.trials, strict=False):
        assert new.params == old.params
        assert new.epochs[: len(old.epochs)] == old.epochs, "what was trained is kept, not trained again"
        if old.status is not Status.RUNNING:
            assert new.epochs == old.epochs
        assert [e.epoch for e in new.epochs] == list(range(1, len(new.epochs) + 1))
    parent, children = _mlflow_runs(tmp_path)
    assert parent.info.status == "FINISHED"
    assert Counter(c.data.tags["petl.trial_id"] for c in children) == Counter(t.id for t in after.trials)
    assert all(c.info.status in ("FINISHED", "FAILED") for c in children)


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_done_and_says_how_to_go_on(tmp_path: Path, tiny_ast: Path, tones: Path) -> None:
    space = _killable(tmp_path, tiny_ast, tones)
    out = tmp_path / "out"
    with workplace(tmp_path) as environment:
        driver = start(
            command("--space", space, "--output", "out", "--set", "scheduler.name=none"), tmp_path, environment
        )
        journal = out / "journal.jsonl"
        wait_for(lambda: journal.exists() and '"epoch"' in journal.read_text(), 200, driver)
        asked = time.monotonic()
        driver.send_signal(signal.SIGINT)
        said = driver.communicate(timeout=60)[0]
        took = time.monotonic() - asked
        assert driver.returncode == 130, said
        assert "--resume out" in said
        assert took < 30
        wait_for(lambda: processes_of(environment["RAY_TMPDIR"]) == [], 20)
    record = read_journal(out)
    assert not [t for t in record.trials if t.status is Status.FAILED], "an interruption is not a failure"
    parent, children = _mlflow_runs(tmp_path)
    assert parent.info.status == "KILLED"
    assert "RUNNING" not in {c.info.status for c in children}
    assert (out / "report.html").exists() and (out / "trials.parquet").exists()


@pytest.mark.slow
def test_an_end_that_is_asked_of_every_process_leaves_the_search_to_be_resumed(
    tmp_path: Path, tiny_ast: Path, tones: Path
) -> None:
    """As `timeout` and job systems do it: Ray's own processes end before the driver has said its last word."""
    space = _killable(tmp_path, tiny_ast, tones)
    out = tmp_path / "out"
    with workplace(tmp_path) as environment:
        arguments = command("--space", space, "--output", "out", "--set", "scheduler.name=none")
        driver = start(arguments, tmp_path, environment, group=True)
        journal = out / "journal.jsonl"
        wait_for(lambda: journal.exists() and '"epoch"' in journal.read_text(), 200, driver)
        driver.send_signal(signal.SIGTERM)
        os.killpg(driver.pid, signal.SIGTERM)
        said = driver.communicate(timeout=90)[0]
        assert driver.returncode == 130, said
        assert "--resume out" in said, said
        wait_for(lambda: processes_of(environment["RAY_TMPDIR"]) == [], 20)
    assert '"event": "interrupted"' in journal.read_text()
    record = read_journal(out)
    assert not [t for t in record.trials if t.status is Status.FAILED], "an interruption is not a failure"
    parent, children = _mlflow_runs(tmp_path)
    assert {run.info.status for run in [parent, *children]} <= {"KILLED", "FINISHED"}


@pytest.mark.slow
def test_several_workers_share_a_trial(tmp_path: Path, tiny_ast: Path, tones: Path) -> None:
    space = _space(tmp_path, tiny_ast, tones, epochs=3, trials=3)
    with workplace(tmp_path) as environment:
        result = run(
            command("--space", space, "--output", "out", "--workers-per-trial", 2, "--set", "scheduler.name=none"),
            tmp_path,
            environment,
        )
        assert result.returncode == 0, result.stdout + result.stderr
    record = read_journal(tmp_path / "out")
    assert [t.status for t in record.trials] == [Status.COMPLETE] * 3
    again = yaml.safe_load((tmp_path / "out" / "best.yaml").read_text())
    assert again["schema"] == "petl.trial/1"


@pytest.mark.slow
def test_a_time_budget_ends_the_search_with_a_winner(tmp_path: Path, tiny_ast: Path, tones: Path) -> None:
    space = _space(tmp_path, tiny_ast, tones, epochs=4000, trials=1000)
    with workplace(tmp_path) as environment:
        result = run(command("--space", space, "--output", "out", "--time-budget", "100s"), tmp_path, environment)
        assert result.returncode == 0, result.stdout + result.stderr
    record = read_journal(tmp_path / "out")
    assert record.winner and record.test
    assert {t.status for t in record.trials} <= {Status.STOPPED, Status.FAILED, Status.COMPLETE}
    assert any("time budget" in t.reason for t in record.trials)
