"""Checkpoints: the newest whole one is read, whatever happened to the others."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from tests.object_store import object_store
from trainables.checkpoints import Checkpoint, CheckpointStore, parse


def _checkpoint(epoch: int = 4) -> Checkpoint:
    return Checkpoint(
        {
            "model/head.weight": torch.arange(6.0).reshape(2, 3).T + epoch,
            "optimizer/step/head.weight": torch.tensor(3.0),
        },
        {"epoch": epoch, "best": 0.5, "metrics": {"val/accuracy": 0.5, "val/loss": float("inf")}},
    )


def _names(place: Path) -> list[str]:
    """Kind and epoch of the files of a trial."""
    assert not list(place.glob(".*"))
    return sorted("-".join(path.name.split("-")[:2]) for path in place.iterdir())


def _only(place: Path, start: str) -> Path:
    (path,) = place.glob(f"{start}-*")
    return path


@pytest.mark.parametrize("as_uri", [False, True])
def test_what_is_written_is_read(tmp_path: Path, as_uri: bool) -> None:
    store = CheckpointStore(f"file://{tmp_path}" if as_uri else str(tmp_path))
    store.write("t0001", "last", _checkpoint())
    store.write("t0001", "last", _checkpoint())
    read = store.read("t0001", "last")
    assert read is not None and read.meta == _checkpoint().meta
    assert torch.equal(read.part("model")["head.weight"], _checkpoint().tensors["model/head.weight"])
    assert list(read.part("optimizer")) == ["step/head.weight"]
    assert store.read("t0001", "best") is None
    (path,) = (tmp_path / "t0001").iterdir()
    assert path.name == f"last-000004-{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}.safetensors"


def test_checkpoints_in_an_object_store() -> None:
    with object_store() as server:
        root = server.uri("petl/moa 1/checkpoints".replace(" ", "%20"))
        for epoch in (1, 2, 3):
            CheckpointStore(root).write("t0001", "last", _checkpoint(epoch))
        store = CheckpointStore(root)
        read = store.read("t0001", "last")
        assert read is not None and read.meta["epoch"] == 3
        store.write("t0001", "best", _checkpoint(2))
        store.prune("t0001")
        assert store.read("t0001", "last") is None
        best = store.read("t0001", "best")
        assert best is not None and best.meta["epoch"] == 2


def test_two_of_a_kind_stay(tmp_path: Path) -> None:
    store, place = CheckpointStore(str(tmp_path)), tmp_path / "t"
    for epoch in range(1, 6):
        store.write("t", "last", _checkpoint(epoch))
        if epoch != 4:
            store.write("t", "best", _checkpoint(epoch))
    assert _names(place) == ["best-000003", "best-000005", "last-000004", "last-000005"]
    other = CheckpointStore(str(tmp_path))  # another process goes on
    other.write("t", "last", _checkpoint(6))
    other.write("u", "last", _checkpoint(1))
    other.write("t", "last", _checkpoint(7))
    assert _names(place) == ["best-000003", "best-000005", "last-000006", "last-000007"]
    (place / "notes.txt").write_text("somebody's")
    store.prune("t")
    assert _names(place) == ["best-000003", "best-000005", "notes.txt"]
    store.prune("nobody")


def test_pruning_keeps_what_is_whole(tmp_path: Path) -> None:
    place = tmp_path / "t"
    for epoch in range(1, 5):
        CheckpointStore(str(tmp_path / "made")).write(str(epoch), "best", _checkpoint(epoch))
    place.mkdir()
    for path in (tmp_path / "made").glob("*/best*"):
        path.rename(place / path.name)
    newest = _only(place, "best-000004")
    newest.write_bytes(newest.read_bytes()[:-1])
    store = CheckpointStore(str(tmp_path))
    store.prune("t")
    assert _names(place) == ["best-000002", "best-000003"]
    store.write("u", "last", _checkpoint(1))  # no epoch was ever best: it is all there is
    store.prune("u")
    assert _names(tmp_path / "u") == ["last-000001"]


def test_a_torn_file_leaves_the_one_before_it(tmp_path: Path) -> None:
    store, place = CheckpointStore(str(tmp_path)), tmp_path / "t"
    store.write("t", "last", _checkpoint(1))
    store.write("t", "last", _checkpoint(2))
    newest = _only(place, "last-000002")
    whole = newest.read_bytes()
    for keep in [*range(0, len(whole), 97), len(whole) - 1]:
        newest.write_bytes(whole[:keep])
        reader = CheckpointStore(str(tmp_path))
        read = reader.read("t", "last")
        assert read is not None and read.meta["epoch"] == 1
        assert reader.skipped == [newest.name]
    newest.write_bytes(whole)
    older = _only(place, "last-000001")
    older.rename(place / older.name.replace("000001", "000009"))  # whole, but not of that epoch
    reader = CheckpointStore(str(tmp_path))
    read = reader.read("t", "last")
    assert read is not None and read.meta["epoch"] == 2
    assert [name[:11] for name in reader.skipped] == ["last-000009"]
    newest.write_bytes(b"")
    assert CheckpointStore(str(tmp_path)).read("t", "last") is None


def test_training_again_after_a_torn_file(tmp_path: Path) -> None:
    store, place = CheckpointStore(str(tmp_path)), tmp_path / "t"
    for epoch in (4, 5):
        store.write("t", "last", _checkpoint(epoch))
    torn = _only(place, "last-000005")
    torn.write_bytes(b"torn")
    again = CheckpointStore(str(tmp_path))
    read = again.read("t", "last")
    assert read is not None and read.meta["epoch"] == 4
    differently = _checkpoint(5)  # the same epoch with other seconds in it: another file
    differently.meta["seconds"] = 2.0
    again.write("t", "last", differently)
    assert _names(place) == ["last-000004", "last-000005"]
    assert not torn.exists()
    read = CheckpointStore(str(tmp_path)).read("t", "last")
    assert read is not None and read.meta["seconds"] == 2.0


def test_those_of_another_configuration_are_passed_over(tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path))
    store.write("t", "last", _checkpoint(9))
    store.write("t", "last", Checkpoint(_checkpoint().tensors, {"epoch": 1, "config": "mine"}))
    read = store.read("t", "last", lambda meta: meta.get("config") == "mine")
    assert read is not None and read.meta["epoch"] == 1
    assert store.skipped == []
    read = store.read("t", "last")
    assert read is not None and read.meta["epoch"] == 9


def test_a_writer_killed_at_any_moment(tmp_path: Path) -> None:
    """Twenty writers, each killed while it writes one checkpoint after the other."""
    big = {"model/w": torch.zeros(30_000), **_checkpoint().tensors}
    for attempt in range(20):
        child = os.fork()
        if child == 0:
            try:
                store, epoch = CheckpointStore(str(tmp_path)), attempt * 1000
                while True:
                    epoch += 1
                    store.write("t", "last", Checkpoint(big, {"epoch": epoch}))
            finally:
                os._exit(1)
        while not list(tmp_path.glob(f"t/last-{attempt:03d}*")):
            time.sleep(0.01)
        first = CheckpointStore(str(tmp_path)).read("t", "last")
        assert first is not None
        time.sleep(attempt * 0.0017)
        os.kill(child, signal.SIGKILL)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
        read = CheckpointStore(str(tmp_path)).read("t", "last")
        assert read is not None and read.meta["epoch"] >= first.meta["epoch"]
    survivor = CheckpointStore(str(tmp_path))
    survivor.write("t", "last", _checkpoint(99_999))
    left = [path.name for path in (tmp_path / "t").iterdir() if not path.name.startswith(".tmp-")]
    assert len(left) == 2


def _file(header: Any, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


_META = {"__metadata__": {"petl": "{}"}}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 100,
        (2**63).to_bytes(8, "little") + b"{}",
        (2**40).to_bytes(8, "little") + b"{}" * 100,
        _file(b"[" * 100_000),
        _file(b'{"a":' * 50_000),
        _file(b"[[]," * 1_000_000),
        _file(b"\xff\xfe{}"),
        _file({}),
        _file({"__metadata__": "text"}),
        _file({"__metadata__": {"petl": "[" * 100_000}}),
        _file({"__metadata__": {"petl": "9" * 10_000}}),
        _file({"__metadata__": {"petl": "[1]"}}),
        _file({"__metadata__": {"petl": '{"epoch": 1, "epoch": 2}'}}),
        _file(b'{"__metadata__": {"petl": "{}"}, "__metadata__": {"petl": "{}"}}'),
        _file({**_META, "a": {"dtype": "F32", "shape": [2**62], "data_offsets": [0, 4]}}, b"1234"),
        _file({**_META, "a": {"dtype": "F32", "shape": [2**63, 4], "data_offsets": [0, 0]}}),
        _file({**_META, "a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"1234"),
        _file({**_META, "a": {"dtype": "F32", "shape": [1], "data_offsets": [2**60, 2**60 + 4]}}, b"1234"),
        _file({**_META, "a": {"dtype": "O", "shape": [1], "data_offsets": [0, 4]}}, b"1234"),
        b"\x80\x04\x95" + b"cos\nsystem\n(S'true'\ntR." * 4,
    ],
    ids=lambda data: repr(data[8:40]),
)
def test_bytes_that_are_no_checkpoint(data: bytes, tmp_path: Path) -> None:
    assert parse(data) is None
    (tmp_path / "t").mkdir()
    name = f"last-000001-{hashlib.sha256(data).hexdigest()[:16]}.safetensors"  # whoever writes here can compute it
    (tmp_path / "t" / name).write_bytes(data)
    store = CheckpointStore(str(tmp_path))
    assert store.read("t", "last") is None
    assert store.skipped == [name]


_WHOLE = save({"a": torch.arange(4.0)}, metadata={"petl": '{"epoch": 1, "metrics": {"x": 1.0}}'})


@settings(max_examples=100, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, len(_WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=5))
def test_altered_bytes_never_raise(changes: list[tuple[int, int]]) -> None:
    data = bytearray(_WHOLE)
    for place, value in changes:
        data[place] = value
    found = parse(bytes(data))
    assert found is None or isinstance(found.meta, dict)


def test_what_another_configuration_left_goes(tmp_path: Path) -> None:
    store, place = CheckpointStore(str(tmp_path)), tmp_path / "t"
    for epoch in (7, 8):
        store.write("t", "best", Checkpoint(_checkpoint().tensors, {"epoch": epoch, "config": "theirs"}))
    store.write("t", "last", Checkpoint(_checkpoint().tensors, {"epoch": 9, "config": "theirs"}))
    store.write("t", "best", Checkpoint(_checkpoint().tensors, {"epoch": 2, "config": "mine"}))
    torn = _only(place, "best-000007")
    torn.write_bytes(b"torn")
    store.disown("t", lambda meta: meta["config"] == "mine")
    assert _names(place) == ["best-000002", "best-000007"]  # whose a torn one is cannot be known
    store.write("t", "best", Checkpoint(_checkpoint().tensors, {"epoch": 3, "config": "mine"}))
    store.prune("t")
    read = CheckpointStore(str(tmp_path)).read("t", "best")
    assert read is not None and read.meta == {"epoch": 3, "config": "mine"}
    store.disown("nobody", lambda meta: False)
