"""Words, phones and marked slots against references."""

from __future__ import annotations

import math

import jiwer
import pytest
import torch
import torchaudio
from hypothesis import given
from hypothesis import strategies as st

from trainables import metrics


def test_word_and_character_errors_by_hand() -> None:
    measured = metrics.error_rates(["the cat sat", "on it"], ["the bat sat down", "it"])
    assert measured["wer"] == pytest.approx((2 + 1) / 5)  # cat/bat, down; on
    assert measured["cer"] == pytest.approx((1 + 5 + 3) / (11 + 5))  # c/b, " down"; "on "


def test_an_empty_reference_counts_what_was_heard_in_it() -> None:
    measured = metrics.error_rates(["", "a b"], ["uh oh", "a b"])
    assert measured == {"wer": 2 / 2, "cer": 5 / 3}
    assert metrics.error_rates([""], [""]) == {"wer": 0.0, "cer": 0.0}
    assert metrics.error_rates([""], ["a b"]) == {"wer": 2.0, "cer": 3.0}
    assert metrics.error_rates(["a b"], [""]) == {"wer": 1.0, "cer": 1.0}


def test_spaces_are_one_space_and_case_counts() -> None:
    assert metrics.error_rates(["  the   cat "], ["the cat"]) == {"wer": 0.0, "cer": 0.0}
    assert metrics.error_rates(["The cat"], ["the cat"]) == {"wer": 1 / 2, "cer": 1 / 7}


def test_nothing_to_compare_is_nan_and_a_missing_hypothesis_an_error() -> None:
    assert all(math.isnan(v) for v in metrics.error_rates([], []).values())
    assert math.isnan(metrics.phones([], [])["per"])
    with pytest.raises(ValueError, match="2 references and 1 hypotheses"):
        metrics.error_rates(["a", "b"], ["a"])


def test_phone_errors_with_repeats_collapsed() -> None:
    names = ["-", "HH", "AH", "L", "OW"]
    frames = [0, 1, 1, 0, 2, 2, 2, 3, 0, 3, 3, 4, 4, 0]
    heard = [names[i] for i in metrics.collapsed(frames, blank=0)]
    assert heard == ["HH", "AH", "L", "L", "OW"]
    assert metrics.phones([["HH", "AH", "L", "OW"]], [heard]) == {"per": 1 / 4}
    uncollapsed = [names[i] for i in frames if i]
    assert metrics.phones([["HH", "AH", "L", "OW"]], [uncollapsed]) == {"per": 6 / 4}  # as published
    # Names are compared whole: AA and AE are one error, not a half.
    assert metrics.phones([["AA", "B"]], [["AE", "B"]]) == {"per": 1 / 2}


def test_collapsing() -> None:
    assert metrics.collapsed([], 0) == []
    assert metrics.collapsed([0, 0], 0) == []
    assert metrics.collapsed([5, 5, 2, 5], 2) == [5, 5]
    assert metrics.collapsed(torch.tensor([1, 1, 0, 1]), 0) == [1, 1]


@given(st.lists(st.integers(1, 3), max_size=8), st.lists(st.integers(1, 3), min_size=9, max_size=9))
def test_a_path_stands_for_the_labels_it_was_made_of(labels: list[int], stays: list[int]) -> None:
    path = [0] * (stays[8] - 1)
    for label, stay in zip(labels, stays, strict=False):
        path += [label] * stay + [0]
    assert metrics.collapsed(path, 0) == labels


@given(st.lists(st.tuples(st.text("abc ", max_size=8), st.text("abc ", max_size=8)), min_size=1, max_size=6))
def test_rates_are_the_summed_edit_distances_in_any_order(pairs: list[tuple[str, str]]) -> None:
    references, hypotheses = [r for r, _ in pairs], [h for _, h in pairs]
    measured = metrics.error_rates(references, hypotheses)
    distance = torchaudio.functional.edit_distance
    words = sum(distance(r.split(), h.split()) for r, h in pairs)
    assert measured["wer"] == pytest.approx(words / max(1, sum(len(r.split()) for r in references)))
    letters = sum(distance(" ".join(r.split()), " ".join(h.split())) for r, h in pairs)
    assert measured["cer"] == pytest.approx(letters / max(1, sum(len(" ".join(r.split())) for r in references)))
    assert metrics.error_rates(references[::-1], hypotheses[::-1]) == pytest.approx(measured)
    assert metrics.error_rates(references, references) == {"wer": 0.0, "cer": 0.0}
    if all(r.split() for r in references):
        assert measured["wer"] == pytest.approx(jiwer.wer(references, hypotheses))


def test_slots_of_a_transcript() -> None:
    text = "play  B-artist daft  punk E-artist on B-service deezer E-service or B-artist air E-artist"
    assert metrics.slot_spans(text) == {"artist": ["daft punk", "air"], "service": ["deezer"]}
    assert metrics.slot_spans("") == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("B-a x E-b", {}),  # ends as something else
        ("B-a x", {}),
        ("x E-a", {}),
        ("B-a E-a", {}),  # without text
        ("B-a x B-b y E-b", {"b": ["y"]}),  # the first never ends
        ("B-a x B-b y E-b z E-a", {"a": ["x y z"]}),  # inner markers belong to nothing
        ("B-a x B-a y E-a", {"a": ["x y"]}),
        ("B-city paris E-city_name", {}),  # a longer name is another name
        ("B-city paris E-city_name E-city", {"city": ["paris"]}),
        ("aB-a x E-a", {}),  # no word of its own
    ],
)
def test_broken_markers(text: str, expected: dict[str, list[str]]) -> None:
    assert metrics.slot_spans(text) == expected


def test_slot_filling_by_hand() -> None:
    references = [
        "B-artist abba E-artist on B-service deezer E-service",  # {artist, service}
        "stop",
        "B-city rome E-city or B-city paris E-city",
        "B-city oslo E-city",
    ]
    hypotheses = [
        "B-artist aba E-artist B-year 1 E-year",  # {artist, year}: P 1/2, R 1/2
        "stop it",  # both empty
        "B-city pari E-city B-city home E-city",  # the order does not matter
        "oslo",  # nothing found
    ]
    measured = metrics.slot_filling(references, hypotheses)
    assert measured["slot_type_f1"] == pytest.approx((1 / 2 + 1 + 1 + 0) / 4)
    # abba/aba 1, deezer missing 6, rome/home 1, paris/pari 1, oslo missing 4
    assert measured["slot_value_cer"] == pytest.approx((1 + 6 + 1 + 1 + 4) / (4 + 6 + 4 + 5 + 4))


def test_slot_filling_at_its_ends() -> None:
    marked = "B-city new york E-city"
    assert metrics.slot_filling([marked], [marked]) == {"slot_type_f1": 1.0, "slot_value_cer": 0.0}
    assert metrics.slot_filling([marked], [""]) == {"slot_type_f1": 0.0, "slot_value_cer": 1.0}
    only_heard = metrics.slot_filling(["hello"], [marked])
    assert only_heard["slot_type_f1"] == 0.0
    assert math.isnan(only_heard["slot_value_cer"])
    assert metrics.slot_filling(["hello"], ["hallo"])["slot_type_f1"] == 1.0
    assert all(math.isnan(v) for v in metrics.slot_filling([], []).values())
    # A value twice as long as it should be costs more than all of it.
    assert metrics.slot_filling(["B-a x E-a"], ["B-a yyy E-a"])["slot_value_cer"] == 3.0


_spans = st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.text("xyz", min_size=1, max_size=4)), max_size=4)


@given(st.lists(st.tuples(_spans, _spans), min_size=1, max_size=5))
def test_slot_filling_against_its_definition(pairs: list[tuple[list[tuple[str, str]], list[tuple[str, str]]]]) -> None:
    def marked(spans: list[tuple[str, str]]) -> str:
        return " ".join(["hey", *(f"B-{kind} {value} E-{kind}" for kind, value in spans)])

    f1s, edited, length = [], 0, 0
    for reference, hypothesis in pairs:
        wanted, heard = {k for k, _ in reference}, {k for k, _ in hypothesis}
        both = len(wanted & heard)
        precision, recall = both / max(len(heard), 1), both / max(len(wanted), 1)
        f1s.append(2 * precision * recall / (precision + recall) if both else float(not wanted and not heard))
        for kind, value in reference:
            candidates = [v for k, v in hypothesis if k == kind] or [""]
            edited += min(torchaudio.functional.edit_distance(value, c) for c in candidates)
            length += len(value)
    measured = metrics.slot_filling([marked(r) for r, _ in pairs], [marked(h) for _, h in pairs])
    assert measured["slot_type_f1"] == pytest.approx(sum(f1s) / len(f1s))
    if length:
        assert measured["slot_value_cer"] == pytest.approx(edited / length)
    else:
        assert math.isnan(measured["slot_value_cer"])
