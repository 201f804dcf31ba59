"""Folds and few-shot draws: a trial of several repeats is each of them, one by one; and trials that go on or stop."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from search.commands.evaluate import evaluate_adapter
from search.export import save_model
from tests.trainables.miniatures import Case
from trainables.checkpoints import CheckpointStore
from trainables.config import TrialConfig
from trainables.data.planning import plan
from trainables.data.splits import SplitError
from trainables.evaluation import answers_on
from trainables.loop import Monitor
from trainables.session import Session

_ESC50 = Case("esc50", "sound", "esc50", "standard")
_ROOT = Path(__file__).parents[2]


@pytest.fixture
def flat(miniature: Callable[[Case], Path], tiny_ast: Path) -> dict[str, Any]:
    return {
        **_ESC50.flat(miniature(_ESC50)),
        "backbone": str(tiny_ast),
        "method": "adapter",
        "adapter.reduction": 4,
        "optim.lr": 1e-2,
        "epochs": 3,
        "train.batch_size": 16,
        "train.precision": "float32",
        "aug.time_mask": 8,
    }


def _session(place: Path, monitor: Monitor = ("val/accuracy", "max")) -> Session:
    return Session(CheckpointStore(str(place)), torch.device("cpu"), None, monitor)


def _run(session: Session, flat: dict[str, Any], epochs: int = 99) -> list[dict[str, Any]]:
    reports: list[dict[str, Any]] = []
    while len(reports) < epochs and not (reports and reports[-1]["done"]):
        reports.append(session.epoch("t", flat))
    return reports


def _numbers(report: dict[str, Any]) -> dict[str, float]:
    return {k: v for k, v in report.items() if "/" in k and "data_wait" not in k}


def _read(session: Session, kind: Any) -> Any:
    assert session._store is not None
    found = session._store.read("t", kind)
    assert found is not None
    return found


def _same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_folds_and_draws_together_are_each_of_them_alone(flat: dict[str, Any], tmp_path: Path) -> None:
    flat |= {"data.shots": 4}
    several = _session(tmp_path / "several")
    reports = _run(several, {**flat, "data.fold": "1,3", "data.draw": "1,2"})
    titles = [f"fold{fold}-draw{draw}" for fold in (1, 3) for draw in (1, 2)]
    last, best = _read(several, "last"), _read(several, "best")
    alone: dict[str, list[dict[str, Any]]] = {}
    for title in titles:
        single = _session(tmp_path / title)
        alone[title] = _run(single, {**flat, "data.fold": int(title[4]), "data.draw": int(title[-1])})
        of_single = _read(single, "last")
        for part in ("model", "optimizer"):
            assert _same(last.part(f"{title}/{part}"), of_single.part(part)), (title, part)
        assert {name.partition("/")[0] for name in last.tensors} == set(titles)
        if best.meta["epoch"] == len(reports):
            assert _same(best.part(f"{title}/model"), of_single.part("model"))
    assert len({alone[title][0]["val/loss"] for title in titles}) == len(titles)  # different clips each
    for epoch, report in enumerate(reports):
        for name in ("val/accuracy", "val/macro_f1", "val/loss", "train/loss"):
            values = [alone[title][epoch][name] for title in titles]
            assert report[name] == float(np.mean(values))
            if name.startswith("val/"):
                assert report[f"{name}_std"] == float(np.std(values))
                assert [report[f"{name}/{title}"] for title in titles] == values
    means = [report["val/accuracy"] for report in reports]
    assert best.meta["epoch"] == 1 + means.index(max(means))


def test_the_evaluation_is_of_every_repeat_at_the_epoch_that_is_best_in_the_mean(
    flat: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flat |= {"data.fold": "2,5", "epochs": 2}
    session = _session(tmp_path)
    reports = _run(session, flat)
    best = max(reports, key=lambda report: report["val/accuracy"])
    judged = session.evaluate("t", flat, "val")["metrics"]
    assert judged == {name: best[f"val/{name}"] for name in judged}
    assert {"accuracy", "accuracy_std", "accuracy/fold2", "accuracy/fold5"} <= judged.keys()
    tested = session.evaluate("t", flat, "test")
    config = TrialConfig.from_flat(flat)
    found = []
    for number, data in enumerate(session.data(config)):
        assert {clip.fold for clip in data.clips("test")} == {(2, 5)[number]}
        model = session.best_model("t", config, number)
        found.append(answers_on(config, model, data, "test").metrics()["accuracy"])
        adapter = tmp_path / f"adapter{number}"
        save_model(model, adapter, config, validation={}, test={}, provenance={}, data=data)
        model.adapted.detach()
        evaluate_adapter(adapter, None, None, "test", True, [], None, Console(file=io.StringIO()))
        again = json.loads(capsys.readouterr().out)
        assert (again["clips"], again["accuracy"]) == (12, found[-1])  # of its own fold
    metrics = tested["metrics"]
    assert [metrics["accuracy/fold2"], metrics["accuracy/fold5"]] == found
    assert (metrics["accuracy"], metrics["accuracy_std"]) == (float(np.mean(found)), float(np.std(found)))
    assert sum(map(sum, tested["tables"]["confusion"]["matrix"])) == 24  # twelve clips of each fold
    low, high = tested["intervals"]["accuracy"]
    assert low <= metrics["accuracy"] <= high


def test_draws_are_judged_on_the_same_clips_which_do_not_count_twice(flat: dict[str, Any], tmp_path: Path) -> None:
    flat |= {"data.shots": 4, "data.draw": "1,2", "epochs": 1}
    session = _session(tmp_path)
    _run(session, flat)
    tested = session.evaluate("t", flat, "test")
    assert tested["intervals"] == {}
    assert {"accuracy_std", "accuracy/draw1", "accuracy/draw2"} <= tested["metrics"].keys()


def test_all_folds(flat: dict[str, Any], tmp_path: Path) -> None:
    (report,) = _run(_session(tmp_path), {**flat, "data.fold": "all", "epochs": 1})
    folds = [report[f"val/accuracy/fold{fold}"] for fold in range(1, 6)]
    assert report["val/accuracy"] == float(np.mean(folds))
    assert report["done"]


def test_repeats_that_are_none_are_refused(miniature: Callable[[Case], Path]) -> None:
    root = miniature(_ESC50)
    with pytest.raises(SplitError, match="draw1 and draw2 are the same clips"):
        plan(_ESC50.options(root, shots=10, draw="1,2"))  # all there are
    listed = Case("fluent_speech_commands", "intent", "", "standard")
    for fold in ("all", 2, "1,2"):
        with pytest.raises(SplitError, match=f"data.fold is '{fold}', but these data have no folds"):
            plan(listed.options(miniature(listed), fold=fold))
    assert plan(listed.options(miniature(listed), fold="1")).title == ""


_LEFT = [
    pytest.param({"train.average_first": 2, "train.average_last": 3}, id="average"),
    pytest.param({"adapter.block": "conformer", "adapter.kernel": 3}, id="batch-norm"),
    pytest.param({"data.fold": "1,4", "train.average_first": 1, "adapter.dropout": 0.2}, id="folds"),
    pytest.param({"train.batching": "bucketed", "train.accumulate": 3, "schedule.warmup_epochs": 2}, id="accumulated"),
    pytest.param({"aug.mixup": 0.5, "aug.noise": 0.5, "aug.speed": 0.1}, id="waveforms"),
]


@pytest.mark.parametrize("more", _LEFT)
def test_a_trial_goes_on_exactly_where_it_was_left(flat: dict[str, Any], more: dict[str, Any], tmp_path: Path) -> None:
    flat |= {"epochs": 4, **more}
    straight = _session(tmp_path / "straight")
    whole = _run(straight, flat)
    first = _run(_session(tmp_path / "left"), flat, 2)
    second = _session(tmp_path / "left")
    reports = first + _run(second, flat)
    assert [report["epoch"] for report in reports] == [1, 2, 3, 4]
    assert [_numbers(report) for report in reports] == [_numbers(report) for report in whole]
    for kind in ("last", "best"):
        one, other = _read(straight, kind), _read(second, kind)
        assert _same(one.tensors, other.tensors), kind
        assert one.meta["epoch"] == other.meta["epoch"]
    if "conformer" in more.values():
        assert any("running_mean" in name for name in one.tensors)


@pytest.mark.parametrize("more", [{}, {"data.fold": "1,2"}], ids=["one", "folds"])
def test_patience_ends_all_repeats_and_survives_a_restart(
    flat: dict[str, Any], more: dict[str, Any], tmp_path: Path
) -> None:
    flat |= {"optim.lr": 1e-12, "epochs": 9, "train.patience": 2, **more}
    reports = _run(_session(tmp_path / "whole"), flat)
    assert [report["done"] for report in reports] == [False, False, True]  # nothing gets better than at first
    first = _run(_session(tmp_path / "left"), flat, 2)
    rest = _run(_session(tmp_path / "left"), flat)
    assert [report["epoch"] for report in first + rest] == [1, 2, 3]
    over = _session(tmp_path / "left")
    again = over.epoch("t", flat, fresh=True)
    assert (again["epoch"], again["done"]) == (3, True)
    assert over.epoch("t", flat)["epoch"] == 3  # asked once more, it is not trained further


# With so large an eps steps are as long as gradients, and some of these are clipped: a wrong scale of them shows.
_SCALED = {"optim.eps": 1.0, "optim.lr": 0.3, "train.grad_clip": 1.0}
_TWO = [
    {"train.accumulate": 3, "train.batch_size": 14, "data.fold": "1,2", **_SCALED},
    {"train.batching": "bucketed", "train.batch_seconds": 3.0, "train.average_first": 1, **_SCALED},
    {"adapter.block": "conformer", "adapter.kernel": 3, "train.accumulate": 2, "train.batch_size": 13},
]

_WORKER = """
import json, os, sys
import torch.distributed as dist
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method=sys.argv[2], rank=rank, world_size=2)
from pathlib import Path
from tests.trainables.test_repeats import _numbers, _run, _session
found = []
for number, flat in enumerate(json.loads(sys.argv[3])):
    session = _session(Path(sys.argv[4]) / str(number), ("val/loss", "min"))
    found.append([_numbers(report) for report in _run(session, flat)])
    found[-1].append(_numbers(session.evaluate("t", flat, "test")["metrics"] | {"best/": 0.0}))
    session.close()
print("RESULT", json.dumps(found), flush=True)
dist.barrier()
# Gloo's threads may still wind down when the interpreter ends, and abort it; what was to be shown has been.
os._exit(0)
"""


@pytest.mark.slow  # a cheaper one is in test_loop
def test_two_workers_train_what_one_trains(flat: dict[str, Any], tmp_path: Path) -> None:
    """With parts of batches, batches by length, averages, BatchNorm; one of them has no clips to judge."""
    flat = {k: v for k, v in flat.items() if not k.startswith("aug.")} | {"epochs": 2}
    asked = [{**flat, **more} for more in _TWO]
    together = [
        subprocess.Popen(
            [sys.executable, "-c", _WORKER, str(rank), f"file://{tmp_path / 'meet'}", json.dumps(asked), str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=_ROOT,
        )
        for rank in range(2)
    ]
    alone = []
    for number, one in enumerate(asked):
        session = _session(tmp_path / "alone" / str(number), ("val/loss", "min"))
        alone.append([_numbers(report) for report in _run(session, one)])
        alone[-1].append(_numbers(session.evaluate("t", one, "test")["metrics"] | {"best/": 0.0}))
    outputs = [process.communicate(timeout=280)[0] for process in together]
    assert [process.returncode for process in together] == [0, 0]
    found = [json.loads(next(x for x in output.splitlines() if x.startswith("RESULT"))[7:]) for output in outputs]
    assert found[0] == found[1]
    for more, one, two in zip(_TWO, alone, found[0], strict=True):
        for mine, theirs in zip(one, two, strict=True):
            assert theirs == pytest.approx(mine, abs=1e-4), more
