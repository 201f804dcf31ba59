"""Reading and writing YAML: scalars, lines, what is refused."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.space.errors import SpaceError
from search.space.yamlfile import Flow, read, scalar, write


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1.0e-4", 1e-4),
        ("1E+2", 100.0),
        (".5", 0.5),
        ("-3", -3),
        ("+3", 3),
        ("1_500_000", 1_500_000),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("no", "no"),
        ("on", "on"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("007", "007"),
        ("1e", "1e"),
        ("alpha/r", "alpha/r"),
        ("q,v", "q,v"),
        ("=", "="),
    ],
)
def test_plain_scalars(text: str, value: object) -> None:
    found = read(f"key: {text}", "f").value["key"]
    assert found == value
    assert type(found) is type(value)
    assert scalar(text) == value


def test_quotes_make_text() -> None:
    assert read("a: '1e-4'\nb: \"true\"", "f").value == {"a": "1e-4", "b": "true"}
    assert scalar("'1e-4'") == "1e-4"
    assert scalar('"5"') == "5"


def test_not_a_number_and_infinity_are_read_as_such() -> None:
    value = read("a: .nan\nb: -.inf", "f").value
    assert math.isnan(value["a"])
    assert value["b"] == -math.inf


def test_lines_of_keys_and_items() -> None:
    document = read("a: 1\nb:\n  c: 2\n  d:\n    - x\n    - {e: 3}\n", "f")
    assert document.line(("b", "c")) == 3
    assert document.line(("b", "d", 1)) == 6
    assert document.line(("b", "d", 1, "e")) == 6
    assert document.line(("b", "missing")) == 2, "the enclosing entry stands in"


def test_keys_are_text_whatever_they_look_like() -> None:
    assert read("1: a\ntrue: b\non: c", "f").value == {"1": "a", "true": "b", "on": "c"}


def test_duplicate_keys_are_found_with_both_lines() -> None:
    document = read("a: 1\nb: 2\na: 3\n", "f")
    assert document.value == {"a": 1, "b": 2}
    assert str(document.mistakes[0]) == "line 3, a: this key is already there in line 1; keep one of them"


def test_aliases_work_but_cannot_explode_or_loop() -> None:
    assert read("a: &x [1, 2]\nb: *x", "f").value == {"a": [1, 2], "b": [1, 2]}
    layers = ["l0: &l0 [x, x, x, x, x, x, x, x, x, x]"]
    layers += [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]" for i in range(1, 9)]
    with pytest.raises(SpaceError, match="more values than any space holds"):
        read("\n".join(layers), "f")
    with pytest.raises(SpaceError, match="an alias that contains itself"):
        read("a: &x [1, *x]", "f")


@pytest.mark.parametrize("text", ["a: !!python/object/apply:os.system [ls]", "a: !!binary aGk=", "a: !mine 3"])
def test_tags_are_refused_and_never_built(text: str) -> None:
    document = read(text, "f")
    assert document.value == {"a": None}
    assert "is not allowed" in str(document.mistakes[0])


@pytest.mark.parametrize(("text", "line"), [("a: [1, 2\nb: 3", 2), ("a: 1\n\tb: 2", 2), ("a: b: c", 1)])
def test_syntax_errors_say_the_line(text: str, line: int) -> None:
    with pytest.raises(SpaceError, match=rf"f, line {line}: this is not YAML"):
        read(text, "f")


_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(st.characters(codec="utf-8"), max_size=12),
    st.sampled_from(["1e-4", "1_0", "yes", "null", "0x1f", "12:30", "2024-01-01", "-", "~", "<<", "=", "1.", ".5e1"]),
)
_TREES = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=6), inner, max_size=3),
        st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=6), inner, max_size=3).map(Flow),
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=6), _TREES, max_size=4))
def test_what_is_written_is_read_back(tree: dict[str, object]) -> None:
    found = read(write(tree), "f").value
    assert found == tree
    assert repr(found) == repr(_plain(tree)), "types survive too: 1 is not 1.0 is not true"


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list) else value
