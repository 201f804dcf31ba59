"""Reading the layouts, and what is said about data that are not laid out so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from petl.errors import UserError
from tests.trainables.data.sounds import class_folders, esc50, tone
from trainables.data import FORMATS, datasets
from trainables.data.formats import read_clips


def _message(name: str, path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_clips(name, path)
    return str(caught.value)


# esc50


def test_esc50_gives_folds_and_source_recordings(tmp_path: Path) -> None:
    clips = read_clips("esc50", esc50(tmp_path / "d", write=False))
    assert len(clips) == 40
    first = clips[0]
    assert (first.name, first.label, first.fold, first.group) == ("audio/1-1001-A-0.wav", "kind0", 1, "1001")
    assert first.path == tmp_path / "d" / "audio" / "1-1001-A-0.wav"
    assert [clip.name for clip in clips] == sorted(clip.name for clip in clips)


def test_esc50_says_what_it_looked_for_and_what_it_found(tmp_path: Path) -> None:
    class_folders(tmp_path / "mine", clips=1)
    said = _message("esc50", tmp_path / "mine")
    assert "there is no meta/esc50.csv" in said
    assert "It looks like 'folder': use --dataset folder" in said
    assert "PATH/audio/*.wav" in said

    esc50(tmp_path / "outer" / "ESC-50-master", write=False)
    assert f"use --data {tmp_path / 'outer' / 'ESC-50-master'}" in _message("esc50", tmp_path / "outer")

    (tmp_path / "outer" / "ESC-50-master" / "audio").rmdir()
    assert "no folder 'audio'" in _message("esc50", tmp_path / "outer" / "ESC-50-master")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("filename,fold", "file,fold", "no column 'filename' (did you mean 'file'?)"),
        ("1-1001-A-0.wav,1,", "1-1001-A-0.wav,one,", "row 2: 'fold' is 'one'; it must be a whole number, at least 1"),
        ("1-1001-B-0.wav", "1-1001-A-0.wav", "row 3: file '1-1001-A-0.wav' is listed already in row 2"),
        ("0,kind0,True,1001,A", "0,,True,1001,A", "row 2: 'category' is missing or blank"),
    ],
)
def test_esc50_rows_that_are_wrong(tmp_path: Path, old: str, new: str, said: str) -> None:
    table = esc50(tmp_path / "d", write=False) / "meta" / "esc50.csv"
    table.write_text(table.read_text().replace(old, new, 1))
    assert said in _message("esc50", tmp_path / "d")
    assert str(table) in _message("esc50", tmp_path / "d")


# folder


def test_folder_takes_classes_from_folders(tmp_path: Path) -> None:
    for name in ("b/x.wav", "b/deep/er/y.FLAC", "a/z.ogg", "a/notes.txt", "a/.hidden.wav", ".git/k.wav", "docs/r.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    clips = read_clips("folder", tmp_path)
    assert [(c.name, c.label, c.split) for c in clips] == [
        ("a/z.ogg", "a", None),
        ("b/deep/er/y.FLAC", "b", None),
        ("b/x.wav", "b", None),
    ]


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    tone(tmp_path / "elsewhere" / "x.wav", 0.1)
    (tmp_path / "data" / "b").mkdir(parents=True)
    (tmp_path / "data" / "a").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "b" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "b" / "up").symlink_to(tmp_path / "data")
    assert [c.name for c in read_clips("folder", tmp_path / "data")] == ["a/x.wav", "b/more/x.wav"]


def test_folder_with_splits_above(tmp_path: Path) -> None:
    for split in ("train", "Validation", "test"):
        for label in ("a", "b"):
            (tmp_path / split / label).mkdir(parents=True)
            (tmp_path / split / label / "x.wav").touch()
    clips = read_clips("folder", tmp_path)
    assert {(c.split, c.label) for c in clips} == {(s, k) for s in ("train", "val", "test") for k in "ab"}

    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x.wav").touch()
    assert "folder 'other' with audio lies beside split folders" in _message("folder", tmp_path)
    (tmp_path / "other" / "x.wav").unlink()
    (tmp_path / "dev" / "a").mkdir(parents=True)
    assert "'Validation' and 'dev' both name the val split" in _message("folder", tmp_path)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for label in ("train", "test", "plane"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "x.wav").touch()
    assert {(c.label, c.split) for c in read_clips("folder", tmp_path)} == {
        ("train", None),
        ("test", None),
        ("plane", None),
    }


def test_folder_without_anything_to_read(tmp_path: Path) -> None:
    assert "no audio files were found" in _message("folder", tmp_path)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a.m4a").touch()
    assert "1 .m4a files, which cannot be decoded here; convert them" in _message("folder", tmp_path)
    (tmp_path / "a.wav").touch()
    assert "1 audio files lie directly in it; put them into one folder per class" in _message("folder", tmp_path)
    assert "it is a file" in _message("folder", tmp_path / "a.wav")


def test_one_class_only_because_it_is_another_layout(tmp_path: Path) -> None:
    said = _message("folder", esc50(tmp_path / "d", classes=1, folds=2))
    assert "the one class 'audio'" in said
    assert "It looks like 'esc50': use --dataset esc50" in said


# manifest


def _manifest(tmp_path: Path, text: str, name: str = "manifest.csv") -> Path:
    (tmp_path / name).write_text(text)
    return tmp_path / name


def test_manifest_csv(tmp_path: Path) -> None:
    path = _manifest(
        tmp_path,
        "\ufefflabel, path ,split,speaker,start,end\n"
        'dog,"a, b.wav",train,x,,\n'
        "\n"
        "cat,sub/c.wav,VALID,y,0.5,2\n"
        "cat,/abs/d.wav,eval,y,1,\n",
    )
    clips = read_clips("manifest", path)
    assert [(c.name, c.label, c.split, c.start, c.end) for c in clips] == [
        ("/abs/d.wav", "cat", "test", 1.0, None),
        ("a, b.wav", "dog", "train", None, None),
        ("sub/c.wav", "cat", "val", 0.5, 2.0),
    ]
    assert clips[0].path == Path("/abs/d.wav")
    assert clips[2].path == tmp_path / "sub" / "c.wav"
    assert read_clips("manifest", tmp_path) == clips  # the folder will do


def test_manifest_json_lines_and_tabs_say_the_same(tmp_path: Path) -> None:
    rows = [{"path": f"{i}.wav", "label": i % 2, "fold": i + 1, "start": 0.25 * i, "more": [1]} for i in range(4)]
    lines = _manifest(tmp_path, "\n".join(json.dumps(r) for r in rows) + "\n", "m.jsonl")
    tabs = _manifest(
        tmp_path,
        "path\tlabel\tfold\tstart\n"
        + "".join(f"{r['path']}\t{r['label']}\t{r['fold']}.0\t{r['start']}\n" for r in rows),
        "m.tsv",
    )
    clips = read_clips("manifest", lines)
    assert clips == read_clips("manifest", tabs)
    assert [(c.label, c.fold, c.start) for c in clips] == [("0", 1, 0.0), ("1", 2, 0.25), ("0", 3, 0.5), ("1", 4, 0.75)]


def test_parts_of_one_recording_stay_together(tmp_path: Path) -> None:
    path = _manifest(tmp_path, "path,label,start,end\na.wav,x,0,1\na.wav,y,1,2\nb.wav,x,0,1\n")
    assert [c.group for c in read_clips("manifest", path)] == ["a.wav", "a.wav", None]
    path = _manifest(tmp_path, "path,label,start,end,group\na.wav,x,0,1,p\na.wav,y,1,2,q\n")
    assert [c.group for c in read_clips("manifest", path)] == ["p", "q"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the file is blank"),
        ("path,label\n", "it has no rows"),
        ("file,label\na,b\n", "no column 'path'. Needed: path, label. Found: file, label"),
        ("paths,labels\na,b\n", "no column 'path' (did you mean 'paths'?), 'label' (did you mean 'labels'?)"),
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
    ],
)
def test_manifests_that_are_wrong(tmp_path: Path, text: str, said: str) -> None:
    path = _manifest(tmp_path, text)
    found = _message("manifest", path)
    assert said in found
    assert str(path) in found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"path": "a"\n', "row 1: not JSON"),
        ("[1, 2]\n", "row 1: expected an object"),
        ('{"path": "a", "label": "x"}\n{"path": "b"}\n', "row 2: 'label' is missing or blank"),
        ('{"path": "a", "label": true}\n', "row 1: 'label' is true; it must be text or a number"),
    ],
)
def test_json_lines_that_are_wrong(tmp_path: Path, text: str, said: str) -> None:
    assert said in _message("manifest", _manifest(tmp_path, text, "m.jsonl"))


def test_a_manifest_that_is_none(tmp_path: Path) -> None:
    assert "it holds none of manifest.csv" in _message("manifest", tmp_path)
    (tmp_path / "a.xlsx").touch()
    assert "its name must end in .csv, .tsv, .jsonl" in _message("manifest", tmp_path / "a.xlsx")
    (tmp_path / "m.csv").write_bytes(b"path,label\n\xff\xfe,x\n")
    assert "not UTF-8 text (byte 11)" in _message("manifest", tmp_path / "m.csv")


# all of them


def test_a_path_that_is_not_there_says_which_part_is(tmp_path: Path) -> None:
    for name in ("esc50", "folder", "manifest"):
        said = _message(name, tmp_path / "no" / "where")
        assert f"{tmp_path / 'no' / 'where'} does not exist ('{tmp_path}' does)" in said


def test_an_unknown_format_names_the_nearest(tmp_path: Path) -> None:
    said = _message("esc5", tmp_path)
    assert "(did you mean 'esc50'?); allowed: embedded, esc50, folder, manifest" in said


def test_every_format_describes_itself() -> None:
    for entry in datasets():
        assert FORMATS[entry.name] is entry
        assert entry.summary and entry.layout and entry.protocols


def test_listing_needs_no_torch(tmp_path: Path) -> None:
    tone(tmp_path / "a" / "x.wav", 0.1)
    code = (
        "import sys; from pathlib import Path; from trainables.data import datasets; "
        "from trainables.data.formats import read_clips; datasets(); "
        f"read_clips('folder', Path({str(tmp_path)!r})); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
