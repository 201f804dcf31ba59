"""What a worker keeps from trial to trial, and what it answers when it is asked twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from trainables.checkpoints import CheckpointStore
from trainables.config import TrialConfig
from trainables.session import Session


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(CheckpointStore(str(tmp_path)), torch.device("cpu"), None, ("val/accuracy", "max"))


@pytest.fixture
def flat(tiny_ast: Path, tones: Path) -> dict[str, Any]:
    return {
        "backbone": str(tiny_ast),
        "dataset": "folder",
        "data": str(tones),
        "method": "lora",
        "lora.rank": 2,
        "epochs": 3,
        "train.precision": "float32",
    }


def _told(answer: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in answer.items() if k in ("epoch", "done", "seconds", "val/accuracy", "train/loss")}


def test_trials_follow_each_other_on_the_same_backbone(session: Session, flat: dict[str, Any], tmp_path: Path) -> None:
    answers = [session.epoch("a", flat, fresh=number == 1) for number in (1, 2, 3)]
    assert [a["epoch"] for a in answers] == [1, 2, 3]
    assert [a["done"] for a in answers] == [False, False, True]
    backbone = next(iter(session._backbones.values()))
    linear = {k: v for k, v in flat.items() if not k.startswith("lora.")} | {"method": "linear"}
    shared = session.epoch("b", linear, fresh=True)
    assert next(iter(session._backbones.values())) is backbone
    alone = Session(CheckpointStore(str(tmp_path / "alone")), torch.device("cpu"), None, ("val/accuracy", "max"))
    assert alone.epoch("b", linear)["train/loss"] == shared["train/loss"], "what ran before leaves no trace"


def test_a_report_that_was_lost_is_given_again_and_not_trained_again(session: Session, flat: dict[str, Any]) -> None:
    session.epoch("a", flat, fresh=True)
    second = session.epoch("a", flat)
    assert _told(session.epoch("a", flat, fresh=True)) == _told(second)
    assert session.epoch("a", flat)["epoch"] == 3
    last = session.epoch("a", flat, fresh=True)
    assert (last["epoch"], last["done"]) == (3, True)


def test_another_session_continues_where_the_first_one_was_killed(
    session: Session, flat: dict[str, Any], tmp_path: Path
) -> None:
    whole = Session(CheckpointStore(str(tmp_path / "whole")), torch.device("cpu"), None, ("val/accuracy", "max"))
    straight = [whole.epoch("a", flat, fresh=n == 0) for n in range(3)]
    session.epoch("a", flat, fresh=True)
    second = Session(CheckpointStore(str(tmp_path)), torch.device("cpu"), None, ("val/accuracy", "max"))
    assert second.epoch("a", flat, fresh=True)["epoch"] == 1
    assert second.epoch("a", flat)["train/loss"] == straight[1]["train/loss"]
    assert second.epoch("a", flat)["train/loss"] == straight[2]["train/loss"]


def test_only_the_last_few_openings_are_kept(session: Session, flat: dict[str, Any]) -> None:
    speeds = (0.05, 0.1, 0.15, 0.2)
    first, *_, last = [session.data(TrialConfig.from_flat({**flat, "aug.speed": speed})) for speed in speeds]
    assert len(session._data) == 3
    assert session.data(TrialConfig.from_flat({**flat, "aug.speed": speeds[-1]})) is last
    second = session.data(TrialConfig.from_flat({**flat, "aug.speed": speeds[1]}))
    again = session.data(TrialConfig.from_flat({**flat, "aug.speed": speeds[0]}))  # opened anew
    assert again is not first and [one.digest for one in again] == [one.digest for one in first]
    assert session.data(TrialConfig.from_flat({**flat, "aug.speed": speeds[1]})) is second


def test_evaluating_uses_the_best_epoch(session: Session, flat: dict[str, Any]) -> None:
    reports = [session.epoch("a", flat, fresh=n == 0) for n in range(3)]
    found = session.evaluate("a", flat, "val")
    assert found["metrics"]["accuracy"] == max(r["val/accuracy"] for r in reports)
    assert sum(map(sum, found["tables"]["confusion"]["matrix"])) == 12


def test_a_diverging_trial_says_so_and_leaves_the_backbone_usable(session: Session, flat: dict[str, Any]) -> None:
    answer = session.epoch("wild", {**flat, "optim.lr": 1e30}, fresh=True)
    answer = answer if "diverged" in answer else session.epoch("wild", {**flat, "optim.lr": 1e30})
    assert answer["done"] and "diverged" in answer
    assert session.epoch("tame", flat, fresh=True)["epoch"] == 1


def test_an_error_while_building_leaves_the_backbone_usable(
    session: Session, flat: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from petl.model import AudioModel

    def no_room(self: AudioModel, *_: Any) -> AudioModel:
        raise torch.OutOfMemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(AudioModel, "to", no_room)
        with pytest.raises(torch.OutOfMemoryError):
            session.epoch("big", flat, fresh=True)
    assert session.epoch("small", flat, fresh=True)["epoch"] == 1
