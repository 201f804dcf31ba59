from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainables.data.datasets.reading import clips_of, complaint, edit, published, sizes, splits_of
from tests.trainables.data.layouts import fleurs as layout


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return layout.write(tmp_path, audio=False)


def test_english_by_default_with_its_splits(root: Path) -> None:
    parts = splits_of("fleurs", root)
    assert sizes(parts) == (6, 2, 2)
    first = parts["train"][0]
    assert (first.name, first.text) == ("data/en_us/audio/train/1000000000003500.wav", "a tornado is a spinning column")
    assert published("fleurs", "text", "en_us").splits == {"train": 2602, "val": 394, "test": 647}


def test_other_languages_and_places(root: Path, tmp_path: Path) -> None:
    assert {clip.text for clip in clips_of("fleurs", root, subset="de_de")} == {"ein tornado ist eine säule"}
    plain = layout.write(tmp_path / "plain", audio=False, base="")
    assert clips_of("fleurs", plain)[0].name.startswith("en_us/audio/dev/")
    assert len(clips_of("fleurs", plain / "en_us")) == 10
    said = complaint("fleurs", root, subset="de")
    assert "has no language 'de' (data.subset) (did you mean 'de_de'?); it has de_de, en_us" in said


def test_archives_that_are_not_unpacked(root: Path) -> None:
    audio = root / "data" / "en_us" / "audio"
    (audio / "dev").rename(root / "elsewhere")
    (audio / "dev.tar.gz").touch()
    assert f"not unpacked yet: tar -xzf '{audio}/dev.tar.gz' -C '{audio}'" in complaint("fleurs", root)


def test_rows_that_repeat_say_nothing_or_are_wrong(root: Path) -> None:
    table = root / "data" / "en_us" / "dev.tsv"
    row = table.read_text().splitlines()[0]
    table.write_text(table.read_text() + row + "\n")
    assert len(clips_of("fleurs", root)) == 10
    empty = row.replace("\ta tornado is a spinning column\t", "\t\t").replace("300", "999")
    table.write_text(table.read_text() + empty + "\n")
    assert len(clips_of("fleurs", root)) == 10
    edit(table, "\ta tornado is", "\tthe tornado is")
    assert "dev.tsv, row 3: " in complaint("fleurs", root)
    edit(table, "\tFEMALE", "")
    assert "row 2: 6 values; there must be 7: id, file, raw, text" in complaint("fleurs", root)


def test_something_else(tmp_path: Path) -> None:
    assert "there is no folder en_us and no data/en_us" in complaint("fleurs", tmp_path)
