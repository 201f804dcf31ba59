"""What a worker answers when checkpoints are torn, are another trial's, or cannot be written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from trainables.checkpoints import CheckpointStore
from trainables.config import TrialConfig
from trainables.kept import best_epoch, digest_of
from trainables.session import Session


@pytest.fixture
def flat(tiny_ast: Path, tones: Path) -> dict[str, Any]:
    return {
        "backbone": str(tiny_ast),
        "dataset": "folder",
        "data": str(tones),
        "method": "lora",
        "lora.rank": 2,
        "epochs": 6,
        "train.precision": "float32",
    }


def _session(place: Path) -> Session:
    return Session(CheckpointStore(str(place)), torch.device("cpu"), None, ("val/loss", "min"))


def _numbers(report: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in report.items() if ("/" in k and "data_wait" not in k) or k in ("epoch", "done")}


def _files(place: Path, kind: str) -> list[Path]:
    return sorted((place / "a").glob(f"{kind}-*.safetensors"))


def _tear(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _past(reports: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What `past` says of epochs that were reported before."""
    return [
        {"epoch": r["epoch"], "seconds": r["seconds"], "metrics": {k: v for k, v in r.items() if "/" in k}}
        for r in reports
    ]


def test_torn_checkpoints_cost_epochs_but_no_numbers(flat: dict[str, Any], tmp_path: Path) -> None:
    first = _session(tmp_path)
    reports = [first.epoch("a", flat, fresh=number == 0) for number in range(5)]
    assert reports[0]["past"] == [] and "past" not in reports[1] and "notes" not in reports[4]
    newest = _files(tmp_path, "last")[-1]
    _tear(newest)
    second = _session(tmp_path)
    again = second.epoch("a", flat, fresh=True)
    assert _numbers(again) == _numbers(reports[3])
    assert again["past"] == _past(reports[:3])  # for a driver that lost its journal's end
    assert again["notes"] == [f"checkpoint {newest.name} is not whole; the last one of epoch 4 is used"]
    fifth = second.epoch("a", flat)
    assert _numbers(fifth) == _numbers(reports[4]) and "notes" not in fifth
    for path in _files(tmp_path, "last"):  # now there is nothing to go on from
        _tear(path)
    third = _session(tmp_path)
    anew = [third.epoch("a", flat, fresh=number == 0) for number in range(6)]
    assert [_numbers(report) for report in anew[:5]] == [_numbers(report) for report in reports]
    assert anew[0]["notes"] and anew[0]["past"] == [] and anew[5]["done"]
    once_more = _session(tmp_path).epoch("a", flat, fresh=True)
    assert _numbers(once_more) == _numbers(anew[5]) and once_more["past"] == _past(anew[:5])


def test_a_best_epoch_that_is_torn_is_replaced_by_an_earlier_one_and_said(flat: dict[str, Any], tmp_path: Path) -> None:
    flat |= {"epochs": 3}
    session = _session(tmp_path)
    reports = [session.epoch("a", flat) for _ in range(3)]
    history = _past(reports)
    assert best_epoch(history, ("val/loss", "min")) == 3  # it learns
    found = session.evaluate("a", flat, "val")
    assert (found["epoch"], "warning" in found) == (3, False)
    assert found["metrics"]["loss"] == reports[2]["val/loss"]
    _tear(_files(tmp_path, "best")[-1])
    found = _session(tmp_path).evaluate("a", flat, "val")
    assert found["warning"] == "the weights of the best epoch, 3, cannot be read; these are of epoch 2"
    assert (found["epoch"], found["metrics"]["loss"]) == (2, reports[1]["val/loss"])
    for path in _files(tmp_path, "best"):
        _tear(path)
    found = _session(tmp_path).evaluate("a", flat, "val")
    assert found["epoch"] == 3 and "warning" in found  # the weights it ended with
    for path in _files(tmp_path, "last"):
        _tear(path)
    with pytest.raises(RuntimeError, match="trial a has no readable checkpoint in"):
        _session(tmp_path).evaluate("a", flat, "val")


def test_a_trial_id_that_was_given_anew_starts_anew(flat: dict[str, Any], tmp_path: Path) -> None:
    old = _session(tmp_path)
    for _ in range(3):
        old.epoch("a", flat)
    other = {**flat, "lora.rank": 4}
    new = _session(tmp_path)
    first = new.epoch("a", other, fresh=True)
    assert first["epoch"] == 1 and first["past"] == []
    assert any("another configuration" in note for note in first["notes"])
    assert _numbers(first) == _numbers(_session(tmp_path / "alone").epoch("a", other))
    second = new.epoch("a", other)
    resumed = _session(tmp_path).epoch("a", dict(reversed(other.items())), fresh=True)  # the order of keys is nothing
    assert (resumed["epoch"], resumed["past"]) == (2, _past([first]))
    assert _session(tmp_path).evaluate("a", other, "val")["metrics"]["loss"] == second["val/loss"]
    assert old.epoch("a", other)["epoch"] == 3  # nor does one go on in a session that still has the old one


def test_what_another_configuration_left_never_outlives_the_trials_own(flat: dict[str, Any], tmp_path: Path) -> None:
    old = _session(tmp_path)
    for _ in range(5):
        old.epoch("a", flat)
    CheckpointStore(str(tmp_path)).prune("a")  # it ended: its best epochs, 4 and 5, stayed
    assert not _files(tmp_path, "last") and len(_files(tmp_path, "best")) == 2
    other = {**flat, "lora.rank": 4, "epochs": 2}
    new = _session(tmp_path)
    reports = [new.epoch("a", other, fresh=number == 0) for number in range(2)]
    CheckpointStore(str(tmp_path)).prune("a")
    found = _session(tmp_path).evaluate("a", other, "val")
    assert found["metrics"]["loss"] == min(report["val/loss"] for report in reports) and "warning" not in found


def test_digests_are_of_what_changes_numbers(flat: dict[str, Any]) -> None:
    config = TrialConfig.from_flat(flat)
    moved = TrialConfig.from_flat({**flat, "data": "/elsewhere", "train.deadline": 7.0, "train.loaders": 2})
    assert digest_of(moved) == digest_of(config) == digest_of(TrialConfig.from_flat(config.to_flat()))
    for key, value in {"seed": 1, "optim.lr": 1e-3, "epochs": 7, "lora.rank": 3, "data.frames": 60}.items():
        assert digest_of(TrialConfig.from_flat({**flat, key: value})) != digest_of(config), key


def test_an_epoch_that_cannot_be_written_is_kept_and_not_trained_again(flat: dict[str, Any], tmp_path: Path) -> None:
    straight = _session(tmp_path / "straight")
    wanted = [straight.epoch("a", flat) for _ in range(3)]
    place = tmp_path / "store"
    session = _session(place)
    assert _numbers(session.epoch("a", flat)) == _numbers(wanted[0])
    (place / "a").rename(place / "aside")
    (place / "a").write_text("in the way of the trial's folder")  # root may write anywhere, but not here
    failed = session.epoch("a", flat)
    assert (
        set(failed) == {"storage"} and "could not be written" in failed["storage"] and str(place) in failed["storage"]
    )
    running = session._running
    assert running is not None and running.unsaved is not None
    unsaved = running.unsaved
    assert set(session.epoch("a", flat)) == {"storage"}
    assert session._running is running and running.unsaved is unsaved
    assert set(_session(place).epoch("a", flat, fresh=True)) == {"storage"}  # cannot even read: nothing is begun anew
    (place / "a").unlink()
    (place / "aside").rename(place / "a")
    second = session.epoch("a", flat, fresh=True)  # by a driver that was started anew, say
    assert _numbers(second) == _numbers(wanted[1]) == _numbers(vars(unsaved) | unsaved.metrics | {"done": False})
    assert second["past"][0]["metrics"]["val/loss"] == wanted[0]["val/loss"] and len(second["past"]) == 1
    assert _numbers(session.epoch("a", flat)) == _numbers(wanted[2])
    assert _numbers(_session(place).epoch("a", flat, fresh=True)) == _numbers(wanted[2])


def test_preparing_opens_what_an_epoch_needs(flat: dict[str, Any], tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path))
    session = Session(store, torch.device("cpu"), tmp_path / "cache", ("val/loss", "min"))
    steps: list[None] = []
    assert session.prepare(flat, lambda: steps.append(None)) == {"prepared": True}
    assert len(steps) >= 2 * 60, "a step for every file that is read, and for every clip's features"
    backbone, data = next(iter(session._backbones.values())), next(iter(session._data.values()))
    session.epoch("a", flat)
    assert session.prepare(flat) == {"prepared": True}  # in the middle of a trial it changes nothing
    assert session.epoch("a", flat)["epoch"] == 2
    assert next(iter(session._backbones.values())) is backbone and next(iter(session._data.values())) is data
    refused = session.prepare({**flat, "data": str(tmp_path / "nowhere")})
    assert "nowhere" in refused["refused"]
    assert session.epoch("a", flat)["epoch"] == 3
