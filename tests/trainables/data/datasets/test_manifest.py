from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from tests.trainables.data.datasets.reading import clips_of, complaint, sizes, splits_of
from tests.trainables.data.layouts import manifest as layout
from trainables.data.datasets import dataset
from trainables.data.datasets._manifest_rows import RowReader
from trainables.data.datasets.manifest import slot_names
from trainables.data.datasets.tables import Row, RowError


def _table(folder: Path, text: str, name: str = "manifest.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_csv(tmp_path: Path) -> None:
    path = _table(
        tmp_path,
        "\ufefflabel, path ,split,speaker,start,end\n"
        'dog,"a, b.wav",train,x,,\n'
        "\n"
        "cat,sub/c.wav,VALID,y,0.5,2\n"
        f"cat,{tmp_path}/d.wav,eval,,1,\n",
    )
    clips = clips_of("manifest", path)
    assert [(c.name, c.label, c.split, c.speaker, c.start, c.end) for c in clips] == [
        ("a, b.wav", "dog", "train", "x", None, None),
        ("d.wav", "cat", "test", None, 1.0, None),
        ("sub/c.wav", "cat", "val", "y", 0.5, 2.0),
    ]
    assert clips[2].path == tmp_path / "sub" / "c.wav"
    assert clips_of("manifest", tmp_path) == clips  # the folder will do


def test_every_kind_of_file_says_the_same(tmp_path: Path) -> None:
    rows = [
        {"path": f"{i}.wav", "label": i % 2, "fold": i + 1, "start": 0.25 * i if i else None, "more": [1]}
        for i in range(4)
    ]
    lines = _table(tmp_path, "\n".join(json.dumps(r) for r in rows) + "\n", "m.jsonl")
    tabs = "".join(f"{r['path']}\t{r['label']}\t{r['fold']}.0\t{r['start'] or ''}\n" for r in rows)
    clips = clips_of("manifest", lines)
    assert clips == clips_of("manifest", _table(tmp_path, "path\tlabel\tfold\tstart\n" + tabs, "m.tsv"))
    assert clips == clips_of("manifest", _table(tmp_path, json.dumps(rows), "m.json"))
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "m.parquet")
    assert clips == clips_of("manifest", tmp_path / "m.parquet")
    assert [(c.label, c.fold, c.start) for c in clips] == [
        ("0", 1, None),
        ("1", 2, 0.25),
        ("0", 3, 0.5),
        ("1", 4, 0.75),
    ]


def test_gaps_of_pandas_are_blank(tmp_path: Path) -> None:
    table = pa.table({"path": ["a", "b"], "label": ["x", "y"], "fold": [float("nan")] * 2, "group": [None, "g"]})
    parquet.write_table(table, tmp_path / "manifest.parquet")
    assert [(c.fold, c.group) for c in clips_of("manifest", tmp_path)] == [(None, None), (None, "g")]


@pytest.mark.parametrize("target", list(dataset("manifest").targets))
def test_every_target(tmp_path: Path, target: str) -> None:
    layout.write(tmp_path, audio=False)
    first, second = clips_of("manifest", tmp_path, target=target)[:2]
    expected = {
        "label": ("kind0", (), None, None),
        "labels": ("", ("kind0",), ("low", "high"), None),
        "text": ("", (), None, "turn on"),
        "phonemes": ("", (), None, "T ER N AA N"),
        "speaker": ("speaker0", (), None, None),
        "slots": ("", ("activate", "lights"), None, None),
        "slot_text": ("", (), None, "B-action turn on E-action"),
    }
    assert (first.label, first.labels, first.negatives, first.text) == expected[target]
    assert first.speaker == "speaker0"
    if target == "labels":
        assert second.labels == ("kind1", "low")
    if target != "speaker":
        assert sizes(splits_of("manifest", tmp_path, target=target)) == (12, 6, 6)


def test_names_of_slots_are_in_the_columns(tmp_path: Path) -> None:
    assert slot_names(layout.write(tmp_path, audio=False)) == ("action", "object")


def test_tags_may_be_absent_and_lists_may_be_json(tmp_path: Path) -> None:
    _table(tmp_path, 'path,labels\na,x; y;x\nb,\nc,"[""p; q"", 3]"\n')
    assert [c.labels for c in clips_of("manifest", tmp_path, target="labels")] == [("x", "y"), (), ("p; q", "3")]
    assert {c.negatives for c in clips_of("manifest", tmp_path, target="labels")} == {None}


def test_phonemes_recur(tmp_path: Path) -> None:
    table = pa.table({"path": ["a"], "phonemes": [["AA", "B", "AA", "AA"]]})
    parquet.write_table(table, tmp_path / "manifest.parquet")
    assert clips_of("manifest", tmp_path, target="phonemes")[0].text == "AA B AA AA"


def test_manifests_of_ast_and_its_descendants(tmp_path: Path) -> None:
    data = [{"wav": f"{tmp_path}/a.wav", "labels": "/m/1,/m/2"}, {"wav": "b.wav", "labels": "/m/2"}]
    path = _table(tmp_path, json.dumps({"data": data}), "train.json")
    assert [c.labels for c in clips_of("manifest", path, target="labels")] == [("/m/1", "/m/2"), ("/m/2",)]
    assert "row 1: 2 labels (/m/1, /m/2) where the target 'label' takes one; use data.target=labels" in complaint(
        "manifest", path
    )
    path.write_text(json.dumps({"data": data[1:]}))
    assert [(c.name, c.label) for c in clips_of("manifest", path)] == [("b.wav", "/m/2")]


def test_parts_of_one_recording_stay_together(tmp_path: Path) -> None:
    path = _table(tmp_path, "path,label,start,end\na.wav,x,0,1\nsub/../a.wav,y,1,2\nb.wav,x,0,1\n")
    assert [c.group for c in clips_of("manifest", path)] == ["a.wav", "a.wav", None]
    path = _table(tmp_path, "path,label,start,end,group\na.wav,x,0,1,p\na.wav,y,1,2,q\n")
    assert [c.group for c in clips_of("manifest", path)] == ["p", "q"]


@pytest.mark.parametrize("name", ["/etc/passwd", "../x.wav", "a/../../x.wav", "..\\x.wav", ".", "//etc/x"])
def test_paths_stay_in_the_folder_of_the_manifest(tmp_path: Path, name: str) -> None:
    said = complaint("manifest", _table(tmp_path, f"path,label\nok.wav,a\n{name},b\n"))
    assert f"row 3: path '{name}' leads out of the manifest's folder {tmp_path}".replace("\\", "/") in said
    assert "put the manifest into a folder above" in said


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["..", ".", "a", "b.wav", ""]), min_size=1, max_size=6))
def test_no_path_leads_out(parts: list[str]) -> None:
    given = "/".join(parts)
    row = Row(Path("/data/set/manifest.csv"), 2, {"path": given, "label": "x"})
    depth, least = 0, 0  # how far below the folder every step leads, were there no links
    for part in parts:
        depth += {"..": -1, ".": 0, "": 0}.get(part, 1)
        least = min(least, depth)
    try:
        clip = RowReader(Path("/data/set"), [row], ["path", "label"], "label")(row)
    except RowError:
        assert given.startswith("/") or depth <= 0 or least < 0 or not given
    else:
        assert clip.path.is_relative_to("/data/set") and ".." not in clip.path.parts and clip.name
        assert clip.path == Path("/data/set") / clip.name


def test_links_in_the_folder_are_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x.wav").touch()
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "sound").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "alias").symlink_to(tmp_path / "set")
    _table(tmp_path / "set", f"path,label\nsound/x.wav,a\n{tmp_path.resolve()}/set/y.wav,b\n")
    assert [(c.name, c.path.is_file()) for c in clips_of("manifest", tmp_path / "alias")] == [
        ("sound/x.wav", True),
        ("y.wav", False),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the file is blank"),
        ("path,label\n", "it has no rows"),
        ("file,label\na,b\n", "no column 'path'. Needed: path. Found: file, label"),
        ("paths,labels\na,b\n", "no column 'path' (did you mean 'paths'?)"),
        ("path;label\na;b\n", "not parted by commas; found the header 'path;label'"),
        ("path,label\na.wav\n", "row 2: 'label' is missing or blank"),
        ("path,label\na.wav,x,y\n", "row 2: 3 values, but the header has 2 columns"),
        ("path,label,split\na,x,trian\n", "row 2: split 'trian' is not known (did you mean 'train'?)"),
        ("path,label,split\na,x,train\nb,x,\n", "row 3: 'split' is blank here and in 0 other rows, but given in 1"),
        ("path,label,fold\na,x,0\n", "row 2: 'fold' is '0'; it must be a whole number, at least 1"),
        ("path,label,fold\na,x,1.5\n", "row 2: 'fold' is '1.5'"),
        ("path,label,start\na,x,-1\n", "row 2: 'start' is '-1'; it must be a time in seconds, 0 or more"),
        ("path,label,start\na,x,nan\n", "row 2: 'start' is 'nan'"),
        ("path,label,start,end\na,x,2,2\n", "row 2: 'end' (2 s) is not after 'start' (2 s)"),
        ("path,label\na,x\nb,x\na,y\n", "row 4: 'a' is listed already in row 2"),
        ('path,label\n"a,x\n', "unexpected end of data"),
        ("path,text\na,x\n", "the target 'label' needs a column 'label'; found: path, text; these columns allow data."),
        ("path,speaker,text\na,x,y\n", "allow data.target=text or data.target=speaker"),
        ("path,what\na,x\n", "found: path, what; add it"),
    ],
)
def test_manifests_that_are_wrong(tmp_path: Path, text: str, said: str) -> None:
    path = _table(tmp_path, text)
    found = complaint("manifest", path)
    assert said in found
    assert str(path) in found


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    path = _table(tmp_path, "path,label,fold\na,x,1\n../b,x,1\nc,,1\nd,x,none\n,x,1\n")
    said = complaint("manifest", path)
    assert said.splitlines()[0] == f"{path}: 4 problems"
    assert [line.split(":")[0].strip() for line in said.splitlines()[1:]] == ["row 3", "row 4", "row 5", "row 6"]


@pytest.mark.parametrize(
    ("target", "text", "said"),
    [
        ("labels", "path,labels,negatives\na,x;y,y\n", "row 2: 'y' is in both labels and negatives"),
        ("labels", 'path,labels\na,"[""x"""\n', "row 2: 'labels' begins like a JSON list, but is none"),
        ("slots", "path,label\na,x\n", "the target 'slots' needs columns 'slot:<name>'; found: path, label"),
        ("slots", "path,slot:a,slot:b\na,x,\n", "row 2: 'slot:b' is missing or blank"),
        ("slot_text", "path,slot_text\na,B-x go E-y\n", "'slot_text' has 'E-y' inside of 'B-x'"),
        ("slot_text", "path,slot_text\na,B-x B-y go E-y E-x\n", "'slot_text' has 'B-y' inside of 'B-x'"),
        ("slot_text", "path,slot_text\na,go E-x\n", "'slot_text' has 'E-x' without its 'B-'"),
        ("slot_text", "path,slot_text\na,B-x go\n", "'slot_text' has 'B-x' without its 'E-x'"),
    ],
)
def test_targets_that_the_rows_do_not_fit(tmp_path: Path, target: str, text: str, said: str) -> None:
    assert said in complaint("manifest", _table(tmp_path, text), target=target)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("m.jsonl", '{"path": "a"\n', "row 1: not JSON"),
        ("m.jsonl", "[1, 2]\n", "row 1: expected an object"),
        ("m.jsonl", '{"path": "a", "label": "x"}\n{"path": "b"}\n', "row 2: 'label' is missing or blank"),
        ("m.jsonl", '{"path": "a", "label": true}\n', "row 1: 'label' is true; it must be text or a number"),
        ("m.json", '{"path": "a"}', 'expected a list of records, or {"data": [{"wav": path'),
        ("m.json", "[", "not JSON (Expecting value, line 1, column 2)"),
        ("m.json", "[]", "it has no rows"),
        ("m.json", '[{"wav": "a", "label": "x"}]', "row 1: 'path' is missing or blank"),
        ("m.parquet", "path,label\n", "cannot be read as Parquet"),
    ],
)
def test_other_files_that_are_wrong(tmp_path: Path, name: str, text: str, said: str) -> None:
    assert said in complaint("manifest", _table(tmp_path, text, name))


def test_a_manifest_that_is_none(tmp_path: Path) -> None:
    assert "it holds none of manifest.csv" in complaint("manifest", tmp_path)
    (tmp_path / "a.xlsx").touch()
    assert "its name must end in .csv, .tsv, .jsonl" in complaint("manifest", tmp_path / "a.xlsx")
    (tmp_path / "m.csv").write_bytes(b"path,label\n\xff\xfe,x\n")
    assert "not UTF-8 text (byte 11)" in complaint("manifest", tmp_path / "m.csv")


def test_new_lines_inside_of_quotes_stay(tmp_path: Path) -> None:
    path = _table(tmp_path, 'path,label,text\na,x,"one\u2028two"\nb,y,"three\nfour"\n')
    assert [c.text for c in clips_of("manifest", path, target="text")] == ["one\u2028two", "three\nfour"]


def test_splits_and_folds_at_once_are_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("path,label,split,fold\na,x,train,1\nb,y,test,2\n")
    assert "both a column 'split' and a column 'fold'" in complaint("manifest", tmp_path)
    (tmp_path / "manifest.csv").write_text("path,label,split,fold\na,x,,1\nb,y,,2\n")
    assert [clip.fold for clip in clips_of("manifest", tmp_path)] == [1, 2]
