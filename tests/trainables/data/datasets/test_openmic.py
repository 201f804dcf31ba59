from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainables.data.datasets.as_published import split_as
from tests.trainables.data.datasets.reading import clips_of, complaint, edit, published, sizes, splits_of
from tests.trainables.data.layouts import openmic as layout

TABLE = "openmic-2018-aggregated-labels.csv"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return layout.write(tmp_path_factory.mktemp("openmic"), audio=False)


def test_annotated_below_a_half_is_no_and_the_rest_unknown(root: Path) -> None:
    clips = clips_of("openmic", root)
    first = clips[0]
    assert (first.name, first.split, first.group) == ("audio/000/000046_0.ogg", "train", "artist 0")
    assert first.labels == ("accordion", "cello")  # clearly, and exactly a half
    assert first.negatives == ("flute",)
    assert {name for clip in clips for name in clip.labels} == set(layout.INSTRUMENTS)
    assert all(clip.path.is_file() for clip in clips)


def test_annotated_is_what_aat_took_for_heard(root: Path) -> None:
    first = clips_of("openmic", root, subset="annotated", protocol="aat")[0]
    assert (first.labels, first.negatives) == (("accordion", "cello", "flute"), None)


def test_validation_is_cut_from_train_by_artist(root: Path) -> None:
    parts = splits_of("openmic", root)
    train, val, test = sizes(parts)
    assert (train + val, test) == (40, 20)
    assert val > 0
    assert not {clip.group for clip in parts["train"]} & {clip.group for clip in parts["val"]}


def test_aat_chose_epochs_on_the_test_part(root: Path) -> None:
    _, splits = split_as("openmic", root, protocol="aat")
    assert splits.val == splits.test and splits.reads_test
    assert (len(splits.train), len(splits.test)) == (40, 20)


def test_without_metadata_there_are_no_groups(tmp_path: Path) -> None:
    layout.write(tmp_path, audio=False)
    (tmp_path / "openmic-2018-metadata.csv").unlink()
    assert {clip.group for clip in clips_of("openmic", tmp_path)} == {None}


def test_published_figures() -> None:
    assert sum(published("openmic").splits.values()) == published("openmic").clips


def test_every_wrong_row_is_named(tmp_path: Path) -> None:
    layout.write(tmp_path, audio=False)
    edit(tmp_path / TABLE, "accordion,0.94505", "acordion,0.94505")
    edit(tmp_path / TABLE, "0.17105", "1.7")
    said = complaint("openmic", tmp_path)
    assert "row 2: 'instrument' is 'acordion', which is not known (did you mean 'accordion'?); allowed: " in said
    assert "row 4: 'relevance' is '1.7'; it must be a number from 0 to 1" in said


def test_partitions(tmp_path: Path) -> None:
    layout.write(tmp_path, audio=False)
    train, test = (tmp_path / "partitions" / f"split01_{name}.csv" for name in ("train", "test"))
    train.write_text(train.read_text() + "999999_0\n")
    assert f"{train}: 1 problem\n  row 41: '999999_0' has no row in {TABLE}" in complaint("openmic", tmp_path)
    train.write_text(train.read_text().replace("999999_0\n", ""))
    test.write_text(test.read_text() + train.read_text().splitlines()[0])
    assert "row 21: '000046_0' is listed already for train" in complaint("openmic", tmp_path)
    test.unlink()
    assert "there is no partitions/split01_test.csv" in complaint("openmic", tmp_path)
