"""Whole searches on other tasks than clip classification, on several folds, and along a published recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import yaml

from search.journal import read_journal
from search.records import Status
from tests.search import spoken
from tests.search.running import command, petl_search, run, workplace
from tests.trainables import checkpoints
from tests.trainables.data.layouts import esc50, openmic, vctk

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def _space(directory: Path, base: dict[str, Any], params: dict[str, Any], trials: int, **more: Any) -> Path:
    path = directory / "space.yaml"
    content = {
        "schema": "petl.space/1",
        "name": "tasks",
        "base": base,
        "params": params,
        "scheduler": {"name": "asha", "grace_epochs": 2, "eta": 2},
        "budget": {"trials": trials},
        **more,
    }
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def _searched(space: Path, directory: Path, environment: dict[str, str], *arguments: object) -> str:
    result = run(command("--space", space, "--output", "out", *arguments), directory, environment, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def _mlflow_children(directory: Path) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{directory / 'mlflow.db'}")
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()], max_results=100)
    return [r for r in runs if "mlflow.parentRunId" in r.data.tags]


def test_a_search_for_transcripts_ends_in_an_adapter_that_writes(tmp_path: Path) -> None:
    data = spoken.write(tmp_path / "data")
    backbone = checkpoints.save("wav2vec2-stable", tmp_path / "wav2vec2")
    space = _space(
        tmp_path,
        {
            "backbone": str(backbone),
            "dataset": "librispeech",
            "data": str(data),
            "epochs": 60,
            "train.batch_size": 8,
            "train.batching": "bucketed",
            "train.grad_clip": 1.0,
            "optim.weight_decay": 0.0,
            "schedule.name": "constant",
        },
        {
            "method": {"choice": ["lora", "full"]},
            "optim.lr": {"float": [2e-3, 6e-3], "log": True, "default": 3e-3},
            "lora.rank": {"int": [8, 16], "default": 16, "when": {"method": "lora"}},
            "lora.targets": {"choice": ["q,k,v,o,fc1,fc2"], "when": {"method": "lora"}},
        },
        2,
        objectives=[{"metric": "val/wer", "mode": "min"}],
        enqueue=[{"method": "full"}, {"method": "lora", "optim.lr": 5e-3}],
        scheduler={"name": "none"},
    )
    with workplace(tmp_path) as environment:
        said = _searched(space, tmp_path, environment)
        clips = sorted((data / "LibriSpeech" / "test-clean" / "84" / "121123").glob("*.flac"))[:4]
        predicted = run(petl_search("predict", "out/best", "--json", *clips), tmp_path, environment)
        assert predicted.returncode == 0, predicted.stderr
    record = read_journal(tmp_path / "out")
    assert record.objectives[0].metric == "val/wer"
    best = record.ranked()[0].best(record.objectives[0])
    assert best is not None and best.metrics["val/wer"] <= 0.1, said
    assert record.test["test/wer"] <= 0.2
    wanted = dict(line.split(" ", 1) for line in (clips[0].parent / "84-121123.trans.txt").read_text().splitlines())
    found = [json.loads(line) for line in predicted.stdout.splitlines()]
    right = sum(one["text"] == wanted[clip.stem].lower() for one, clip in zip(found, clips, strict=True))
    assert right >= 3, found
    vocabulary = json.loads((tmp_path / "out" / "best" / "vocab.json").read_text())
    assert vocabulary["[PAD]"] == 0 and set("abcdef") < set(vocabulary)


def test_a_trial_trains_on_every_fold_and_reports_mean_and_deviation(tmp_path: Path, tiny_ast: Path) -> None:
    data = esc50.write(tmp_path / "data")
    space = _space(
        tmp_path,
        {
            "backbone": str(tiny_ast),
            "dataset": "esc50",
            "data": str(data),
            "data.fold": "all",
            "epochs": 3,
            "train.batch_size": 8,
        },
        {"method": {"choice": ["linear", "bitfit"]}, "optim.lr": {"float": [1e-3, 1e-2], "log": True}},
        2,
    )
    with workplace(tmp_path) as environment:
        said = _searched(space, tmp_path, environment)
        again = run(petl_search("train", "out/best.yaml", "--output", "again"), tmp_path, environment)
        assert again.returncode == 0, again.stdout + again.stderr
    record = read_journal(tmp_path / "out")
    names = [f"fold{n}" for n in range(1, 6)]
    for trial in record.trials:
        for epoch in trial.epochs:
            folds = [epoch.metrics[f"val/accuracy/{name}"] for name in names]
            assert epoch.metrics["val/accuracy"] == pytest.approx(sum(folds) / 5)
            spread = (sum((fold - sum(folds) / 5) ** 2 for fold in folds) / 5) ** 0.5
            assert epoch.metrics["val/accuracy_std"] == pytest.approx(spread, abs=1e-6)
    assert {f"test/accuracy/{name}" for name in names} < record.test.keys()
    assert "5 folds" in said
    for folder in ("best", *(f"best-{name}" for name in names[1:])):
        assert (tmp_path / "out" / folder / "adapter_model.safetensors").is_file()
    children = _mlflow_children(tmp_path)
    assert len(children) == 2 and all("val/accuracy/fold3" in child.data.metrics for child in children)
    table = pyarrow.parquet.read_table(tmp_path / "out" / "trials.parquet")
    assert "val/accuracy_std" in table.column_names


def test_voices_are_compared_and_tags_are_found(tmp_path: Path, tiny_ast: Path) -> None:
    voices = vctk.write(tmp_path / "voices")
    instruments = openmic.write(tmp_path / "instruments")
    params = {"method": {"choice": ["lora"]}, "lora.rank": {"int": [2, 4]}}
    common = {"backbone": str(tiny_ast), "epochs": 2, "train.batch_size": 8, "aug.noise": 0.5}
    tasks = {
        "eer": {"dataset": "vctk", "data": str(voices), "data.target": "verification"},
        "map": {"dataset": "openmic", "data": str(instruments), "aug.mixup": 0.5},
    }
    with workplace(tmp_path) as environment:
        for metric, base in tasks.items():
            space = _space(tmp_path, {**common, **base}, params, 1)
            result = run(command("--space", space, "--output", metric), tmp_path, environment, timeout=600)
            assert result.returncode == 0, result.stdout + result.stderr
            assert f"val/{metric}" in result.stdout
            record = read_journal(tmp_path / metric)
            assert record.objectives[0].metric == f"val/{metric}", "the task's own, for the space names none it has"
            assert [t.status for t in record.trials] == [Status.COMPLETE]
            assert 0 <= record.test[f"test/{metric}"] <= 1


def test_a_recipe_trains_what_was_published(tmp_path: Path, tiny_ast: Path) -> None:
    data = esc50.write(tmp_path / "data")
    space = _space(
        tmp_path,
        {"backbone": str(tiny_ast), "dataset": "esc50", "data": str(data), "train.batch_size": 4},
        {"method": {"choice": ["linear"]}, "optim.lr": {"float": [1e-5, 1e-1], "log": True}},
        1,
    )
    with workplace(tmp_path) as environment:
        given = ("--set", "recipe=petl_ast", "--set", "data.fold=1", "--set", "data.frames=40", "--max-epochs", 2)
        _searched(space, tmp_path, environment, *given)
    config = yaml.safe_load((tmp_path / "out" / "best.yaml").read_text())["config"]
    assert config["recipe"] == "petl_ast" and config["data.protocol"] == "petl_ast"
    assert (config["optim.lr"], config["train.batch_size"], config["epochs"]) == (1e-3, 32, 2)
