"""Multi-label tagging: average precision, AUC, d', observed labels."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score
from torchmetrics.functional.classification import multilabel_average_precision

from trainables import metrics
from trainables.metrics import TagRow

# Class 0: ranked + - + -, so precision 1 at recall 1/2 and 2/3 at recall 1; three of the four pairs are in order.
# Class 1: ranked - + + -, so 1/2 and 2/3; two of four.
_SCORES = torch.tensor([[0.9, 0.1], [0.8, 0.9], [0.7, 0.8], [0.6, 0.2]])
_TARGETS = torch.tensor([[1, 0], [0, 0], [1, 1], [0, 1]])
_AP = (5 / 6, 7 / 12)
_AUC = (3 / 4, 2 / 4)


def test_a_hand_example() -> None:
    measured = metrics.multi_label(_SCORES, _TARGETS)
    assert measured["map"] == pytest.approx(sum(_AP) / 2)
    assert measured["mauc"] == pytest.approx(sum(_AUC) / 2)
    # The normal quantile of 0.625 is 0.31864.
    assert measured["d_prime"] == pytest.approx(math.sqrt(2) * 0.3186394, abs=1e-6)
    # Five points on each curve, from the least threshold up; the middle is that of the second best clip.
    assert measured["mid_precision"] == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert measured["mid_recall"] == pytest.approx((1 / 2 + 1 / 2) / 2)
    rows = metrics.tag_table(_SCORES, _TARGETS, ["flute", "voice"])
    assert [row[:3] for row in rows] == [("flute", 2, 2), ("voice", 2, 2)]
    assert [row.average_precision for row in rows] == pytest.approx(_AP)
    assert [row.auc for row in rows] == pytest.approx(_AUC)


def test_unobserved_labels_are_as_if_they_were_not_there() -> None:
    observed = torch.tensor([[True, True], [False, True], [True, True], [True, True]])
    measured = metrics.multi_label(_SCORES, _TARGETS, observed)
    assert measured["map"] == pytest.approx((1 + _AP[1]) / 2)  # class 0 is ranked + + - without its second clip
    assert measured["mauc"] == pytest.approx((1 + _AUC[1]) / 2)
    flipped = _TARGETS.clone()
    flipped[1, 0] = 1
    assert metrics.multi_label(_SCORES, flipped, observed) == measured
    spoiled = _SCORES.clone()
    spoiled[1, 0] = math.nan  # nobody looks
    assert metrics.multi_label(spoiled, _TARGETS, observed) == measured


@pytest.mark.parametrize("constant", [0, 1])
def test_a_class_of_one_kind_is_left_out(constant: int) -> None:
    scores = torch.cat([_SCORES, torch.rand(4, 1)], dim=1)
    targets = torch.cat([_TARGETS, torch.full((4, 1), constant)], dim=1)
    assert metrics.multi_label(scores, targets) == metrics.multi_label(_SCORES, _TARGETS)
    assert metrics.tag_table(scores, targets, ["a", "b", "c"])[2] == TagRow(
        "c", 4 * constant, 4 - 4 * constant, None, None
    )


def test_perfect_wrong_and_tied() -> None:
    targets = torch.tensor([[1.0], [1.0], [0.0], [0.0]])
    perfect = metrics.multi_label(targets, targets)
    assert (perfect["map"], perfect["mauc"]) == (1.0, 1.0)
    assert 9 < perfect["d_prime"] < 11  # finite, so that it can be the best of a search
    wrong = metrics.multi_label(-targets, targets)
    assert (wrong["map"], wrong["mauc"]) == (pytest.approx(1 / 2), 0.0)  # all four clips are one tie below, then 2/4
    assert wrong["d_prime"] == pytest.approx(-perfect["d_prime"])
    tied = metrics.multi_label(torch.zeros(4, 1), targets)
    assert (tied["map"], tied["mauc"], tied["d_prime"]) == (0.5, 0.5, 0.0)
    assert (tied["mid_precision"], tied["mid_recall"]) == (1.0, 0.0)  # the end of a curve with one threshold


def test_what_cannot_be_measured_is_nan() -> None:
    empty = metrics.multi_label(torch.zeros(0, 2), torch.zeros(0, 2))
    unseen = metrics.multi_label(_SCORES, _TARGETS, torch.zeros(4, 2, dtype=torch.bool))
    diverged = metrics.multi_label(_SCORES * math.inf, _TARGETS)
    for measured in (empty, unseen, diverged):
        assert set(measured) == {"map", "mauc", "d_prime", "mid_precision", "mid_recall"}
        assert all(math.isnan(value) for value in measured.values())
    assert math.isnan(metrics.d_prime(math.nan))
    assert metrics.tag_table(_SCORES * math.inf, _TARGETS, ["a", "b"])[0] == TagRow("a", 2, 2, None, None)
    with pytest.raises(ValueError, match="differ"):
        metrics.multi_label(_SCORES, _TARGETS[:, :1])


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(2, 60), st.integers(0, 2**31), st.booleans())
def test_scikit_learn_says_the_same(classes: int, clips: int, seed: int, ties: bool) -> None:
    random = torch.Generator().manual_seed(seed)
    scores = torch.randn(clips, classes, generator=random)
    scores = scores.round() if ties else scores
    targets = torch.randint(0, 2, (clips, classes), generator=random)
    observed = torch.rand(clips, classes, generator=random) < 0.7
    expected = []
    for c in range(classes):
        s, t = scores[observed[:, c], c], targets[observed[:, c], c]
        if 0 < int(t.sum()) < len(t):
            precision, recall, _ = precision_recall_curve(t, s)
            middle = len(precision) // 2
            expected.append((average_precision_score(t, s), roc_auc_score(t, s), precision[middle], recall[middle]))
    measured = metrics.multi_label(scores, targets, observed)
    if not expected:
        assert math.isnan(measured["map"])
        return
    means = torch.tensor(expected, dtype=torch.float64).mean(0).tolist()
    assert [measured[n] for n in ("map", "mauc", "mid_precision", "mid_recall")] == pytest.approx(means)
    assert all(0 <= measured[n] <= 1 for n in ("map", "mauc", "mid_precision", "mid_recall"))
    order = torch.randperm(clips, generator=random)
    assert metrics.multi_label(scores[order], targets[order], observed[order]) == pytest.approx(measured)
    # Only the order of the scores counts.
    assert metrics.multi_label(3 * scores - 7, targets, observed) == pytest.approx(measured)


def test_torchmetrics_says_the_same_of_527_classes() -> None:
    random = torch.Generator().manual_seed(0)
    scores, targets = torch.rand(200, 527, generator=random), torch.rand(200, 527, generator=random) < 0.1
    expected = multilabel_average_precision(scores, targets.long(), 527)
    assert metrics.multi_label(scores, targets)["map"] == pytest.approx(float(expected), abs=1e-5)


def test_the_quick_interval_is_that_of_resampled_clips() -> None:
    draw = torch.Generator().manual_seed(0)
    scores_BC = torch.randint(0, 9, (30, 4), generator=draw).float()  # many are equal
    targets_BC = torch.rand(30, 4, generator=draw) < torch.tensor([0.5, 0.3, 0.05, 0.0])
    targets_BC[3, 2] = True  # one positive, which some resamples lose
    observed_BC = torch.rand(30, 4, generator=draw) < 0.7
    observed_BC[3, 2] = True
    for observed in (None, observed_BC):

        def mean(b: object, observed: torch.Tensor | None = observed) -> float:
            seen = None if observed is None else observed[b]
            return metrics.multi_label(scores_BC[b], targets_BC[b], seen)["map"]

        quick = metrics.map_interval(scores_BC, targets_BC, observed, resamples=60)
        assert quick == pytest.approx(metrics.interval(mean, 30, resamples=60))
