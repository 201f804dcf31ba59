"""The model card: what it says of each kind of adapter, and that whatever a stranger wrote stays text."""

from __future__ import annotations

import html
import re

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from petl.card import model_card
from petl.config import MethodConfig
from petl.outputs import Classes, Output
from petl.outputs.slots import Slots
from petl.outputs.speakers import Speakers
from petl.outputs.tags import Tags
from petl.outputs.tokens import Tokens

LORA = MethodConfig.from_flat({"method": "lora", "lora.rank": 2})


def _card(output: Output, **card: object) -> str:
    return model_card(LORA, output=output, backbone="a/b", revision=None, trainable=1290, card=card)


def _header(text: str) -> dict[str, object]:
    return dict(yaml.safe_load(text.split("---\n")[1]))


def _cells(text: str, title: str) -> list[str]:
    """Cells beside `title`, as a reader of the rendered card sees them, with the tags that are in them."""
    rendered = MarkdownIt("commonmark", {"html": True}).enable("table").render(text.split("---\n", 2)[2])
    rows = [re.findall(r"<td>(.*?)</td>", row, re.DOTALL) for row in rendered.split("<tr>")]
    return next(row[1:] for row in rows if row and row[0] == title)


@pytest.mark.parametrize(
    ("output", "task", "row", "pipeline"),
    [
        (Classes(("dog", "rain")), "audio classification", "| Labels | 2: dog, rain |", "audio-classification"),
        (Tags(("a", "b", "c")), "audio tagging", "| Tags | 3: a, b, c |", "audio-classification"),
        (
            Slots.of({"action": ["on", "off"], "place": ["none"]}),
            "spoken intent classification",
            "| Slot values | 3: action=on, action=off, place=none |",
            "audio-classification",
        ),
        (
            Tokens.of(["ab ba"], "characters"),
            "speech recognition",
            "| Symbols | 5, listed in `vocab.json` |",
            "automatic-speech-recognition",
        ),
        (Speakers(("p1", "p2")), "speaker verification", "| Answers with | a vector for each voice", None),
    ],
)
def test_every_kind_of_answer_has_its_words(output: Output, task: str, row: str, pipeline: str | None) -> None:
    text = _card(output)
    header = _header(text)
    assert f"# lora adapter for {task}\n" in text and f"| Task | {task} |" in text and row in text
    assert header.get("pipeline_tag") == pipeline and "petl-search" in str(header["tags"])
    if output.embeds:
        assert "p1" not in text and "model.output.similarity(one, other)" in text
    else:
        assert 'model.predict("clip.wav").shown' in text
    if output.sequence:
        assert "[PAD]" not in text


def test_protocol_results_and_their_intervals() -> None:
    text = _card(
        Classes(("dog", "rain")),
        task="keyword spotting",
        data="esc50, target sound",
        protocol="aat: test on fold 1, and epochs chosen on the same clips",
        reads_test=True,
        metrics={"val/accuracy": 0.91, "test/accuracy": 0.875, "test/macro_f1": 0.87654321, "size": 3},
        intervals={"accuracy": [0.8, 0.93], "loss": [0, 1]},
    )
    assert "| Task | keyword spotting |" in text and "| Data | esc50, target sound |" in text
    assert "| Protocol | aat: test on fold 1, and epochs chosen on the same clips |" in text
    assert "| Metric | Split | Value | 95 % bootstrap |" in text
    assert "| accuracy | val | 0.91 |  |" in text and "| accuracy | test | 0.875 | 0.8 to 0.93 |" in text
    assert "| macro_f1 | test | 0.8765 |  |" in text and "| size | – | 3 |  |" in text
    assert "epochs were chosen on clips that the test counts" in text
    plain = _card(Classes(("dog", "rain")), metrics={"test/accuracy": 0.5})
    assert "bootstrap" not in plain and "Protocol" not in plain and "chosen" not in plain


def test_a_long_list_of_labels_is_cut() -> None:
    text = _card(Tags(tuple(f"tag {n}" for n in range(527))))
    assert "| Tags | 527: tag 0, tag 1," in text and "tag 199 and 327 more, listed in `petl_config.json` |" in text


_TEXT = st.text(st.characters(codec="utf-8") | st.sampled_from(list("\\`*_[]<>|~$&@:/.!#")), max_size=30)


@given(_TEXT)
@example("<script>alert(1)</script>")
@example("![x](http://a.b/c) [y](javascript:z) &lt; **b** _i_ `c` a|b a\\|b ~~s~~ \\")
@example("sea_waves_1 _x_ __y__ www.a.b http://a.b")
@settings(max_examples=150, deadline=None)
def test_labels_stay_text(label: str) -> None:
    shown = " ".join("".join(c if c.isprintable() else " " for c in label).split())
    (cell,) = _cells(_card(Classes((label, "other"))), "Labels")
    assert html.unescape(cell) == f"2: {shown}, other"
    assert "<" not in cell


@given(_TEXT)
@example("a\\|b`c")
@example("``")
@settings(max_examples=150, deadline=None)
def test_settings_and_facts_stay_text(value: str) -> None:
    shown = " ".join("".join(c if c.isprintable() else " " for c in value).split())
    text = _card(Classes(("a", "b")), configuration={"data": value}, provenance={"commit": value})
    (code,) = _cells(text, "<code>data</code>")
    assert html.unescape(re.sub("^<code>|</code>$", "", code)).strip() == shown
    (fact,) = _cells(text, "commit")
    assert html.unescape(fact) == shown and "<" not in fact


def test_links_and_mentions_are_broken_up_for_readers_that_make_links_of_themselves() -> None:
    text = _card(Classes(("http://a.b", "www.a.b", "@ada")))
    assert "http\\://a.b, www\\.a.b, \\@ada" in text
