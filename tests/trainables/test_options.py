"""Every option of the recipe through a trial: it trains, and it means something."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.trainables.miniatures import Case
from tests.trainables.small_trials import flat_of, trained

_CHANGE: list[dict[str, Any]] = [
    {"train.loss": "bce"},
    {"train.label_smoothing": 0.2},
    {"train.loss": "bce", "train.label_smoothing": 0.2},
    {"train.grad_clip": 0.01},
    {"train.balanced": True},
    {"train.batching": "bucketed"},
    {"train.batch_seconds": 1.5},
    {"train.accumulate": 2, "lora.dropout": 0.3},
    {"train.precision": "bfloat16"},
    *({"schedule.name": name} for name in ("linear", "constant", "tri_stage")),
    {"schedule.name": "tri_stage", "schedule.warmup_ratio": 0.3, "schedule.hold_ratio": 0.1},
    {"schedule.name": "step", "schedule.step_start": 1, "schedule.step_factor": 0.1},
    {"schedule.warmup_steps": 3},
    {"schedule.warmup_epochs": 0.5},
    {"optim.decay": "all", "optim.weight_decay": 0.5},
    {"optim.head_lr": 1e-4},
    {"optim.beta1": 0.8, "optim.beta2": 0.999, "optim.eps": 1e-3},
    {"aug.freq_mask": 24},
    {"aug.time_mask": 12, "aug.mask_fill": "zero"},
    {"aug.feature_noise": 0.1},
    {"aug.roll": 10},
    {"aug.mixup": 0.5, "train.loss": "bce"},
    {"aug.noise": 1.0},
    {"aug.speed": 0.1},
    {"aug.gain": 6.0},
    {"data.frames": 32},
    {"data.normalize": "audioset"},
    {"data.shots": 3},
    {"time_stride": 8},
    {"head.kind": "norm_linear"},
    {"head.kind": "projector"},
    {"seed": 1},
]
_KEEP: list[dict[str, Any]] = [{"train.loaders": 3}, {"train.eval_batch_size": 2}, {"train.patience": 5}]


def _name(options: dict[str, Any]) -> str:
    return ",".join(f"{key}={value}" for key, value in options.items())


@pytest.fixture(scope="module")
def plain(uneven: Path, tiny_ast: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Any]:
    flat = flat_of(uneven, tiny_ast, **{"train.batch_size": 4, "epochs": 2})
    return flat, trained(flat, tmp_path_factory.mktemp("plain"))[1].part("model")


@pytest.mark.parametrize("options", _CHANGE, ids=_name)
def test_an_option_changes_what_is_learned(
    plain: tuple[dict[str, Any], Any], options: dict[str, Any], tmp_path: Path
) -> None:
    flat, before = plain
    report, checkpoint = trained({**flat, **options}, tmp_path)
    assert np.isfinite([report["train/loss"], report["val/loss"]]).all()
    after = checkpoint.part("model")
    assert any(not torch.equal(after[name], tensor) for name, tensor in before.items() if name in after)


@pytest.mark.parametrize("options", _KEEP, ids=_name)
def test_an_option_leaves_what_is_learned_as_it_is(
    plain: tuple[dict[str, Any], Any], options: dict[str, Any], tmp_path: Path
) -> None:
    flat, before = plain
    _, checkpoint = trained({**flat, **options}, tmp_path)
    after = checkpoint.part("model")
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("padding", ["masked", "checkpoint", "fixed"])
def test_every_padding_trains(uneven: Path, tiny_wave: Path, tmp_path: Path, padding: str) -> None:
    report, _ = trained(flat_of(uneven, tiny_wave, **{"data.padding": padding, "train.batch_size": 7}), tmp_path)
    assert np.isfinite([report["train/loss"], report["val/loss"]]).all()


@pytest.mark.parametrize("loss", ["am_softmax", "cross_entropy"])
def test_losses_of_voices(loss: str, miniature: Callable[[Case], Path], tiny_ast: Path, tmp_path: Path) -> None:
    case = Case("folder", "speaker", "", "standard")
    flat = {**flat_of(miniature(case), tiny_ast), **case.flat(miniature(case)), "train.loss": loss, "train.margin": 0.3}
    report, _ = trained(flat, tmp_path, case.monitor)
    assert 0 <= report["val/eer"] <= 1 and np.isfinite(report["train/loss"])
