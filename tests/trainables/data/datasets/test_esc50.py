from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.trainables.data.datasets.as_published import split_as
from tests.trainables.data.datasets.reading import clips_of, complaint, edit, published
from tests.trainables.data.layouts import esc50 as layout
from tests.trainables.data.sounds import class_folders


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return layout.write(tmp_path_factory.mktemp("esc50"), audio=False)


def test_folds_and_source_recordings(root: Path) -> None:
    clips = clips_of("esc50", root)
    assert Counter(clip.label for clip in clips) == dict.fromkeys(layout.CLASSES, 15)
    assert Counter(clip.fold for clip in clips) == dict.fromkeys(range(1, 6), 12)
    first = clips[0]
    assert (first.name, first.label, first.fold, first.group) == ("audio/1-100000-A-0.wav", "dog", 1, "100000")
    assert first.path == root / "audio" / "1-100000-A-0.wav"
    assert [clip.name for clip in clips] == sorted(clip.name for clip in clips)


def test_esc10_is_the_part_that_the_table_marks(root: Path) -> None:
    assert Counter(clip.label for clip in clips_of("esc50", root, subset="esc10")) == {"dog": 15, "rain": 15}


def test_published_figures() -> None:
    for subset, clips in (("esc50", 2000), ("esc10", 400)):
        figures = published("esc50", subset=subset)
        assert (sum(figures.folds.values()), figures.clips) == (clips, clips)


def test_standard_keeps_takes_of_one_recording_together(root: Path) -> None:
    clips, splits = split_as("esc50", root, fold=2)
    assert {clips[i].fold for i in splits.test} == {2}
    assert not {clips[i].group for i in splits.train} & {clips[i].group for i in splits.val}
    assert (len(splits.test), len(splits.train) + len(splits.val)) == (12, 48)


@pytest.mark.parametrize(
    ("protocol", "fold", "train", "val"),
    [
        ("petl_ast", 5, {1, 2, 3}, {4}),  # its five runs: ([1,2,3],4,5), ([2,3,4],5,1), …
        ("petl_ast", 1, {2, 3, 4}, {5}),
        ("aat", 3, {1, 2, 4, 5}, {3}),
    ],
)
def test_published_protocols(root: Path, protocol: str, fold: int, train: set[int], val: set[int]) -> None:
    clips, splits = split_as("esc50", root, protocol=protocol, fold=fold)
    assert {clips[i].fold for i in splits.train} == train
    assert {clips[i].fold for i in splits.val} == val
    assert {clips[i].fold for i in splits.test} == {fold}
    assert splits.reads_test == (protocol == "aat")
    assert splits.protocol.startswith(protocol)


def test_it_says_what_it_looked_for_and_what_it_found(tmp_path: Path) -> None:
    class_folders(tmp_path / "mine", clips=1)
    said = complaint("esc50", tmp_path / "mine")
    assert "there is no meta/esc50.csv, no audio (found there: class0, class1, class2)" in said
    assert "It looks like 'folder': use --dataset folder" in said
    assert "PATH/audio/*.wav" in said

    whole = layout.write(tmp_path / "outer" / "ESC-50-master", audio=False)
    assert f"use --data {whole}" in complaint("esc50", tmp_path / "outer")

    (whole / "audio").rename(whole / "sound")
    assert "there is no audio (found there: meta, sound)" in complaint("esc50", whole)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("filename,fold", "file,fold", "no column 'filename' (did you mean 'file'?)"),
        ("-A-0.wav,1,", "-A-0.wav,one,", "row 2: 'fold' is 'one'; it must be a whole number, at least 1"),
        ("1-100001-A-0.wav", "1-100000-A-0.wav", "row 3: filename '1-100000-A-0.wav' is listed already in row 2"),
        ("0,dog,True,100000,A", "0,,True,100000,A", "row 2: 'category' is missing or blank"),
    ],
)
def test_rows_that_are_wrong(tmp_path: Path, old: str, new: str, said: str) -> None:
    layout.write(tmp_path, audio=False)
    table = tmp_path / "meta" / "esc50.csv"
    edit(table, old, new)
    edit(table, "5-503401-B-34.wav,5", "5-503401-B-34.wav,")  # the last row
    found = complaint("esc50", tmp_path)
    assert said in found and str(table) in found
    assert "no column" in said or "2 problems" in found


def test_a_mark_that_is_none(tmp_path: Path) -> None:
    layout.write(tmp_path, audio=False)
    edit(tmp_path / "meta" / "esc50.csv", "True", "yes")
    assert "row 2: 'esc10' is 'yes', which is not known; allowed: True, False" in complaint(
        "esc50", tmp_path, subset="esc10"
    )
    assert len(clips_of("esc50", tmp_path)) == 60
