from __future__ import annotations

from pathlib import Path

import pytest
import torch

from trainables.checkpoints import Checkpoint, CheckpointStore


def _checkpoint() -> Checkpoint:
    return Checkpoint(
        {"model/head.weight": torch.arange(6.0).reshape(2, 3).T, "optimizer/step/head.weight": torch.tensor(3.0)},
        {"epoch": 4, "best": 0.5, "metrics": {"val/accuracy": 0.5}},
    )


@pytest.mark.parametrize("as_uri", [False, True])
def test_what_is_written_is_read(tmp_path: Path, as_uri: bool) -> None:
    store = CheckpointStore(f"file://{tmp_path}" if as_uri else str(tmp_path))
    store.write("t0001", "last", _checkpoint())
    read = store.read("t0001", "last")
    assert read is not None and read.meta == _checkpoint().meta
    assert torch.equal(read.part("model")["head.weight"], _checkpoint().tensors["model/head.weight"])
    assert list(read.part("optimizer")) == ["step/head.weight"]
    assert store.read("t0001", "best") is None
    assert [p.name for p in (tmp_path / "t0001").iterdir()] == ["last.safetensors"]


@pytest.mark.parametrize("keep", [0, 5, 60, -1])
def test_a_torn_file_is_no_checkpoint(tmp_path: Path, keep: int) -> None:
    store = CheckpointStore(str(tmp_path))
    store.write("t0001", "last", _checkpoint())
    path = tmp_path / "t0001" / "last.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    assert store.read("t0001", "last") is None


def test_dropping_is_idempotent(tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path))
    store.write("t0001", "last", _checkpoint())
    store.drop("t0001", "last")
    store.drop("t0001", "last")
    assert store.read("t0001", "last") is None
