"""What counts of a transcript."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.tasks.text import marked, phones, reference, spoken


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello,  World!", "hello world"),
        ("“Don’t,” she said; „no‟ – ever?", "don't she said no – ever"),
        ("twenty-one: 3.5 \t\n ok . -", "twentyone 35 ok"),
        ('DON\'T "QUOTE"', "don't quote"),
        ("Cafe\u0301 CAFÉ", "café café"),
        ("a|b", "a b"),
        ("e-\u0301tude", "étude"),  # they meet when the mark between them is taken out
        ("what\u037e", "what"),  # the Greek question mark is a semicolon in NFC
        ("% & 100 $", "% & 100 $"),
        ("?!-", ""),
        ("", ""),
    ],
)
def test_spoken_text(text: str, expected: str) -> None:
    assert spoken(text) == reference(text, "characters") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Play B-artist Guns & Roses E-artist now", "Play B-artist Guns AND Roses E-artist now"),
        ("in B-city St. Paul E-city , please !", "in B-city St Paul E-city please"),
        ("rate B-best_rating 5-star E-best_rating", "rate B-best_rating 5star E-best_rating"),
        ("this &, that", "this AND that"),
        ("R&B isn’t it", "R&B isn't it"),
        ("B-x ? E-x", "B-x E-x"),
        ("", ""),
    ],
)
def test_marked_text(text: str, expected: str) -> None:
    assert marked(text) == reference(text, "slots") == expected


def test_phones_stay_as_they_are() -> None:
    assert phones("  HH AH0\tL  L ") == reference("HH AH0 L L", "phones") == "HH AH0 L L"


@given(st.text())
def test_what_has_been_through_a_rule_stays_as_it_is(text: str) -> None:
    for rule in (spoken, marked, phones):
        once = rule(text)
        assert rule(once) == once
        assert once == " ".join(once.split())
    assert not set(',?.!-;:"|’“') & set(spoken(text))
    assert unicodedata.is_normalized("NFC", spoken(text))


@given(st.text(alphabet="abcAB ,.'’-|", max_size=30))
def test_marks_letter_case_and_blanks_do_not_matter(text: str) -> None:
    assert spoken(text.upper()) == spoken(f"  {text.lower()} .") == spoken(text.replace("|", "  "))
