"""Single labels and slots: accuracy, F1, confusion, tables."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from trainables import metrics
from trainables.metrics import ClassRow


def _logits(predicted: list[int], classes: int) -> torch.Tensor:
    return 4.0 * torch.nn.functional.one_hot(torch.tensor(predicted), classes).float()


# Five clips: of class 0 two right and one taken for 1, the one of class 1 right, the one of class 2 taken for 0.
_TRUE = torch.tensor([0, 0, 0, 1, 2])
_PREDICTED = _logits([0, 0, 1, 1, 0], 4)


def test_a_hand_example() -> None:
    measured = metrics.single_label(_PREDICTED, _TRUE)
    assert measured["accuracy"] == pytest.approx(3 / 5)
    assert measured["macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)  # class 3 does not occur
    assert measured["weighted_f1"] == pytest.approx((3 * 2 / 3 + 1 * 2 / 3 + 1 * 0) / 5)
    right, wrong = math.log(1 + 3 * math.exp(-4)), 4 + math.log(1 + 3 * math.exp(-4))
    assert measured["loss"] == pytest.approx((3 * right + 2 * wrong) / 5)
    assert metrics.confusion(_PREDICTED, _TRUE) == [[2, 1, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]


def test_what_present_callers_get_is_three_of_the_four() -> None:
    measured = metrics.single_label(_PREDICTED, _TRUE)
    assert metrics.classification(_PREDICTED, _TRUE) == {n: measured[n] for n in ("accuracy", "macro_f1", "loss")}


def test_the_table_says_what_cannot_be_said() -> None:
    assert metrics.class_table(_PREDICTED, _TRUE, ["a", "b", "c", "d"]) == [
        ClassRow("a", 3, 2 / 3, 2 / 3, 2 / 3),
        ClassRow("b", 1, 1 / 2, 1.0, 2 / 3),
        ClassRow("c", 1, None, 0.0, 0.0),
        ClassRow("d", 0, None, None, None),
    ]
    with pytest.raises(ValueError, match="argument 2"):
        metrics.class_table(_PREDICTED, _TRUE, ["a", "b"])


@pytest.mark.parametrize(("predicted", "expected"), [([0, 1, 2], 1.0), ([1, 2, 0], 0.0)])
def test_perfect_and_all_wrong(predicted: list[int], expected: float) -> None:
    measured = metrics.single_label(_logits(predicted, 527), torch.tensor([0, 1, 2]))
    assert {measured[n] for n in ("accuracy", "macro_f1", "weighted_f1")} == {expected}


def test_ties_go_to_the_first_class() -> None:
    tied = metrics.single_label(torch.zeros(2, 3), torch.tensor([0, 1]))
    assert tied["accuracy"] == 0.5
    assert tied["loss"] == pytest.approx(math.log(3))


def test_no_clips_and_a_single_class() -> None:
    nothing = metrics.single_label(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))
    assert set(nothing) == {"accuracy", "macro_f1", "weighted_f1", "loss"}
    assert all(math.isnan(value) for value in nothing.values())
    assert metrics.confusion(torch.zeros(0, 2), torch.zeros(0, dtype=torch.long)) == [[0, 0], [0, 0]]
    only = metrics.single_label(torch.zeros(3, 1), torch.zeros(3, dtype=torch.long))
    assert only == {"accuracy": 1.0, "macro_f1": 1.0, "weighted_f1": 1.0, "loss": 0.0}


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 527), st.integers(1, 40), st.integers(0, 2**31))
def test_scikit_learn_says_the_same_in_any_order_of_the_clips(classes: int, clips: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    logits_BC = torch.randn(clips, classes, generator=random)
    # Few classes occur, some of them as predictions only.
    targets_B = torch.randint(0, min(classes, 4), (clips,), generator=random)
    measured = metrics.single_label(logits_BC, targets_B)
    predicted = logits_BC.argmax(1)
    assert measured["accuracy"] == pytest.approx(accuracy_score(targets_B, predicted), abs=1e-6)
    assert measured["macro_f1"] == pytest.approx(f1_score(targets_B, predicted, average="macro"), abs=1e-6)
    assert measured["weighted_f1"] == pytest.approx(f1_score(targets_B, predicted, average="weighted"), abs=1e-6)
    order = torch.randperm(clips, generator=random)
    assert metrics.single_label(logits_BC[order], targets_B[order]) == pytest.approx(measured, rel=1e-5, abs=1e-6)
    table = metrics.class_table(logits_BC, targets_B, [str(c) for c in range(classes)])
    assert sum(row.clips for row in table) == clips
    known = [row.f1 for row in table if row.f1 is not None]
    assert sum(known) / len(known) == pytest.approx(measured["macro_f1"], abs=1e-6)


# Action, object, location of four clips.
_SLOTS = torch.tensor([[0, 1, 2], [1, 1, 0], [2, 0, 0], [0, 0, 0]])
_HEARD = torch.tensor([[0, 1, 2], [1, 1, 3], [2, 0, 0], [1, 1, 0]])


def test_slots() -> None:
    assert metrics.multi_slot(_HEARD, _SLOTS) == {"exact_match": 0.5, "accuracy": 9 / 12}
    shares = metrics.per_slot(_HEARD, _SLOTS, ["action", "object", "location"])
    assert shares == {"action": 0.75, "object": 0.75, "location": 0.75}
    assert metrics.multi_slot(_SLOTS, _SLOTS) == {"exact_match": 1.0, "accuracy": 1.0}
    assert metrics.multi_slot(_SLOTS + 1, _SLOTS) == {"exact_match": 0.0, "accuracy": 0.0}


def test_slots_of_no_clips_and_of_other_shapes() -> None:
    assert all(math.isnan(v) for v in metrics.multi_slot(_SLOTS[:0], _SLOTS[:0]).values())
    assert math.isnan(metrics.per_slot(_SLOTS[:0], _SLOTS[:0], ["a", "b", "c"])["b"])
    with pytest.raises(ValueError, match=r"found \(4, 3\) and \(4, 2\)"):
        metrics.multi_slot(_SLOTS, _SLOTS[:, :2])


@given(st.lists(st.tuples(*[st.booleans()] * 3), min_size=1, max_size=20))
def test_exact_match_is_at_most_every_slot_and_one_slot_makes_them_one(right: list[tuple[bool, ...]]) -> None:
    heard = torch.tensor(right).long()
    wanted = torch.ones_like(heard)
    measured = metrics.multi_slot(heard, wanted)
    slots = metrics.per_slot(heard, wanted, ["a", "b", "c"])
    assert measured["exact_match"] <= min(slots.values()) + 1e-12
    assert measured["accuracy"] == pytest.approx(sum(slots.values()) / 3)
    one = metrics.multi_slot(heard[:, :1], wanted[:, :1])
    assert one["exact_match"] == one["accuracy"] == slots["a"]
