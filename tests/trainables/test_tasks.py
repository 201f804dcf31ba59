"""Classification, tagging, slots and verification: targets, losses, and how answers are judged."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from petl import AudioModel, ConfigError, UserError, attach
from petl.frontend import AstFrontEnd
from petl.outputs import Classes
from petl.outputs.slots import Slots
from petl.outputs.speakers import Speakers
from petl.outputs.tags import Tags
from tests.petl.models import FRAMES, MELS, inputs, tiny_backbone
from trainables import metrics
from trainables.config import TrainOptions
from trainables.data.clips import Clip
from trainables.data.datasets.base import Target, TaskName
from trainables.metric_names import METRICS
from trainables.tasks import Task, build_task, output_of
from trainables.tasks.base import Targets
from trainables.tasks.trials import Trial, drawn
from trainables.tasks.verification import Verification


def _clip(name: str, label: str = "", **values: Any) -> Clip:
    return Clip(Path(name), name, label, **values)


def _task(name: TaskName, clips: Sequence[Clip], slots: tuple[str, ...] = (), **options: Any) -> Task:
    output = output_of(Target(name, "", slots), clips, range(len(clips)))
    return build_task(name, output, TrainOptions(**options))


SOUNDS = [_clip("a", "sea"), _clip("b", "dog"), _clip("c", "rain"), _clip("d", "dog")]
MUSIC = [
    _clip("a", labels=("voice", "flute")),  # everything known
    _clip("b", labels=("flute",), negatives=("voice",)),  # nothing known of the cello
    _clip("c", labels=("cello",), negatives=()),
    _clip("d", labels=(), negatives=()),  # nothing known at all
    _clip("e", labels=(), negatives=("voice", "tuba")),  # a tuba never sounds
]
ORDERS = [
    _clip("a", labels=("increase", "volume", "none")),
    _clip("b", labels=("decrease", "heat", "kitchen")),
    _clip("c", labels=("increase", "heat", "bedroom")),
]
SLOTS = ("action", "object", "location")
VOICES = [_clip("a", "p1"), _clip("b", "p1"), _clip("c", "p2"), _clip("d", "p2")]

EVERY: list[tuple[TaskName, list[Clip], tuple[str, ...]]] = [
    ("classification", SOUNDS, ()),
    ("tagging", MUSIC, ()),
    ("slots", ORDERS, SLOTS),
    ("verification", VOICES, ()),
]
every = pytest.mark.parametrize(("name", "clips", "slots"), EVERY, ids=[name for name, _, _ in EVERY])


def _scores(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# -- what every task does ------------------------------------------------------------------------------------


@every
def test_outputs_and_targets_do_not_depend_on_order(name: TaskName, clips: list[Clip], slots: tuple[str, ...]) -> None:
    order = random.Random(3).sample(range(len(clips)), len(clips))
    task, other = _task(name, clips, slots), _task(name, [clips[i] for i in order], slots)
    assert task.output == other.output
    given_order = task.targets([clips[i] for i in order]).values
    for key, value in task.targets(clips).at(torch.tensor(order)).values.items():
        assert torch.equal(value, given_order[key])
    assert len(task.targets([])) == 0


@every
def test_what_is_measured_is_what_can_be_optimised(name: TaskName, clips: list[Clip], slots: tuple[str, ...]) -> None:
    task = _task(name, clips, slots)
    measured = task.measure(task.answers(_scores(len(clips), task.output.size), None), clips)
    wanted = {m.removeprefix("val/") for m, info in METRICS.items() if m.startswith("val/") and name in info.tasks}
    assert set(measured) >= wanted - {"loss"} and all(isinstance(value, float) for value in measured.values())
    counts = task.right(_scores(len(clips), task.output.size), None, task.targets(clips)) is not None
    assert counts == METRICS["train/accuracy"].reported_by(name)


@every
def test_tables_and_intervals_are_plain_values(name: TaskName, clips: list[Clip], slots: tuple[str, ...]) -> None:
    task = _task(name, clips, slots)
    answers = task.answers(_scores(len(clips), task.output.size), None)
    assert json.loads(json.dumps(task.tables(answers, clips))) == task.tables(answers, clips)
    for metric, (low, high) in task.intervals(answers, clips).items():
        assert isinstance(low, float) and low <= task.measure(answers, clips)[metric] <= high


@every
def test_a_few_steps_teach_something(name: TaskName, clips: list[Clip], slots: tuple[str, ...]) -> None:
    task = _task(name, clips, slots)
    front_end = AstFrontEnd(mel_bins=MELS, frames=FRAMES)
    model = AudioModel(attach(tiny_backbone(), {"method": "linear"}, seed=0), task.output, front_end, seed=0).train()
    x_BTM, targets = inputs(len(clips)), task.targets(clips)
    optimizer = torch.optim.Adam(model.trainable().values(), lr=0.03)
    losses = []
    for _ in range(25):
        loss = task.losses(model(x_BTM), None, targets).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0] and math.isfinite(losses[-1])


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("classification", "am_softmax"),
        ("tagging", "cross_entropy"),
        ("tagging", "am_softmax"),
        ("slots", "bce"),
        ("slots", "am_softmax"),
        ("verification", "bce"),
    ],
)
def test_losses_that_mean_nothing_are_refused(name: TaskName, loss: str) -> None:
    _, clips, slots = next(case for case in EVERY if case[0] == name)
    with pytest.raises(ConfigError, match=rf"train\.loss is '{loss}'") as caught:
        _task(name, clips, slots, loss=loss)
    assert caught.value.key == "train.loss"


def test_whoever_plans_needs_no_torch() -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom trainables.data.clips import Clip\n"
        "from trainables.data.datasets.base import Target\nfrom trainables.tasks import output_of\n"
        "import trainables.tasks.trials\n"
        "clips = [Clip(Path('a'), 'a', 'x', labels=('x', 'y')), Clip(Path('b'), 'b', 'y', labels=('y', 'x'))]\n"
        f"for name in {[name for name, _, _ in EVERY]}:\n"
        "    output_of(Target(name, '', ('one', 'other')), clips, [0, 1]).check()\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# -- mixtures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("loss", ["cross_entropy", "bce"])
def test_the_loss_of_a_mixed_clip_is_that_of_both(loss: str, smoothing: float) -> None:
    """Cross-entropy and its binary form are linear in the target: both losses, weighted, is the loss of soft labels."""
    task = _task("classification", SOUNDS, loss=loss, label_smoothing=smoothing)
    logits_BC, y_B, other_B, share = _scores(4, 3), torch.tensor([0, 1, 2, 0]), torch.tensor([2, 1, 0, 1]), 0.3
    both_B = share * task.losses(logits_BC, None, Targets({"classes": y_B}))
    both_B = both_B + (1 - share) * task.losses(logits_BC, None, Targets({"classes": other_B}))
    soft_BC = share * functional.one_hot(y_B, 3) + (1 - share) * functional.one_hot(other_B, 3)
    if loss == "bce":
        soft_BC = soft_BC * (1 - smoothing) + smoothing / 3
        expected_B = functional.binary_cross_entropy_with_logits(logits_BC, soft_BC, reduction="none").mean(dim=1)
    else:
        expected_B = functional.cross_entropy(logits_BC, soft_BC, reduction="none", label_smoothing=smoothing)
    torch.testing.assert_close(both_B, expected_B)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_of_mixed_tags_is_that_of_both(smoothing: float) -> None:
    task = _task("tagging", MUSIC, label_smoothing=smoothing)
    logits_BC, share = _scores(2, 3), 0.8
    wanted = [torch.tensor([[1.0, 0, 1], [0, 0, 1]]), torch.tensor([[0.0, 0, 1], [1, 1, 0]])]
    known_BC = torch.tensor([[True, True, True], [True, False, True]])
    one_B, other_B = (task.losses(logits_BC, None, Targets({"wanted": w, "observed": known_BC})) for w in wanted)
    soft = Targets({"wanted": share * wanted[0] + (1 - share) * wanted[1], "observed": known_BC})
    torch.testing.assert_close(share * one_B + (1 - share) * other_B, task.losses(logits_BC, None, soft))


# -- classification ------------------------------------------------------------------------------------------


def test_classes_by_hand() -> None:
    task = _task("classification", SOUNDS)
    assert task.output == Classes(("dog", "rain", "sea"))
    targets = task.targets(SOUNDS)
    assert targets.values["classes"].tolist() == [2, 0, 1, 0]
    # Of the classes' odds 1 : 1 : 2 the third has the probability 1/2, either of the others 1/4.
    logits_BC = torch.tensor([[1.0, 1.0, 2.0]]).log().expand(4, 3)
    expected = [math.log(2), math.log(4), math.log(4), math.log(4)]
    assert task.losses(logits_BC, None, targets).tolist() == pytest.approx(expected)
    right = task.right(logits_BC, None, targets)
    assert right is not None and int(right) == 1
    answers = task.answers(logits_BC, None)
    # Only 'sea' is ever answered: precision 1/4, recall 1, F1 2/5; the others 0.
    assert task.measure(answers, SOUNDS) == pytest.approx(
        {"accuracy": 0.25, "macro_f1": 0.4 / 3, "weighted_f1": 0.4 / 4}
    )
    tables = task.tables(answers, SOUNDS)
    assert tables["confusion"] == {"labels": ["dog", "rain", "sea"], "matrix": [[0, 0, 2], [0, 0, 1], [0, 0, 1]]}
    assert tables["per_class"] == [
        {"label": "dog", "clips": 2, "precision": None, "recall": 0.0, "f1": 0.0},
        {"label": "rain", "clips": 1, "precision": None, "recall": 0.0, "f1": 0.0},
        {"label": "sea", "clips": 1, "precision": 0.25, "recall": 1.0, "f1": 0.4},
    ]


def test_every_class_as_a_yes_or_no() -> None:
    task = _task("classification", SOUNDS, loss="bce", label_smoothing=0.3)
    logits_BC = _scores(4, 3)
    wanted_BC = torch.tensor([[0.1, 0.1, 0.8], [0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.8, 0.1, 0.1]])
    p_BC = logits_BC.sigmoid()
    expected_B = -(wanted_BC * p_BC.log() + (1 - wanted_BC) * (1 - p_BC).log()).mean(dim=1)
    torch.testing.assert_close(task.losses(logits_BC, None, task.targets(SOUNDS)), expected_B)
    judged_B = task.judged_losses(logits_BC, None, task.targets(SOUNDS))
    assert judged_B is not None
    torch.testing.assert_close(judged_B, -logits_BC.log_softmax(dim=1)[range(4), [2, 0, 1, 0]])


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=12))
def test_the_quick_macro_f1_is_the_slow_one(pairs: list[tuple[int, int]]) -> None:
    labels = [f"c{i}" for i in range(4)]
    task: Any = build_task("classification", Classes(tuple(labels)), TrainOptions())
    answered_BC = functional.one_hot(torch.tensor([answer for answer, _ in pairs]), 4)
    y_B = torch.tensor([y for _, y in pairs])
    assert task._macro_f1(answered_BC.char(), y_B) == pytest.approx(metrics.single_label(answered_BC, y_B)["macro_f1"])


def test_intervals_hold_the_value_and_narrow_with_clips() -> None:
    widths = []
    for many in (10, 40):
        clips = [_clip(f"{i}", "dog" if i % 2 else "sea") for i in range(many)]
        task = _task("classification", clips)
        answers = task.answers(functional.one_hot(torch.tensor([i % 4 == 0 for i in range(many)]).long(), 2), None)
        found = task.intervals(answers, clips)
        measured = task.measure(answers, clips)
        assert set(found) == {"accuracy", "macro_f1"}
        assert all(low < measured[name] < high for name, (low, high) in found.items())
        widths.append(found["accuracy"][1] - found["accuracy"][0])
    assert widths[1] < 0.7 * widths[0]


@every
def test_labels_that_nobody_learned_are_named(name: TaskName, clips: list[Clip], slots: tuple[str, ...]) -> None:
    odd = _clip("odd.wav", "doge", labels=("increase", "head", "none") if slots else ("flut",))
    task = _task(name, clips, slots)
    if name == "verification":  # the very point of it
        assert task.targets([odd]).values["speakers"].tolist() == [-1]
        return
    with pytest.raises(
        UserError, match=r"odd\.wav: .*'(doge|flut|head)' is none of the .*did you mean '(dog|flute|heat)'"
    ):
        task.targets([odd])


# -- tagging -------------------------------------------------------------------------------------------------


def test_what_is_known_of_tags() -> None:
    task = _task("tagging", MUSIC)
    assert task.output == Tags(("cello", "flute", "voice"))
    values = task.targets(MUSIC).values
    assert values["wanted"].tolist() == [[0, 1, 1], [0, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert values["wanted"].dtype == torch.float32 and values["observed"].dtype == torch.bool
    assert values["observed"].int().tolist() == [[1, 1, 1], [0, 1, 1], [1, 0, 0], [0, 0, 0], [0, 0, 1]]
    with pytest.raises(UserError, match=r"f: flute is given both as holding and as not"):
        task.targets([_clip("f", labels=("flute", "voice"), negatives=("flute",))])


def test_the_loss_of_tags_is_that_of_the_known_ones() -> None:
    task = _task("tagging", MUSIC)
    # Probabilities of cello, flute and voice: 1/2, 4/5, 1/4.
    logits_BC = torch.tensor([[0.0, math.log(4), -math.log(3)]]).expand(5, 3)
    expected = [
        -(math.log(1 / 2) + math.log(4 / 5) + math.log(1 / 4)) / 3,
        -(math.log(4 / 5) + math.log(3 / 4)) / 2,
        -math.log(1 / 2),
        0,
        -math.log(3 / 4),
    ]
    assert task.losses(logits_BC, None, task.targets(MUSIC)).tolist() == pytest.approx(expected)
    smoothed = _task("tagging", MUSIC, label_smoothing=0.2)  # yes: 0.9, no: 0.1
    found = smoothed.losses(logits_BC, None, smoothed.targets(MUSIC)).tolist()
    assert found[4] == pytest.approx(-(0.1 * math.log(1 / 4) + 0.9 * math.log(3 / 4)))
    judged_B = smoothed.judged_losses(logits_BC, None, smoothed.targets(MUSIC))
    assert judged_B is not None and judged_B.tolist() == pytest.approx(expected)


def test_what_is_not_known_moves_nothing() -> None:
    task = _task("tagging", MUSIC)
    logits_BC = _scores(5, 3).requires_grad_()
    targets = task.targets(MUSIC)
    task.losses(logits_BC, None, targets).sum().backward()
    assert logits_BC.grad is not None
    assert torch.equal(logits_BC.grad != 0, targets.values["observed"])


def test_tags_are_judged_where_they_are_known() -> None:
    task = _task("tagging", MUSIC)
    logits_BC = _scores(5, 3)
    values = task.targets(MUSIC).values
    expected = metrics.multi_label(logits_BC, values["wanted"], values["observed"])
    measured = task.measure(task.answers(logits_BC, None), MUSIC)
    assert measured == pytest.approx(expected, nan_ok=True)
    assert set(measured) == {"map", "mauc", "d_prime", "mid_precision", "mid_recall"}
    rows = task.tables(task.answers(logits_BC, None), MUSIC)["per_class"]
    assert [(row["label"], row["positives"], row["negatives"]) for row in rows] == [
        ("cello", 1, 1),
        ("flute", 2, 0),
        ("voice", 1, 2),
    ]
    assert rows[1]["average_precision"] is None


# -- slots ---------------------------------------------------------------------------------------------------


def test_slots_by_hand() -> None:
    task = _task("slots", ORDERS, SLOTS)
    assert task.output == Slots.of(
        {"action": ("decrease", "increase"), "object": ("heat", "volume"), "location": ("bedroom", "kitchen", "none")}
    )
    targets = task.targets(ORDERS)
    assert targets.values["classes"].tolist() == [[1, 1, 2], [0, 0, 1], [1, 0, 0]]
    logits_BC = torch.tensor([[1.0, 3.0, 1.0, 1.0, 1.0, 1.0, 2.0]]).log().expand(3, 7)
    half, quarter = math.log(2), math.log(4)
    expected = [math.log(4 / 3) + half + half, quarter + half + quarter, math.log(4 / 3) + half + quarter]
    assert task.losses(logits_BC, None, targets).tolist() == pytest.approx(expected)
    # Answered every time: increase, heat (the first of equals), none.
    right = task.right(logits_BC, None, targets)
    assert right is not None and float(right) == pytest.approx(2 / 3 + 1 / 3 + 2 / 3)
    answers = task.answers(logits_BC, None)
    assert task.measure(answers, ORDERS) == pytest.approx({"exact_match": 0.0, "accuracy": 5 / 9})
    tables = task.tables(answers, ORDERS)
    assert [row["accuracy"] for row in tables["per_slot"]] == pytest.approx([2 / 3, 2 / 3, 1 / 3])
    assert [(row["slot"], row["labels"]) for row in tables["per_slot"]] == [
        ("action", 2),
        ("object", 2),
        ("location", 3),
    ]
    assert [row["label"] for row in tables["per_class"]] == list(task.output.labels)
    row = tables["per_class"][1]
    assert (row["label"], row["clips"], row["recall"]) == ("action=increase", 2, 1.0)
    assert (row["precision"], row["f1"]) == pytest.approx((2 / 3, 0.8))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_slots_is_the_sum_over_their_slices(smoothing: float) -> None:
    task = _task("slots", ORDERS, SLOTS, label_smoothing=smoothing)
    logits_BC, y_BK = _scores(3, 7), task.targets(ORDERS).values["classes"]
    slices = [slice(0, 2), slice(2, 4), slice(4, 7)]
    expected = sum(
        functional.cross_entropy(logits_BC[:, s], y_BK[:, k], label_smoothing=smoothing) for k, s in enumerate(slices)
    )
    torch.testing.assert_close(task.losses(logits_BC, None, task.targets(ORDERS)).mean(), expected)


def test_slots_need_a_label_each() -> None:
    with pytest.raises(
        UserError, match=r"x\.wav: 2 labels \(increase, heat\); one is needed for each of action, object"
    ):
        _task("slots", [*ORDERS, _clip("x.wav", labels=("increase", "heat"))], SLOTS)


# -- verification --------------------------------------------------------------------------------------------


def test_the_margin_by_hand() -> None:
    cosines_BC = torch.tensor([[0.5, 0.2], [0.5, 0.2]])
    targets = Targets({"speakers": torch.tensor([0, 1])})
    # 10 (0.5 - 0.2) against 2, and 5 against 10 (0.2 - 0.2)
    margin = _task("verification", VOICES, margin=0.2, scale=10)
    expected = [math.log(1 + math.exp(-1)), math.log(1 + math.exp(5))]
    assert margin.losses(cosines_BC, None, targets).tolist() == pytest.approx(expected)
    assert expected == pytest.approx([0.3132617, 5.0067153])
    plain = _task("verification", VOICES, margin=0.2, scale=10, loss="cross_entropy")
    expected = [math.log(1 + math.exp(-3)), math.log(1 + math.exp(3))]
    assert plain.losses(cosines_BC, None, targets).tolist() == pytest.approx(expected)
    right = margin.right(cosines_BC, None, targets)
    assert right is not None and int(right) == 1
    assert margin.judged_losses(cosines_BC, None, targets) is None


def test_only_voices_of_the_training_are_learned() -> None:
    output = output_of(Target("verification", ""), [*VOICES, _clip("e", "p0")], [0, 1, 4])
    assert output == Speakers(("p0", "p1"))
    task = build_task("verification", output, TrainOptions())
    assert task.targets(VOICES).values["speakers"].tolist() == [1, 1, -1, -1]


def test_four_listed_pairs_by_hand() -> None:
    """One speaker: cosines 1 and 0; two: 0 and -1. At a threshold just above 0 half of the first are refused and none
    of the others accepted, just below none and half: the rates meet at a quarter."""
    task = _task("verification", VOICES)
    assert isinstance(task, Verification)
    task.trials = (Trial("a", "b", True), Trial("c", "d", True), Trial("a", "c", False), Trial("b", "d", False))
    answers = task.answers(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]), None)
    measured = task.measure(answers, VOICES)
    # Detection cost: half of the same refused cost 0.5; half of the others accepted 0.99 / 0.01 / 2.
    assert measured == pytest.approx({"eer": 0.25, "min_dcf": 0.5})
    found = task.tables(answers, VOICES)["trials"]
    assert found == {"speakers": 2, "clips": 4, "same": 2, "different": 2, "from": "listed"}
    others = [_clip(c.name.upper(), c.label) for c in VOICES]  # of which the list says nothing
    assert task.tables(answers, others)["trials"]["from"] == "drawn"


def test_voices_far_apart_are_told_apart() -> None:
    task = _task("verification", VOICES)
    apart = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]])
    assert task.measure(task.answers(apart, None), VOICES) == {"eer": 0.0, "min_dcf": 0.0}
    assert task.intervals(task.answers(apart, None), VOICES)["eer"] == (0.0, 0.0)
    alike = torch.tensor([[1.0, 0.0]]).expand(4, 2)
    assert task.measure(task.answers(alike, None), VOICES)["eer"] == pytest.approx(0.5)


def test_cosines_are_of_the_pairs_named() -> None:
    clips = [_clip(f"{i}", f"p{i % 6}") for i in range(120)]
    vectors_BE = functional.normalize(_scores(120, 5), dim=1)
    pairs = drawn(clips)
    scores_N = [float(vectors_BE[i] @ vectors_BE[j]) for i, j in zip(pairs.one_N, pairs.other_N, strict=True)]
    task = _task("verification", clips)
    measured = task.measure(task.answers(vectors_BE, None), clips)
    assert measured == pytest.approx(metrics.same_or_different(np.array(scores_N), pairs.same_N), abs=1e-3)
    low, high = task.intervals(task.answers(vectors_BE, None), clips)["eer"]
    assert 0.3 < low < 0.5 < high < 0.7  # vectors drawn at random say nothing
