from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainables.data.datasets.reading import clips_of, complaint, edit, published, sizes, splits_of
from tests.trainables.data.layouts import audio_snips as layout
from trainables.data.datasets.audio_snips import _marked


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return layout.write(tmp_path, audio=False)


def test_slots_are_marked_in_the_published_way(root: Path) -> None:
    parts = splits_of("audio_snips", root)
    assert sizes(parts) == (6, 6, 6)
    assert [clip.text for clip in parts["test"][:3]] == [
        "add B-entity_name step to me E-entity_name to the B-playlist 50 clásicos E-playlist playlist",
        "rate B-object_name Guns AND Roses E-object_name B-rating_value five E-rating_value",
        "what is the weather in B-city Rome E-city",
    ]
    first = parts["test"][0]
    assert (first.name, first.speaker, first.group) == ("test/Amy-snips-test-0.wav", "Amy", "test 0")
    counts = published("audio_snips", "slots").splits
    assert counts == {"train": 16 * 13084, "val": 16 * 700, "test": 16 * 700}


def test_intents(root: Path) -> None:
    clips = clips_of("audio_snips", root, target="intent")
    assert {clip.label for clip in clips} == {"AddToPlaylist", "RateBook", "GetWeather"}
    assert {clip.text for clip in clips} == {None}


_WORDS = st.lists(st.tuples(st.sampled_from(["a", "b", ",", "&", ""]), st.sampled_from(["O", "x", "y"])), max_size=8)


@given(_WORDS)
def test_marks_come_in_pairs_and_no_other_word_is_lost(pairs: list[tuple[str, str]]) -> None:
    marked = _marked([word for word, _ in pairs], [slot for _, slot in pairs]).split()
    plain = [word for word in marked if not word.startswith(("B-", "E-"))]
    assert plain == ["AND" if word == "&" else word for word, _ in pairs if word not in ("", ",")]
    open_slot = ""
    for before, word in zip(["", *marked], marked, strict=False):
        if word.startswith("B-"):
            assert not open_slot
            open_slot = word[2:]
        elif word.startswith("E-"):
            assert word[2:] == open_slot
            assert not before.startswith("B-")  # no empty value
            open_slot = ""
    assert not open_slot


def test_the_folder_above_and_the_published_codec(root: Path, tmp_path: Path) -> None:
    inner = layout.write(tmp_path / "corpora" / "SNIPS", audio=False)
    for path in (inner / "train").glob("*.wav"):
        path.rename(path.with_suffix(".mp3"))
    clips = clips_of("audio_snips", inner.parent)
    assert {clip.path.suffix for clip in clips if clip.split == "train"} == {".mp3"}
    assert {clip.path.suffix for clip in clips if clip.split == "test"} == {".wav"}
    assert clips[0].name.startswith("SNIPS/test/")


def test_every_wrong_line_is_named(root: Path) -> None:
    table = root / "all.iob.snips.txt"
    edit(table, "O O O O O O city", "O O O O O O citty")
    edit(table, "Joey-snips-train-2 BOS", "Joey-snips-train-2")
    edit(table, "Amy-snips-valid-0", "Amy-snips-valid-1")
    said = complaint("audio_snips", root)
    assert "3 problems" in said
    assert "row 3: slot 'citty' is not in slots.txt (did you mean 'city'?)" in said
    assert "row 6: 'Joey-snips-train-2 what is the weather in Rome EOS" in said
    assert "row 8: 'Amy-snips-valid-1' is listed already in row 7" in said


def test_something_else(tmp_path: Path) -> None:
    assert "there is no all.iob.snips.txt" in complaint("audio_snips", tmp_path)
