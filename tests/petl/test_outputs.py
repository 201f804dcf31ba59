"""Tags, slots and speakers: what their numbers mean, and models that answer with them."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from petl import AudioModel, Output, UserError, attach, load_adapter, load_backbone, save_adapter
from petl.config import MethodConfig
from petl.counts import head_parameters, trainable_parameters
from petl.frontend import AstFrontEnd
from petl.heads import Cosine
from petl.outputs import Classes, from_json
from petl.outputs.slots import SlotPrediction, Slots
from petl.outputs.speakers import Embedding, Speakers
from petl.outputs.tags import TagPrediction, Tags
from tests.petl.models import FRAMES, HIDDEN, MELS, TINY_SHAPE, inputs, tiny_backbone, tiny_checkpoint, trained

INSTRUMENTS = Tags(("cello", "flute", "voice"), threshold=0.6)
COMMANDS = Slots.of({"action": ("decrease", "increase", "none"), "place": ("kitchen", "none")})
VOICES = Speakers(("p225", "p226", "p227", "p228"))
OUTPUTS: list[Output] = [INSTRUMENTS, COMMANDS, VOICES]
HEADS: list[dict[str, Any]] = [{}, {"head.kind": "norm_linear"}, {"head.kind": "projector", "head.width": 12}]
FRONT_END = AstFrontEnd(mel_bins=MELS, frames=FRAMES)


def _named(value: object) -> str:
    return value.kind if isinstance(value, Output) else str(value)


def _model(output: Output, flat: dict[str, Any] | None = None) -> AudioModel:
    return AudioModel(attach(tiny_backbone(), {"method": "linear", **(flat or {})}, seed=0), output, FRONT_END, seed=0)


# -- tags ----------------------------------------------------------------------------------------------------


def test_tags_above_the_threshold() -> None:
    # sigmoid(log 4) = 0.8, sigmoid(0) = 0.5, sigmoid(log 9) = 0.9
    logits_BC = torch.tensor([[math.log(4), 0.0, math.log(9)], [0.0, -math.log(4), 0.0]])
    both, none = INSTRUMENTS.predictions(logits_BC, None)
    assert isinstance(both, TagPrediction) and isinstance(none, TagPrediction)
    assert both.labels == ("voice", "cello")
    assert both.probabilities == pytest.approx({"cello": 0.8, "flute": 0.5, "voice": 0.9})
    assert both.shown == "voice 0.900, cello 0.800"
    assert json.loads(json.dumps(both.to_json()))["labels"] == ["voice", "cello"]
    assert none.labels == () and none.shown == "(no label; likeliest cello 0.500)"


def test_a_tag_at_the_threshold_is_not_above_it() -> None:
    (found,) = Tags(("a",)).predictions(torch.zeros(1, 1), None)
    assert isinstance(found, TagPrediction) and found.labels == () and found.probabilities == {"a": 0.5}


def test_tags_of_equal_probability_keep_the_heads_order() -> None:
    (found,) = Tags(("b", "a", "c")).predictions(torch.tensor([[1.0, 1.0, 2.0]]), None)
    assert isinstance(found, TagPrediction) and found.labels == ("c", "b", "a")


@pytest.mark.parametrize(
    "output", [Tags(()), Tags(("a", "a")), Tags(("a",), 0.0), Tags(("a",), 1.0), Tags(("a",), math.nan)]
)
def test_tags_that_cannot_be(output: Tags) -> None:
    with pytest.raises(UserError, match=r"at least one label|between 0 and 1"):
        output.check()


# -- slots ---------------------------------------------------------------------------------------------------


def test_the_best_label_of_every_slot() -> None:
    # softmax of log(1, 2, 1) is (1/4, 1/2, 1/4), of log(3, 1) it is (3/4, 1/4)
    logits_BC = torch.tensor([[1.0, 2.0, 1.0, 3.0, 1.0], [1.0, 1.0, 6.0, 1.0, 4.0]]).log()
    first, second = COMMANDS.predictions(logits_BC, None)
    assert isinstance(first, SlotPrediction) and isinstance(second, SlotPrediction)
    assert first.values == {"action": "increase", "place": "kitchen"}
    assert first.probability == pytest.approx(1 / 2 * 3 / 4)
    assert first.probabilities["action"] == pytest.approx({"decrease": 0.25, "increase": 0.5, "none": 0.25})
    assert first.shown == "action=increase  place=kitchen  0.375"
    assert second.values == {"action": "none", "place": "none"} and second.probability == pytest.approx(0.75 * 0.8)
    assert json.loads(json.dumps(first.to_json()))["slots"] == first.values


def test_slots_may_share_labels_and_labels_may_hold_the_sign() -> None:
    assert COMMANDS.labels == ("action=decrease", "action=increase", "action=none", "place=kitchen", "place=none")
    assert (COMMANDS.names, COMMANDS.sizes, COMMANDS.size) == (("action", "place"), (3, 2), 5)
    odd = {"a": ("a=b", "=", ""), "b": ("a=b", "c")}
    output = Slots.of(odd)
    output.check()
    assert output.values() == {"a": ("a=b", "=", ""), "b": ("a=b", "c")}


_NAME = st.text(st.characters(exclude_characters="="), min_size=1, max_size=5)


@settings(deadline=None)
@given(
    st.dictionaries(_NAME, st.lists(st.text(max_size=5), min_size=2, max_size=4, unique=True), min_size=1, max_size=4)
)
def test_slots_give_back_their_labels(values: dict[str, list[str]]) -> None:
    output = Slots.of(values)
    output.check()
    assert output.values() == {slot: tuple(own) for slot, own in values.items()}
    assert from_json(output.labels, json.loads(json.dumps(output.to_json(), sort_keys=True))) == output


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (Slots(("a", "b")), "slots need names"),
        (Slots.of({"x=y": ("a", "b")}), "without '='"),
        (Slots.of({"x": ()}), "every slot needs a label"),
        (Slots.of({"x": ("a",), "y": ("b",)}), "one of them two"),
        (Slots(("x=a", "x=b"), (("x", 3),)), "3 in 'x' and 2 in all"),
        (Slots(("x=a", "x=a"), (("x", 2),)), "all different"),
        (Slots(("x=a", "x=b", "x=c", "y=a"), (("x", 2), ("y", 2))), "'x=c' stands among those of slot 'y'"),
    ],
)
def test_slots_that_cannot_be(output: Slots, said: str) -> None:
    with pytest.raises(UserError, match=said):
        output.check()


# -- speakers ------------------------------------------------------------------------------------------------


def test_a_voice_is_a_vector() -> None:
    (found,) = VOICES.predictions(torch.tensor([[0.6, -0.8, 0.0, 0.0, 0.0]]), None)
    assert isinstance(found, Embedding)
    assert found.vector == pytest.approx((0.6, -0.8, 0, 0, 0)) and found.norm == pytest.approx(1)
    assert found.shown == "vector of 5 numbers, length 1.000: 0.6000, -0.8000, 0.0000, 0.0000, …"
    assert json.loads(json.dumps(found.to_json())) == {"vector": list(found.vector)}


def test_similar_voices() -> None:
    one = Embedding((3.0, 4.0))
    assert Speakers.similarity(one, Embedding((6.0, 8.0))) == pytest.approx(1)
    assert Speakers.similarity(one, Embedding((-4.0, 3.0))) == pytest.approx(0)
    assert Speakers.similarity(one, Embedding((5.0, 0.0))) == pytest.approx(0.6)
    with pytest.raises(UserError, match="2 and 3 numbers"):
        Speakers.similarity(one, Embedding((1.0, 0.0, 0.0)))
    with pytest.raises(UserError, match="no direction"):
        Speakers.similarity(one, Embedding((0.0, 0.0)))


@pytest.mark.parametrize("labels", [(), ("one",), ("one", "one")])
def test_speakers_that_cannot_be(labels: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match="at least two speakers"):
        Speakers(labels).check()


# -- models that answer so -----------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["mean", "stats", "cls"])
@pytest.mark.parametrize("flat", HEADS, ids=str)
@pytest.mark.parametrize("output", OUTPUTS, ids=_named)
def test_head_parameters(output: Output, flat: dict[str, Any], pooling: str) -> None:
    """Counted as they are, all of them trained: a gradient reaches every one."""
    flat = {"method": "linear", **flat, "pooling": pooling}
    model = trained(_model(output, flat)).train()
    head = dict(model.head.named_parameters())
    assert sum(p.numel() for p in head.values()) == head_parameters(MethodConfig.from_flat(flat), TINY_SHAPE, output)
    total = trainable_parameters(MethodConfig.from_flat(flat), TINY_SHAPE, output)
    assert sum(p.numel() for p in model.trainable().values()) == total
    logits_BC = model(inputs())
    assert logits_BC.shape == (2, output.size)
    (logits_BC * torch.randn(logits_BC.shape, generator=torch.Generator().manual_seed(0))).sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in head.values())


@pytest.mark.parametrize("flat", HEADS, ids=str)
def test_cosines_while_training_and_vectors_afterwards(flat: dict[str, Any]) -> None:
    model = trained(_model(VOICES, flat))
    vectors_BE = model.eval()(inputs())
    assert vectors_BE.shape == (2, 12 if flat.get("head.kind") == "projector" else HIDDEN)
    torch.testing.assert_close(vectors_BE.norm(dim=1), torch.ones(2))
    weight_CE = next(p for name, p in model.head.named_parameters() if name.endswith("weight") and len(p) == 4)
    expected_BC = functional.cosine_similarity(vectors_BE[:, None], weight_CE[None], dim=2)
    torch.testing.assert_close(model.train()(inputs()), expected_BC)


def test_cosines_keep_their_digits_under_autocast() -> None:
    head = Cosine(HIDDEN, 4, torch.Generator().manual_seed(0))
    x_BE = torch.randn(3, HIDDEN, generator=torch.Generator().manual_seed(1))
    expected_BC = head(x_BE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(head(x_BE), expected_BC)


@pytest.mark.parametrize("flat", [{"method": "lora", "lora.rank": 2}, {"method": "linear", **HEADS[2]}], ids=str)
@pytest.mark.parametrize("output", OUTPUTS, ids=_named)
def test_saved_and_loaded(output: Output, flat: dict[str, Any], tmp_path: Path) -> None:
    backbone = load_backbone(str(tiny_checkpoint(tmp_path / "ast")), frames=FRAMES)
    model = trained(AudioModel(attach(backbone, flat, seed=1), output, FRONT_END, seed=1)).eval()
    loaded = load_adapter(save_adapter(tmp_path / "best", model))
    assert loaded.output == output and loaded.labels == output.labels
    assert torch.equal(loaded(inputs()), model(inputs()))
    assert torch.equal(loaded.train()(inputs()), model.train()(inputs()))
    wave_S = torch.sin(torch.arange(8000) / 20)
    assert loaded.predict(wave_S) == model.predict(wave_S)
    shown = ".similarity(" if output.embeds else ".shown"  # a voice says something beside another one
    assert shown in (tmp_path / "best" / "README.md").read_text()


@pytest.mark.parametrize("output", [*OUTPUTS, Classes(("a", "b"))], ids=_named)
def test_described_and_read(output: Output) -> None:
    assert from_json(output.labels, json.loads(json.dumps(output.to_json()))) == output


@pytest.mark.parametrize(
    "values",
    [
        {"kind": "tag"},
        {"kind": "tags", "threshold": "0.5"},
        {"kind": "tags", "threshold": True},
        {"kind": "tags", "threshold": 10**400},
        {"kind": ["tags"]},
        {"kind": "slots"},
        {"kind": "slots", "slots": {"a": 2}},
        {"kind": "slots", "slots": [["a", 2.0]]},
        {"kind": "slots", "slots": [["a", True]]},
        {"kind": "slots", "slots": [["a", 1, 1]]},
    ],
    ids=str,
)
def test_descriptions_that_mean_nothing(values: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        from_json(("a=b", "a=c"), values)


def test_outputs_need_no_torch() -> None:
    code = "import sys, petl.outputs.tags, petl.outputs.slots, petl.outputs.speakers; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
