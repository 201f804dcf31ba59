from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.trainables.data.datasets.as_published import split_as
from tests.trainables.data.datasets.reading import clips_of, complaint, edit, published
from tests.trainables.data.layouts import urbansound8k as layout


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return layout.write(tmp_path_factory.mktemp("us8k"), audio=False)


def test_slices_are_whole_files_of_one_fold_and_recording(root: Path) -> None:
    clips = clips_of("urbansound8k", root)
    assert len(clips) == 200
    assert Counter(clip.label for clip in clips) == dict.fromkeys(layout.CLASSES, 20)
    assert Counter(clip.fold for clip in clips) == dict.fromkeys(range(1, 11), 20)
    one = next(clip for clip in clips if clip.name == "audio/fold10/10004-4-0-1.wav")
    assert (one.label, one.group, one.fold, one.start, one.end) == ("drilling", "10004", 10, None, None)
    assert one.path.is_file()


def test_published_figures() -> None:
    figures = published("urbansound8k")
    assert (figures.clips, figures.classes, sum(figures.folds.values())) == (8732, 10, 8732)


@pytest.mark.parametrize(("fold", "before"), [(1, 10), (7, 6)])
def test_standard_validates_on_a_fold_of_its_own(root: Path, fold: int, before: int) -> None:
    clips, splits = split_as("urbansound8k", root, fold=fold)
    assert {clips[i].fold for i in splits.val} == {before}
    assert {clips[i].fold for i in splits.test} == {fold}
    assert {clips[i].fold for i in splits.train} == set(range(1, 11)) - {fold, before}
    assert splits.protocol.startswith("standard") and not splits.reads_test


@pytest.mark.parametrize("protocol", ["petl_ast", "aat"])
def test_both_systems_chose_epochs_on_the_test_fold(root: Path, protocol: str) -> None:
    clips, splits = split_as("urbansound8k", root, fold=4, protocol=protocol)
    assert splits.val == splits.test and splits.reads_test
    assert {clips[i].fold for i in splits.train} == set(range(1, 11)) - {4}


def test_every_wrong_row_is_named(tmp_path: Path) -> None:
    layout.write(tmp_path, audio=False)
    table = tmp_path / "metadata" / "UrbanSound8K.csv"
    edit(table, "1,1,0,air_conditioner", "1,11,0,air_conditioner")
    edit(table, "1,1,1,car_horn", "1,1,1,car_hron")
    edit(table, "1002-2-0-0.wav,1002", "1002-2-0-0.wav,")
    said = complaint("urbansound8k", tmp_path)
    assert f"{table}: 3 problems" in said
    assert "row 2: 'fold' is 11; there are folds 1 to 10" in said
    assert "row 4: 'class' is 'car_hron', which is not known (did you mean 'car_horn'?); allowed: air_cond" in said
    assert "row 6: 'fsID' is missing or blank" in said


def test_the_table_is_missing(tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    assert "there is no metadata/UrbanSound8K.csv (found there: audio)" in complaint("urbansound8k", tmp_path)
