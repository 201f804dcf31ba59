from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from trainables.data.datasets._manifest_rows import manifest_rows
from trainables.data.datasets.base import Problems
from trainables.data.datasets.tables import MOST_FOLDS, Row, RowError, TableError, each, read_list, read_table, unique


def _row(**values: object) -> Row:
    return Row(Path("t.csv"), 7, dict(values))


def test_rows_count_the_lines_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('\ufeffa, b\n1,"x\ny"\n\n2\n', encoding="utf-8")
    rows = read_table(tmp_path / "t.csv", ("a", "b"))
    assert [(row.number, row.values) for row in rows] == [(3, {"a": "1", "b": "x\ny"}), (5, {"a": "2", "b": None})]


def test_lists_of_lines(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text("a/b\n\n c \n")
    assert [(row.number, row.text("line")) for row in read_list(tmp_path / "l.txt")] == [(1, "a/b"), (3, "c")]
    with pytest.raises(TableError, match="cannot be read"):
        read_list(tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (None, ()),
        (" ", ()),
        ("a; b;;a", ("a", "b", "a")),
        ('["a;b", 2]', ("a;b", "2")),
        (["a", 1.5], ("a", "1.5")),
        (float("nan"), ()),
        (3, ("3",)),
    ],
)
def test_several_values(value: object, found: tuple[str, ...]) -> None:
    assert _row(tags=value).listed("tags") == found


@pytest.mark.parametrize("value", [["a", None], [["a"]], [{"a": 1}], "[1"])
def test_several_values_that_are_none(value: object) -> None:
    with pytest.raises(RowError, match=r"t\.csv, row 7: 'tags'"):
        _row(tags=value).listed("tags")


def test_values_that_have_to_be_known() -> None:
    assert _row(kind="dog").one_of("kind", ("dog", "cat")) == "dog"
    with pytest.raises(RowError, match=r"'dgo', which is not known \(did you mean 'dog'\?\); allowed: dog, cat"):
        _row(kind="dgo").one_of("kind", ("dog", "cat"))
    many = [f"name{i}" for i in range(500)]
    with pytest.raises(RowError) as caught:
        _row(kind="x").one_of("kind", many)
    assert "allowed" not in str(caught.value)


@pytest.mark.parametrize(("value", "share"), [("0", 0.0), ("0.5", 0.5), (1, 1.0)])
def test_shares(value: object, share: float) -> None:
    assert _row(p=value).share("p") == share


@pytest.mark.parametrize("value", ["-0.1", "1.01", "nan", "x", ""])
def test_shares_that_are_none(value: str) -> None:
    with pytest.raises(RowError, match="'p' is"):
        _row(p=value).share("p")


def test_everything_wrong_is_collected() -> None:
    rows = [Row(Path("t.csv"), number, {"name": name}) for number, name in enumerate("aba", 2)]
    assert each(rows[:2], unique("name")) == ["a", "b"]
    with pytest.raises(Problems, match=r"t\.csv: 1 problem\n  row 4: name 'a' is listed already in row 2"):
        each(rows, unique("name"))


def test_errors_come_back_from_other_processes() -> None:
    error = _row().error("no good")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.number) == (str(error), 7)


def test_lines_end_at_line_feeds_alone(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"text": "a\u2028b\u0085c"}\r\n{"text": "d"}\n', encoding="utf-8")
    assert [row.text("text") for row in read_table(tmp_path / "t.jsonl")] == ["a\u2028b\x85c", "d"]
    (tmp_path / "l.txt").write_text("a\u2028b\nc\n", encoding="utf-8")
    assert [row.text("line") for row in read_list(tmp_path / "l.txt")] == ["a\u2028b", "c"]


@pytest.mark.parametrize("value", ["a\0b", "a\ud800", ["x", "\udfff"]])
def test_what_no_text_holds_is_refused(value: object) -> None:
    with pytest.raises(RowError, match=r"t\.csv, row 7: 'name' holds .* \(U\+"):
        _row(name=value).listed("name")
    if isinstance(value, str):
        with pytest.raises(RowError, match="write the file again"):
            _row(name=value).text("name")


@pytest.mark.parametrize(
    ("line", "said"),
    [("[" * 200_000, "too many brackets"), ('{"path": ' + "1" * 5000 + "}", "too many digits"), ("{", "not JSON")],
    ids=["deep", "long", "broken"],
)
def test_json_beyond_all_use(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "t.jsonl").write_text(line + "\n")
    with pytest.raises(Problems, match=f"row 1: .*{said}"):
        read_table(tmp_path / "t.jsonl")
    with pytest.raises(TableError, match=said):
        (tmp_path / "m.json").write_text(line)
        manifest_rows(tmp_path / "m.json")


@pytest.mark.parametrize("name", ["t.csv", "t.tsv"])
def test_columns_that_are_there_twice(tmp_path: Path, name: str) -> None:
    mark = "," if name == "t.csv" else "\t"
    (tmp_path / name).write_text(mark.join(["path", "label", "label"]) + "\n")
    with pytest.raises(TableError, match="several columns 'label'"):
        read_table(tmp_path / name)


def test_whole_numbers_have_bounds() -> None:
    assert _row(fold="10000.0").integer("fold", 1, MOST_FOLDS) == 10_000
    with pytest.raises(RowError, match="'1e12'; it must be a whole number, at most 10000"):
        _row(fold="1e12").integer("fold", 1, MOST_FOLDS)
