"""Sequences of symbols: their numbers, what is heard in logits, and what stands in an adapter's directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, Wav2Vec2CTCTokenizer, Wav2Vec2PhonemeCTCTokenizer

from petl import AudioModel, UserError, attach, load_adapter, load_backbone, save_adapter
from petl.config import MethodConfig
from petl.counts import head_parameters
from petl.frontend import WaveformFrontEnd
from petl.outputs import from_json
from petl.outputs.tokens import Tokens, Transcript, Unit
from tests.petl.models import MODELS, trained
from trainables import metrics

WAVE = next(model for model in MODELS if model.name == "wav2vec2-stable")
ABC = Tokens(("[PAD]", "[UNK]", "|", "a", "b", "c"))
SLOTS = Tokens.of(["to B-city New York E-city", "a B-date May E-date"], "slots")
PHONES = Tokens.of(["HH AH0 L L OW1"], "phones")
HEADS: list[dict[str, Any]] = [{}, {"head.kind": "norm_linear"}, {"head.kind": "projector", "head.width": 7}]
TEXTS: dict[Unit, str] = {
    "characters": "don't ab aab",
    "phones": "HH AH0 L L OW1",
    "slots": "to B-city New York E-city",
}


def _logits(paths: list[list[int]], symbols: int) -> torch.Tensor:
    """Logits whose best path is this one: (B, T, V)."""
    return torch.nn.functional.one_hot(torch.tensor(paths), symbols).float() * 3 - 1


def test_symbols_are_sorted_behind_the_special_ones() -> None:
    assert Tokens.of(["cab b", "b a"], "characters") == ABC == Tokens.of(["b a", "cab b"], "characters")
    assert PHONES.labels == ("[PAD]", "[UNK]", "AH0", "HH", "L", "OW1")
    assert SLOTS.labels[:7] == ("[PAD]", "[UNK]", "|", "B-city", "B-date", "E-city", "E-date")
    assert SLOTS.labels[7:] == ("M", "N", "Y", "a", "e", "k", "o", "r", "t", "w", "y")
    for output in (ABC, SLOTS, PHONES):
        output.check()


def test_numbers_of_texts() -> None:
    assert ABC.encode(" ab  ca ") == [3, 4, 2, 5, 3]
    assert ABC.encode("axb") == [3, 1, 4] and ABC.encode("") == []
    assert SLOTS.spelled("to B-city New E-city") == ["t", "o", "|", "B-city", "|", "N", "e", "w", "|", "E-city"]
    assert SLOTS.encode("B-price a")[0] == 1
    assert PHONES.encode("L L ZH [PAD]") == [4, 4, 1, 1]


def test_what_is_heard() -> None:
    """Repeats become one, a blank keeps equal neighbours apart, padding is not listened to."""
    paths = [[3, 3, 0, 3, 4, 0], [0, 5, 2, 2, 0, 2], [3, 1, 4, 5, 5, 5], [0, 0, 0, 0, 0, 0]]
    found = ABC.predictions(_logits(paths, 6), torch.tensor([6, 6, 3, 6]))
    assert found == [
        Transcript("aab", ("a", "a", "b")),
        Transcript("c", ("c", "|", "|")),
        Transcript("a⁇b", ("a", "[UNK]", "b")),
        Transcript("", ()),
    ]
    assert ABC.paths(_logits(paths, 6), None)[2] == [3, 1, 4, 5]
    assert found[0].shown == "aab" and found[0].to_json() == {"text": "aab", "tokens": ["a", "a", "b"]}
    assert PHONES.text([3, 2, 4, 4, 1]) == "HH AH0 L L ⁇"


def test_markers_are_words_even_where_no_boundary_was_heard() -> None:
    number = {label: i for i, label in enumerate(SLOTS.labels)}
    heard = [number[symbol] for symbol in ("t", "B-city", "N", "e", "|", "w", "E-city", "o")]
    assert SLOTS.text(heard) == "t B-city Ne w E-city o"


@given(st.lists(st.lists(st.integers(0, 5), min_size=7, max_size=7), min_size=1, max_size=4), st.data())
def test_paths_collapse_as_the_metrics_say(paths: list[list[int]], data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(1, 7), min_size=len(paths), max_size=len(paths)))
    expected = [metrics.collapsed(path[:length], blank=0) for path, length in zip(paths, lengths, strict=True)]
    assert ABC.paths(_logits(paths, 6), torch.tensor(lengths)) == expected


@given(st.text(alphabet="abc ", max_size=20))
def test_texts_come_back(text: str) -> None:
    assert ABC.text(ABC.encode(text)) == " ".join(text.split())


@pytest.mark.parametrize("unit", TEXTS)
def test_known_texts_come_back(unit: Unit) -> None:
    output = Tokens.of([TEXTS[unit]], unit)
    assert output.text(output.encode(TEXTS[unit])) == TEXTS[unit]
    assert 0 not in output.encode(TEXTS[unit])


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (Tokens(("a", "b")), "begin with \\[PAD\\], \\[UNK\\], |; found a, b"),
        (Tokens(("[PAD]", "[UNK]", "|")), "at least one symbol"),
        (Tokens.of(["  ", ""], "characters"), "texts of the training clips are all empty"),
        (Tokens((*ABC.labels, "a")), "'a' is there twice"),
        (Tokens((*ABC.labels, "ab")), "'ab' is no symbol of unit 'characters': each is one character"),
        (Tokens((*ABC.labels, " ")), "' ' is no symbol"),
        (Tokens((*ABC.labels, "B-city")), "'B-city' is no symbol of unit 'characters'"),
        (Tokens((*ABC.labels, "C-city"), "slots"), "B-<slot> or E-<slot>"),
        (Tokens(("[PAD]", "[UNK]", "A B"), "phones"), "'A B' is no symbol of unit 'phones'"),
    ],
)
def test_what_cannot_be_learned_is_refused(output: Tokens, message: str) -> None:
    with pytest.raises(UserError, match=message):
        output.check()


@pytest.mark.parametrize("output", [ABC, SLOTS, PHONES], ids=lambda output: output.unit)
def test_description_comes_back(output: Tokens) -> None:
    values = json.loads(json.dumps(output.to_json()))
    assert values == {"kind": "tokens", "unit": output.unit}
    assert from_json(list(output.labels), values) == output
    with pytest.raises(UserError, match=r"'character' is not known .did you mean 'characters'"):
        from_json(list(output.labels), {"kind": "tokens", "unit": "character"})
    for unit in (None, ["slots"]):
        with pytest.raises(UserError, match="is not known; allowed: characters, phones, slots"):
            from_json(list(output.labels), {"kind": "tokens", "unit": unit})


def test_numbers_do_not_depend_on_the_hash_seed_and_need_no_torch() -> None:
    code = (
        "import sys; from petl.outputs.tokens import Tokens; "
        "print(Tokens.of(['zyx abc', 'B-b m E-b B-a'], 'slots').labels); assert 'torch' not in sys.modules"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1 and "'B-a', 'B-b', 'E-b', 'a', 'b', 'c', 'm'" in found.pop()


# -- models -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("backbone")
    WAVE.build().save_pretrained(directory)
    return directory


def _model(checkpoint: Path, output: Tokens, flat: dict[str, Any]) -> AudioModel:
    front_end = WaveformFrontEnd(masks=True)
    return trained(AudioModel(attach(load_backbone(str(checkpoint)), flat, seed=1), output, front_end, seed=1)).eval()


def _waves() -> list[np.ndarray]:
    return [np.random.default_rng(i).normal(0, 0.1, count) for i, count in enumerate((500, 1900, 800))]


@pytest.mark.parametrize("unit", TEXTS)
def test_an_adapter_comes_back_and_transformers_reads_its_symbols(unit: Unit, checkpoint: Path, tmp_path: Path) -> None:
    output = Tokens.of([TEXTS[unit]], unit)
    model = _model(checkpoint, output, {"method": "lora", "lora.rank": 2})
    directory = save_adapter(tmp_path / "best", model)
    loaded = load_adapter(directory)
    assert loaded.output == output
    x = model.front_end.collate([model.features(wave) for wave in _waves()])
    with torch.inference_mode():
        logits_BTV = model(x.values, x.mask)
        assert torch.equal(loaded(x.values, x.mask), logits_BTV)
    lengths_B = model.lengths(x.mask)
    assert lengths_B is not None and lengths_B.tolist() == [20, 78, 33] and logits_BTV.shape == (3, 78, output.size)
    assert loaded.predict_many(_waves()) == output.predictions(logits_BTV, lengths_B)

    vocabulary = json.loads((directory / "vocab.json").read_text())
    assert vocabulary == {label: i for i, label in enumerate(output.labels)}
    kind = Wav2Vec2PhonemeCTCTokenizer if unit == "phones" else Wav2Vec2CTCTokenizer
    for theirs in (kind.from_pretrained(directory), AutoTokenizer.from_pretrained(directory)):
        assert type(theirs) is kind and len(theirs) == output.size and theirs.pad_token_id == 0
        assert theirs.decode(output.encode(TEXTS[unit]), group_tokens=False) == TEXTS[unit]
        draw = np.random.default_rng(0)
        for size in (1, 3, 40, 40):  # of any path at all, up to blanks around markers and the sign for the unknown
            path = [0, *draw.integers(0, output.size, size).tolist()]
            text = theirs.decode(path).replace("[UNK]", "⁇")
            ours = output.text(output.paths(_logits([path], output.size), None)[0])
            assert "".join(ours.split()) == "".join(text.split())
            assert unit == "slots" or ours == " ".join(text.split())
    if unit == "characters":
        plain = Wav2Vec2CTCTokenizer(str(directory / "vocab.json"), unk_token="[UNK]", pad_token="[PAD]")
        path = [0, *np.random.default_rng(1).integers(0, output.size, 30).tolist()]
        text = plain.decode(path).replace("[UNK]", "⁇")
        assert output.text(output.paths(_logits([path], output.size), None)[0]) == " ".join(text.split())


def test_other_outputs_have_no_such_files(checkpoint: Path, tmp_path: Path) -> None:
    model = AudioModel(attach(load_backbone(str(checkpoint)), {"method": "linear"}), ["a", "b"], WaveformFrontEnd())
    assert not [p for p in save_adapter(tmp_path / "a", model).iterdir() if "vocab" in p.name or "token" in p.name]


@pytest.mark.parametrize("pooling", ["mean", "masked_mean", "stats"])
@pytest.mark.parametrize("head", HEADS, ids=str)
def test_every_head_is_counted_and_learns(head: dict[str, Any], pooling: str, checkpoint: Path) -> None:
    """Pooling makes no difference, as nothing is pooled."""
    flat = {"method": "linear", **head, "pooling": pooling}
    model = _model(checkpoint, ABC, flat)
    parameters = dict(model.head.named_parameters())
    counted = head_parameters(MethodConfig.from_flat(flat), WAVE.shape, ABC)
    assert sum(p.numel() for p in parameters.values()) == counted
    logits_BTV = model(WAVE.inputs())
    assert logits_BTV.shape == (2, 16, 6)
    logits_BTV.square().sum().backward()
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in parameters.values())
