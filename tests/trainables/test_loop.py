"""The training loop on real (synthetic) audio and a real, tiny transformers model; no Ray."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import petl
from petl.frontend import FrontEnd
from petl.hub import read_front_end
from petl.model import AudioModel
from trainables import batches
from trainables.config import TrialConfig
from trainables.data import AudioData, open_data
from trainables.evaluation import answers_on
from trainables.loop import Diverged, Report, train


def _config(tiny_ast: Path, tones: Path, **more: Any) -> TrialConfig:
    flat = {
        "backbone": str(tiny_ast),
        "dataset": "folder",
        "data": str(tones),
        "method": "adapter",
        "adapter.reduction": 4.0,
        "epochs": 4,
        "train.batch_size": 16,
        "train.precision": "float32",
        "seed": 3,
    }
    return TrialConfig.from_flat({**flat, **more})


def _setup(config: TrialConfig) -> tuple[AudioModel, AudioData]:
    data = open_data(config.data, FrontEnd.from_preprocessor(read_front_end(config.backbone)))
    backbone = petl.load_backbone(config.backbone, frames=data.front_end.frames)
    adapted = petl.attach(backbone, config.method, seed=config.seed)
    return AudioModel(adapted, data.labels, data.front_end, seed=config.seed), data


def _run(config: TrialConfig, epochs: int | None = None, **more: Any) -> tuple[list[Report], AudioModel]:
    model, data = _setup(config)
    reports = []
    for report in train(config, model, data, **more):
        reports.append(report)
        if report.epoch == epochs:
            break
    return reports, model


def _numbers(report: Report) -> dict[str, float]:
    return {name: value for name, value in report.metrics.items() if name != "train/data_wait"}


def test_it_learns_to_tell_tones_apart(tiny_ast: Path, tones: Path) -> None:
    config = _config(tiny_ast, tones, epochs=20, **{"optim.lr": 2e-2, "train.batch_size": 8})
    reports, model = _run(config)
    assert [r.epoch for r in reports] == list(range(1, 21))
    assert reports[-1].metrics["train/loss"] < reports[0].metrics["train/loss"] / 2
    assert max(r.metrics["val/accuracy"] for r in reports) >= 0.9
    _, data = _setup(config)
    again = answers_on(config, model, data, "val").metrics()
    assert {f"val/{k}": v for k, v in again.items()}.items() <= reports[-1].metrics.items()


def test_the_same_trial_gives_the_same_numbers(tiny_ast: Path, tones: Path) -> None:
    config = _config(tiny_ast, tones, **{"aug.time_mask": 8, "aug.freq_mask": 8})
    first, _ = _run(config, 2)
    torch.manual_seed(99)  # whatever was drawn elsewhere must not matter
    torch.rand(7)
    second, _ = _run(config, 2)
    assert [_numbers(r) for r in first] == [_numbers(r) for r in second]
    other, _ = _run(config.model_copy(update={"seed": 4}), 2)
    assert _numbers(other[1]) != _numbers(first[1])


@pytest.mark.parametrize(
    "method", [{}, {"method": "lora", "lora.rank": 4, "lora.dropout": 0.3, "adapter.reduction": None}]
)
def test_continuing_from_a_checkpoint_is_as_if_never_stopped(
    tiny_ast: Path, tones: Path, method: dict[str, Any]
) -> None:
    flat = {**_config(tiny_ast, tones).to_flat(), **method, "aug.time_mask": 8}
    of_adapter = "lora" in method.get("method", "")
    flat = {k: v for k, v in flat.items() if v is not None and not (of_adapter and k.startswith("adapter."))}
    config = TrialConfig.from_flat(flat)
    straight, model = _run(config)
    half, _ = _run(config, 2)
    rest, resumed = _run(config, resume=half[-1].checkpoint)
    assert [r.epoch for r in rest] == [3, 4]
    assert [_numbers(r) for r in rest] == [_numbers(r) for r in straight[2:]]
    for name, tensor in model.adapter_state().items():
        assert torch.equal(tensor, resumed.adapter_state()[name]), name


def test_checkpoints_hold_what_was_trained_and_nothing_of_the_backbone(tiny_ast: Path, tones: Path) -> None:
    reports, model = _run(_config(tiny_ast, tones), 1)
    assert set(reports[0].checkpoint.part("model")) == set(model.trainable())
    moments = {name.partition("/")[0] for name in reports[0].checkpoint.part("optimizer")}
    assert moments == {"exp_avg", "exp_avg_sq", "step"}


def test_the_best_epoch_is_marked_and_is_the_first_of_equals(tiny_ast: Path, tones: Path) -> None:
    reports, _ = _run(_config(tiny_ast, tones, epochs=8))
    best = -1.0
    for report in reports:
        assert report.is_best == (report.metrics["val/accuracy"] > best)
        best = max(best, report.metrics["val/accuracy"])
    by_loss, _ = _run(_config(tiny_ast, tones), monitor=("val/loss", "min"))
    assert by_loss[-1].checkpoint.meta["best"] == min(r.metrics["val/loss"] for r in by_loss)


def test_divergence_is_said(tiny_ast: Path, tones: Path) -> None:
    with pytest.raises(Diverged, match=r"(in|after) epoch [12]"):
        _run(_config(tiny_ast, tones, **{"optim.lr": 1e30}))


def test_bfloat16_trains_too(tiny_ast: Path, tones: Path) -> None:
    reports, _ = _run(_config(tiny_ast, tones, epochs=3, **{"train.precision": "bfloat16"}))
    exact, _ = _run(_config(tiny_ast, tones, epochs=3))
    assert reports[0].metrics["train/loss"] == pytest.approx(exact[0].metrics["train/loss"], rel=0.05)
    assert reports[0].metrics["train/loss"] != exact[0].metrics["train/loss"]


def test_every_clip_is_seen_once_an_epoch_however_many_workers() -> None:
    order = batches.shuffled(50, seed=1, epoch=2)
    assert sorted(order.tolist()) == list(range(50))
    assert order.tolist() != batches.shuffled(50, seed=1, epoch=3).tolist()
    for world in (1, 2, 3):
        seen = [int(i) for batch in order.split(16) for rank in range(world) for i in batches.share(batch, rank, world)]
        assert sorted(seen) == list(range(50))


_TWO = """
import os, sys, json, torch, torch.distributed as dist
sys.path.insert(0, sys.argv[4])
from pathlib import Path
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method=sys.argv[2], rank=rank, world_size=2)
torch.set_num_threads(1)
from tests.trainables.test_loop import _setup, _numbers
from trainables.config import TrialConfig
from trainables.loop import train
config = TrialConfig.from_flat(json.loads(sys.argv[3]))
model, data = _setup(config)
out = [_numbers(r) for r in train(config, model, data)]
if rank == 0:
    print("RESULT", json.dumps(out), flush=True)
dist.barrier()
# Gloo's threads may still wind down when the interpreter ends, and abort it; what was to be shown has been.
os._exit(0)
"""


def test_two_workers_train_what_one_trains(tiny_ast: Path, tones: Path, tmp_path: Path) -> None:
    import json

    # With so large an eps steps are as long as gradients, and some of these are clipped: a wrong scale of them shows.
    scaled = {"optim.eps": 1.0, "optim.lr": 0.3, "train.grad_clip": 1.0}
    config = _config(tiny_ast, tones, epochs=3, **{"train.batch_size": 7, **scaled})
    alone, _ = _run(config)
    root = Path(__file__).parents[2]
    arguments = [f"file://{tmp_path / 'meet'}", json.dumps(config.to_flat()), str(root)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _TWO, str(rank), *arguments], stdout=subprocess.PIPE, text=True, cwd=root
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=200)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    together = json.loads(next(line for line in outputs[0].splitlines() if line.startswith("RESULT"))[7:])
    for one, two in zip(alone, together, strict=True):
        for name, value in _numbers(one).items():
            assert two[name] == pytest.approx(value, abs=1e-3), name
