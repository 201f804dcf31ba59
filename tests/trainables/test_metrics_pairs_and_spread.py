"""Speaker verification, bootstrap intervals, folds, the ensemble of epochs, and the table of metrics."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from typing import get_args

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from petl.errors import UserError
from trainables import metrics
from trainables.data.datasets.base import TaskName
from trainables.metric_names import METRICS, TASKS, metric_of

# Falling scores: same, same, different, same, different, different.
_SCORES = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
_SAME = [1, 1, 0, 1, 0, 0]


def test_equal_error_rate_by_hand() -> None:
    # After three pairs a third of the different ones is accepted and a third of the same ones refused.
    assert metrics.eer(_SCORES, _SAME) == pytest.approx(1 / 3)
    # + - + (1 different, 2 same): half way between (FAR 0, FRR 1/2) and (FAR 1, FRR 1/2).
    assert metrics.eer([3, 2, 1], [1, 0, 1]) == pytest.approx(1 / 2)
    # Two same in front, one behind, 2 different between, one of them tied with the last same: the line from (0, 1/3)
    # to (1/2, 1/3) is crossed at FAR = 1/3.
    assert metrics.eer([5, 4, 3, 2, 2], [1, 1, 0, 1, 0]) == pytest.approx(1 / 3)


def test_detection_cost_by_hand() -> None:
    # The least is at two accepted: FAR 0, FRR 1/3; 0.01 / 3, over 0.01.
    assert metrics.min_dcf(_SCORES, _SAME) == pytest.approx(1 / 3)
    # With a prior of one half, FAR 1/3 and FRR 0 costs the same: (1/3) / 2, over 1/2.
    assert metrics.min_dcf(_SCORES, _SAME, p_target=0.5) == pytest.approx(1 / 3)
    # Misses ten times as dear: FAR 1/3 x 0.5, over 0.5.
    assert metrics.min_dcf(_SCORES, _SAME, p_target=0.5, c_miss=10) == pytest.approx(1 / 3)
    # One different pair on top: accepting nothing is best at the default.
    assert metrics.min_dcf([2, 1], [0, 1]) == 1.0
    assert metrics.same_or_different(_SCORES, _SAME) == pytest.approx({"eer": 1 / 3, "min_dcf": 1 / 3})


def test_verification_at_its_ends() -> None:
    assert metrics.same_or_different([2, 2, 1], [1, 1, 0]) == {"eer": 0.0, "min_dcf": 0.0}
    assert metrics.same_or_different([1, 1, 2], [1, 1, 0]) == {"eer": 1.0, "min_dcf": 1.0}
    assert metrics.same_or_different([1, 1, 1], [1, 0, 0]) == {"eer": 0.5, "min_dcf": 1.0}
    for scores, same in (([], []), ([1.0, 2.0], [1, 1]), ([1.0, math.nan], [1, 0])):
        assert all(math.isnan(value) for value in metrics.same_or_different(scores, same).values())
    with pytest.raises(ValueError, match="one score and one label"):
        metrics.eer([1.0, 2.0], [1])
    tensors = metrics.eer(torch.tensor(_SCORES), torch.tensor(_SAME))
    assert tensors == pytest.approx(1 / 3)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=2, max_size=30))
def test_verification_is_bounded_symmetric_and_blind_to_order(pairs: list[tuple[int, bool]]) -> None:
    scores, same = np.array([s for s, _ in pairs], float), np.array([d for _, d in pairs])
    assume(same.any() and not same.all())
    rate, cost = metrics.eer(scores, same), metrics.min_dcf(scores, same, p_target=0.3)
    assert 0 <= rate <= 1 and 0 <= cost <= 1
    assert metrics.eer(-scores, ~same) == pytest.approx(rate)
    assert metrics.min_dcf(-scores, ~same, p_target=0.7) == pytest.approx(cost)
    assert metrics.eer(scores[::-1], same[::-1]) == pytest.approx(rate)
    assert metrics.eer(np.exp(scores), same) == pytest.approx(rate)
    # Worked out from the definition: cost over every threshold, rates crossing on the line between two of them.
    points = []
    for threshold in (math.inf, *sorted(set(scores), reverse=True)):
        accepted = scores >= threshold
        points.append((accepted[~same].mean(), (~accepted)[same].mean()))
    assert cost == pytest.approx(min(0.3 * miss + 0.7 * false for false, miss in points) / 0.3)
    crossed = next(i for i, (false, miss) in enumerate(points) if false >= miss)
    lower = np.array(points[crossed - 1])
    upper = np.array(points[crossed])
    weights = np.linspace(0, 1, 20001)[:, None]
    line = lower + weights * (upper - lower)
    nearest = line[np.abs(line[:, 0] - line[:, 1]).argmin()]
    assert rate == pytest.approx(nearest.mean(), abs=1e-4)


def test_intervals_of_a_mean_are_scipys() -> None:
    right = np.random.default_rng(1).random(200) < 0.8
    ours = metrics.interval_of_mean(right, seed=3)
    theirs = scipy.stats.bootstrap((right.astype(float),), np.mean, n_resamples=1000, method="percentile", rng=3)
    assert ours.value == right.mean()
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval))
    normal = 1.96 * math.sqrt(0.8 * 0.2 / 200)
    assert ours.high - ours.low == pytest.approx(2 * normal, rel=0.2)


def test_any_metric_has_an_interval_and_the_short_ways_give_the_same() -> None:
    random = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(30, 3, generator=random), torch.randint(0, 3, (30,), generator=random)
    right = (logits.argmax(1) == targets).double().numpy()
    slow = metrics.interval(lambda b: metrics.single_label(logits[b], targets[b])["accuracy"], 30, resamples=50)
    assert slow == pytest.approx(metrics.interval_of_mean(right, resamples=50), abs=1e-6)
    f1 = metrics.interval(lambda b: metrics.single_label(logits[b], targets[b])["macro_f1"], 30, resamples=50)
    assert f1.low < f1.value < f1.high
    references, hypotheses = ["a b c", "d", "e f"] * 5, ["a b", "x y", "e f"] * 5
    edits, lengths = metrics.edits([metrics.words_of(r) for r in references], [metrics.words_of(h) for h in hypotheses])
    assert (edits[:3].tolist(), lengths[:3].tolist()) == ([1, 2, 0], [3, 1, 2])
    ratio = metrics.interval_of_ratio(edits, lengths, resamples=50)
    assert ratio.value == metrics.error_rates(references, hypotheses)["wer"] == 1 / 2
    direct = metrics.interval(
        lambda b: metrics.error_rates([references[i] for i in b], [hypotheses[i] for i in b])["wer"], 15, resamples=50
    )
    assert direct == pytest.approx(ratio)


def test_intervals_are_seeded_whatever_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.arange(37.0)
    first = metrics.interval_of_mean(values, seed=5)
    assert metrics.interval_of_mean(values, seed=5) == first
    assert metrics.interval_of_mean(values, seed=6) != first
    monkeypatch.setattr("trainables.metrics.intervals._AT_ONCE", 100)
    assert metrics.interval_of_mean(values, seed=5) == first
    narrower = metrics.interval_of_mean(values, seed=5, level=0.5)
    assert first.low < narrower.low < first.value == narrower.value < narrower.high < first.high


def test_intervals_at_their_ends() -> None:
    assert metrics.interval_of_mean([1.0, 1.0, 1.0]) == (1.0, 1.0, 1.0)
    assert metrics.interval_of_mean([0.25]) == (0.25, 0.25, 0.25)
    assert all(math.isnan(v) for v in metrics.interval_of_mean([]))
    assert all(math.isnan(v) for v in metrics.interval(lambda b: 1.0, 0))
    # Resamples without any length are left out, not counted as 0.
    assert metrics.interval_of_ratio([0, 1], [0, 1]) == (1.0, 1.0, 1.0)
    assert all(math.isnan(v) for v in metrics.interval_of_ratio([0, 0], [0, 0]))
    with pytest.raises(ValueError, match="level"):
        metrics.interval_of_mean([1.0, 2.0], level=95)


def test_the_interval_of_ten_thousand_clips_is_quick() -> None:
    right = np.random.default_rng(0).random(10_000) < 0.9
    started = time.process_time()
    found = metrics.interval_of_mean(right)
    assert time.process_time() - started < 2
    assert found.high - found.low == pytest.approx(2 * 1.96 * math.sqrt(0.09 / 10_000), rel=0.15)


def test_folds() -> None:
    folds = [{"test/accuracy": 0.8, "test/loss": 1.0}, {"test/accuracy": 0.9, "test/loss": 1.0}]
    assert metrics.over_folds(folds) == pytest.approx(
        {"test/accuracy": 0.85, "test/accuracy_std": 0.05, "test/loss": 1.0, "test/loss_std": 0.0}
    )
    assert metrics.over_folds(folds[:1])["test/accuracy_std"] == 0.0
    assert math.isnan(metrics.over_folds([{"a": 1.0}, {"a": math.nan}])["a"])
    with pytest.raises(ValueError, match="no folds"):
        metrics.over_folds([])
    with pytest.raises(ValueError, match="result 2 of 2 and the first do not both report b"):
        metrics.over_folds([{"a": 1.0, "b": 2.0}, {"a": 1.0}])


def test_the_ensemble_of_epochs() -> None:
    ensemble = metrics.EpochEnsemble()
    with pytest.raises(ValueError, match="no epoch"):
        _ = ensemble.mean_BC
    logit = math.log(3)  # its sigmoid is 3/4
    assert ensemble.add(torch.tensor([[0.0, logit]])).tolist() == [[0.5, pytest.approx(0.75)]]
    assert ensemble.add(torch.tensor([[logit, -logit]])).tolist() == [[pytest.approx(0.625), pytest.approx(0.5)]]
    with pytest.raises(ValueError, match=r"\(2, 2\), earlier epochs' \(1, 2\)"):
        ensemble.add(torch.zeros(2, 2))
    # Put back from what is kept, it goes on as if nothing had happened.
    again = metrics.EpochEnsemble(total_BC=ensemble.total_BC, epochs=ensemble.epochs)
    third = torch.tensor([[1.0, 2.0]])
    assert torch.equal(again.add(third), ensemble.add(third))
    softmax = metrics.EpochEnsemble("softmax")
    softmax.add(torch.tensor([[0.0, logit]]))
    assert softmax.mean_BC.tolist() == [[pytest.approx(0.25), pytest.approx(0.75)]]
    # Two weak epochs for one class outvote a third, and log-probabilities do for logits.
    for logits in ([[2.0, 0.0]], [[2.0, 0.0]]):
        softmax.add(torch.tensor(logits))
    assert metrics.single_label(softmax.mean_BC.log(), torch.tensor([0]))["accuracy"] == 1.0


def test_every_task_has_an_objective_that_it_reports() -> None:
    assert set(TASKS) == set(get_args(TaskName))
    assert {task: metric_of(task) for task in TASKS} == {
        "classification": "val/accuracy",
        "tagging": "val/map",
        "slots": "val/exact_match",
        "verification": "val/eer",
        "speech_recognition": "val/wer",
        "phonemes": "val/per",
        "slot_filling": "val/slot_type_f1",
    }
    for task in TASKS:
        info = METRICS[metric_of(task)]
        assert info.reported_by(task) and info.per_epoch
        assert METRICS["train/loss"].reported_by(task) and METRICS["trainable_params"].reported_by(task)
    for info in METRICS.values():
        assert set(info.tasks) <= set(TASKS)
        assert info.mode == ("min" if info.name.split("/")[-1] in _SMALLER else "max"), info.name
    assert not METRICS["train/accuracy"].reported_by("speech_recognition")
    with pytest.raises(UserError, match=r"'taging' is not a task.*did you mean 'tagging'"):
        metric_of("taging")


_SMALLER = {"loss", "wer", "cer", "per", "slot_value_cer", "eer", "min_dcf", "trainable_params"}


def test_what_the_functions_report_is_in_the_table() -> None:
    reported = {
        "classification": metrics.single_label(torch.eye(2), torch.tensor([0, 1])),
        "tagging": metrics.multi_label(torch.eye(2), torch.eye(2)),
        "slots": metrics.multi_slot(torch.zeros(1, 2), torch.zeros(1, 2)),
        "verification": metrics.same_or_different([1, 0], [1, 0]),
        "speech_recognition": metrics.error_rates(["a"], ["a"]),
        "phonemes": metrics.phones([["a"]], [["a"]]),
        "slot_filling": {**metrics.slot_filling(["a"], ["a"]), **metrics.error_rates(["a"], ["a"])},
    }
    logged_only = {"mid_precision", "mid_recall"}
    for task, measured in reported.items():
        named = {
            name.removeprefix("val/") for name, i in METRICS.items() if name.startswith("val/") and i.reported_by(task)
        }
        assert named - {"loss"} == set(measured) - {"loss"} - logged_only, task


def test_the_table_is_read_without_torch() -> None:
    check = "import sys, trainables.metric_names; sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
