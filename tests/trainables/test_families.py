"""Training on other families than AST: waveforms and Whisper, on real little files, through the public doors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import petl
from petl.errors import ConfigError, UserError
from petl.model import AudioModel
from tests.trainables import checkpoints
from trainables.checkpoints import CheckpointStore
from trainables.config import TrialConfig
from trainables.data import AudioData
from trainables.evaluation import answers_on
from trainables.loop import Report, train
from trainables.session import Session

MONITOR = ("val/accuracy", "max")


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: checkpoints.save(kind, tmp_path_factory.mktemp(kind)) for kind in checkpoints.KINDS}


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 12 noisy tones of different lengths."""
    root = tmp_path_factory.mktemp("uneven")
    draw = np.random.default_rng(0)
    for label, pitch in (("low", 200), ("high", 3200)):
        (root / label).mkdir()
        for i in range(12):
            time = np.arange(draw.integers(3000, 9000)) / 16000
            wave = 0.2 * np.sin(2 * np.pi * pitch * time) + 0.02 * draw.standard_normal(len(time))
            soundfile.write(root / label / f"{i:02d}.wav", wave, 16000)
    return root


def _config(backbone: Path, data: Path, **more: Any) -> TrialConfig:
    flat = {
        "backbone": str(backbone),
        "dataset": "folder",
        "data": str(data),
        "epochs": 2,
        "train.batch_size": 8,
        "train.eval_batch_size": 5,
        "train.precision": "float32",
        "seed": 3,
    }
    if "method" not in more:
        flat |= {"method": "adapter", "adapter.width": 8}
    return TrialConfig.from_flat({**flat, **more})


def _session() -> Session:
    return Session(None, torch.device("cpu"), None, MONITOR)


def _built(config: TrialConfig) -> tuple[AudioModel, AudioData]:
    session = _session()
    data = session.data(config)[0]
    return session.build(config, data), data


def _run(config: TrialConfig, epochs: int | None = None, **more: Any) -> tuple[list[Report], AudioModel, AudioData]:
    model, data = _built(config)
    return list(islice(train(config, model, data, **more), epochs)), model, data


def _numbers(report: Report) -> dict[str, float]:
    return {name: value for name, value in report.metrics.items() if name != "train/data_wait"}


@pytest.mark.parametrize("kind", checkpoints.KINDS)
def test_a_trial_from_files_to_an_adapter_that_predicts(
    kind: str, backbones: dict[str, Path], uneven: Path, tmp_path: Path
) -> None:
    config = _config(backbones[kind], uneven)
    reports, model, data = _run(config)
    assert [report.epoch for report in reports] == [1, 2]
    logits_BC = torch.stack(answers_on(config, model, data, "test").kept)
    loaded = petl.load_adapter(petl.save_adapter(tmp_path / "best", model))
    assert loaded.front_end == data.front_end
    found = loaded.predict_many(data.paths("test"), batch_size=2)
    # Not one batch is the same, but every clip is; a Whisper's features are kept in half precision.
    for row, prediction in zip(logits_BC.softmax(-1), found, strict=True):
        atol = 1e-3 if kind == "whisper" else 1e-5
        assert list(prediction.probabilities.values()) == pytest.approx(row.tolist(), abs=atol)


@pytest.mark.parametrize("kind", ["wav2vec2-stable", "whisper"])
def test_it_learns_to_tell_tones_apart(kind: str, backbones: dict[str, Path], uneven: Path) -> None:
    config = _config(backbones[kind], uneven, epochs=12, **{"optim.lr": 2e-2})
    reports, _, _ = _run(config)
    assert reports[-1].metrics["train/loss"] < reports[0].metrics["train/loss"] / 2
    assert max(report.metrics["val/accuracy"] for report in reports) >= 0.9


@pytest.mark.parametrize("kind", ["wav2vec2", "wavlm"])
@pytest.mark.parametrize(
    "method",
    [
        {"backbone_mode": "train"},
        {"method": "full", "optim.lr": 1e-3},
        {"adapter.block": "conformer", "adapter.kernel": 3},
    ],
    ids=["train-mode", "full", "batch-norm"],
)
def test_the_same_trial_gives_the_same_numbers_and_goes_on_from_a_checkpoint(
    kind: str, method: dict[str, Any], backbones: dict[str, Path], uneven: Path
) -> None:
    """LayerDrop and latent SpecAugment draw from global generators, BatchNorm gathers statistics."""
    config = _config(backbones[kind], uneven, **method)
    straight, model, _ = _run(config)
    np.random.seed(1)  # noqa: NPY002 - what was drawn elsewhere must not matter
    torch.rand(5)
    again, _, _ = _run(config)
    assert [_numbers(r) for r in again] == [_numbers(r) for r in straight]
    half, _, _ = _run(config, 1)
    rest, resumed, _ = _run(config, resume=half[0].checkpoint)
    assert [_numbers(r) for r in rest] == [_numbers(straight[1])]
    for name, tensor in model.adapter_state().items():
        assert torch.equal(tensor, resumed.adapter_state()[name]), name


def test_frozen_backbones_leave_numpys_generator_alone(backbones: dict[str, Path], uneven: Path) -> None:
    np.random.seed(1)  # noqa: NPY002 - transformers draws from this one
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    _run(_config(backbones["wav2vec2"], uneven, epochs=1))
    assert np.random.random() == expected  # noqa: NPY002


@pytest.mark.parametrize("kind", ["wav2vec2", "wavlm"])
def test_validation_does_not_depend_on_the_batches(kind: str, backbones: dict[str, Path], uneven: Path) -> None:
    config = _config(backbones[kind], uneven)
    model, data = _built(config)
    one = torch.stack(answers_on(config, model, data, "train").kept)
    single = config.train.model_copy(update={"eval_batch_size": 1})
    alone = torch.stack(answers_on(config.model_copy(update={"train": single}), model, data, "train").kept)
    torch.testing.assert_close(one, alone, atol=1e-5, rtol=1e-4)


def test_a_session_serves_backbones_of_different_kinds(
    backbones: dict[str, Path], uneven: Path, tiny_ast: Path, tmp_path: Path
) -> None:
    session = Session(CheckpointStore(str(tmp_path)), torch.device("cpu"), None, MONITOR)
    kinds = {**backbones, "ast": tiny_ast}
    for kind in ("wav2vec2-stable", "whisper", "ast", "wavlm"):
        flat = _config(kinds[kind], uneven, epochs=1).to_flat()
        answer = session.epoch(kind, flat, fresh=True)
        assert answer["done"] and np.isfinite(answer["train/loss"])
        found = session.evaluate(kind, flat, "test")
        assert sum(map(sum, found["tables"]["confusion"]["matrix"])) == 4


def test_patch_strides_of_an_ast(tiny_ast: Path, backbones: dict[str, Path], uneven: Path) -> None:
    plain, data = _built(_config(tiny_ast, uneven))
    closer, _ = _built(_config(tiny_ast, uneven, frequency_stride=8, time_stride=8))
    x = data.batch("train", [0])
    plain(x.values)
    rows, columns = plain.adapted.layout.grid
    closer(x.values)
    assert closer.adapted.layout.grid[0] == 2 * rows - 1 and closer.adapted.layout.grid[1] > columns
    with pytest.raises(UserError, match="frequency_stride is for spectrogram patches"):
        _built(_config(backbones["wavlm"], uneven, frequency_stride=8))


def test_masks_on_waveforms_are_refused(backbones: dict[str, Path], uneven: Path) -> None:
    with pytest.raises(ConfigError, match=r"aug\.time_mask is 8, but the backbone reads waveforms"):
        _built(_config(backbones["hubert"], uneven, **{"aug.time_mask": 8}))


def test_bfloat16_trains_too(backbones: dict[str, Path], uneven: Path) -> None:
    reports, _, _ = _run(_config(backbones["wav2vec2"], uneven, **{"train.precision": "bfloat16"}))
    exact, _, _ = _run(_config(backbones["wav2vec2"], uneven))
    assert reports[0].metrics["train/loss"] == pytest.approx(exact[0].metrics["train/loss"], rel=0.1)


def test_metrics_of_a_split_are_finite(backbones: dict[str, Path], uneven: Path) -> None:
    config = _config(backbones["hubert"], uneven, **{"pooling": "stats", "head.kind": "projector", "head.width": 8})
    reports, model, data = _run(config)
    again = {f"val/{k}": v for k, v in answers_on(config, model, data, "val").metrics().items()}
    assert again.items() <= reports[-1].metrics.items()


_TWO = """
import os, sys, json, torch, torch.distributed as dist
sys.path.insert(0, sys.argv[4])
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method=sys.argv[2], rank=rank, world_size=2)
torch.set_num_threads(1)
from tests.trainables.test_families import _run, _numbers
from trainables.config import TrialConfig
out = [_numbers(r) for r in _run(TrialConfig.from_flat(json.loads(sys.argv[3])))[0]]
if rank == 0:
    print("RESULT", json.dumps(out), flush=True)
dist.barrier()
# Gloo's threads may still wind down when the interpreter ends, and abort it; what was to be shown has been.
os._exit(0)
"""


def _two_workers(config: TrialConfig, meet: Path) -> list[dict[str, float]]:
    root = Path(__file__).parents[2]
    arguments = [f"file://{meet}", json.dumps(config.to_flat()), str(root)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _TWO, str(rank), *arguments],
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
            env={**os.environ},
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=200)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    return json.loads(next(line for line in outputs[0].splitlines() if line.startswith("RESULT"))[7:])


@pytest.mark.slow
def test_two_workers_train_what_one_trains(backbones: dict[str, Path], uneven: Path, tmp_path: Path) -> None:
    config = _config(backbones["wav2vec2"], uneven, **{"train.batch_size": 7})
    alone, _, _ = _run(config)
    for one, two in zip(alone, _two_workers(config, tmp_path / "meet"), strict=True):
        for name, value in _numbers(one).items():
            assert two[name] == pytest.approx(value, abs=2e-3), name


@pytest.mark.slow
def test_a_worker_without_clips_leaves_no_trace_in_batchnorm(
    backbones: dict[str, Path], uneven: Path, tmp_path: Path
) -> None:
    conformer = {"method": "adapter", "adapter.block": "conformer", "adapter.width": 4, "adapter.kernel": 3}
    clips = _run(_config(backbones["wav2vec2"], uneven, **conformer), epochs=1)[2].size("train")
    config = _config(backbones["wav2vec2"], uneven, **conformer, **{"train.batch_size": clips - 1})  # the last has one
    alone, _, _ = _run(config)
    for one, two in zip(alone, _two_workers(config, tmp_path / "meet"), strict=True):
        for name, value in _numbers(one).items():
            assert two[name] == pytest.approx(value, abs=2e-4), name


@pytest.mark.slow
def test_two_workers_may_skip_different_layers(backbones: dict[str, Path], uneven: Path, tmp_path: Path) -> None:
    """LayerDrop leaves parameters without a gradient in a step, other ones in other workers."""
    config = _config(backbones["wav2vec2-stable"], uneven, backbone_mode="train", epochs=3)
    together = _two_workers(config, tmp_path / "meet")
    assert len(together) == 3 and all(np.isfinite(report["train/loss"]) for report in together)
