from __future__ import annotations

from pathlib import Path

import pytest
import soundfile

from tests.trainables.data.datasets.reading import clips_of, complaint, edit, sizes, splits_of
from tests.trainables.data.layouts import voxpopuli as layout
from trainables.data.clips import leave_out_missing


@pytest.mark.parametrize("hub", [False, True])
def test_splits_and_normalised_texts_of_both_layouts(tmp_path: Path, hub: bool) -> None:
    root = layout.write(tmp_path, audio=False, hub=hub)
    parts = splits_of("voxpopuli", root)
    assert sizes(parts) == (3, 2, 2)  # one of train has no text
    first = parts["train"][0]
    name = "20120114-0900-PLENARY-1-en_20110114-17:12:31_5"
    assert first.name == (f"data/en/train/train_part_0/{name}.wav" if hub else f"transcribed_data/en/2012/{name}.ogg")
    assert (first.text, first.speaker) == ('he said "no to number 1', None)
    assert parts["train"][1].speaker == "4002"
    assert leave_out_missing(clips_of("voxpopuli", root), False, root)[1] == []


def test_archives_that_are_not_unpacked(tmp_path: Path) -> None:
    root = layout.write(tmp_path, audio=False, hub=True)
    folder = root / "data" / "en" / "dev"
    (folder / "dev_part_0").rename(root / "elsewhere")
    (folder / "dev_part_0.tar.gz").touch()
    assert f"{folder} holds archives that are not unpacked yet (dev_part_0.tar.gz, …)" in complaint("voxpopuli", root)


def test_languages(tmp_path: Path) -> None:
    root = layout.write(tmp_path, audio=False)
    (root / "transcribed_data" / "en").rename(root / "transcribed_data" / "pl")
    assert len(clips_of("voxpopuli", root, subset="pl")) == 7
    assert "has no language 'en' (data.subset); it has pl" in complaint("voxpopuli", root)


def test_rows_and_tables_that_are_wrong(tmp_path: Path) -> None:
    root = layout.write(tmp_path, audio=False)
    table = root / "transcribed_data" / "en" / "asr_test.tsv"
    row = table.read_text().splitlines()[1]
    table.write_text(table.read_text() + row + "\n")
    assert "asr_test.tsv, row 4: '20110114-0900-PLENARY-0-en_20110114-17:12:30_4' is listed already in row 2" in (
        complaint("voxpopuli", root).replace(": 1 problem\n  ", ", ")
    )
    edit(table, "normalized_text", "text")
    assert "no column 'normalized_text'. Found: id, raw_text, text" in complaint("voxpopuli", root)
    table.unlink()
    assert "there is no asr_test.tsv" in complaint("voxpopuli", root)


def test_the_miniature_can_be_heard(tmp_path: Path) -> None:
    assert soundfile.info(clips_of("voxpopuli", layout.write(tmp_path))[0].path).format == "OGG"
