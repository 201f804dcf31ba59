from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import soundfile

from tests.trainables.data.datasets.reading import clips_of, complaint, edit, published, sizes, splits_of
from tests.trainables.data.layouts import timit as layout
from trainables.data.datasets._timit import CORE_TEST, DEVELOPMENT, PHONES, TO_39, TO_48


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return layout.write(tmp_path, audio=False)


def test_lists_and_foldings_have_the_published_sizes() -> None:
    assert (len(CORE_TEST), len(DEVELOPMENT), len(CORE_TEST & DEVELOPMENT)) == (24, 50, 0)
    assert Counter(name[0] for name in CORE_TEST) == {"m": 16, "f": 8}
    assert (len(PHONES), len(set(TO_48.values())), len(set(TO_39.values()))) == (61, 48, 39)
    assert PHONES - set(TO_39) == {"q"}
    assert set(TO_39) == set(TO_48)
    # Folding to 48 first and then to 39 is the same as at once, for those of the 48 that are phones themselves.
    groups = {"vcl": "sil", "cl": "sil", "sil": "sil"}
    assert all(groups.get(middle) or TO_39[middle] == TO_39[phone] for phone, middle in TO_48.items())
    assert published("timit", "phonemes", "39").splits == {"train": 462 * 8, "val": 50 * 8, "test": 24 * 8}


def test_core_test_development_and_no_sa_sentences(root: Path) -> None:
    parts = splits_of("timit", root)
    assert sizes(parts) == (4, 2, 4)
    assert {clip.speaker for clip in parts["train"]} == {"fcjf0", "marc0"}
    assert {clip.speaker for clip in parts["val"]} == {"faks0"}
    assert {clip.speaker for clip in parts["test"]} == {"mdab0", "fpas0"}
    assert parts["test"][0].name == "TEST/DR1/MDAB0/SI1027.WAV"


@pytest.mark.parametrize(
    ("subset", "phones"),
    [
        ("39", "sil sh ih hh eh sil d y ah aa r sil jh ih n sil sil"),
        ("48", "sil sh ix hh eh vcl d y ax ao r vcl jh ih n sil sil"),
        ("61", "h# sh ix hv eh dcl d y ax-h q ao r dcl jh ih n pau h#"),
    ],
)
def test_phones_are_folded(root: Path, subset: str, phones: str) -> None:
    assert {clip.text for clip in clips_of("timit", root, subset=subset)} == {phones}


def test_lower_case_copies_and_folders_above(tmp_path: Path) -> None:
    layout.write(tmp_path / "data", audio=False, lower=True)
    clips = clips_of("timit", tmp_path)
    assert (len(clips), clips[0].name) == (10, "data/test/dr1/faks0/si1027.wav")


def test_converted_copies_have_two_files(root: Path) -> None:
    published_file = root / "TEST" / "DR1" / "MDAB0" / "SX37.WAV"
    (published_file.parent / "SX37.WAV.wav").touch()
    assert clips_of("timit", root)[3].path == published_file
    published_file.unlink()
    assert clips_of("timit", root)[3].name == "TEST/DR1/MDAB0/SX37.WAV.wav"


def test_every_wrong_line_is_named(root: Path) -> None:
    edit(root / "TRAIN/DR1/FCJF0/SX37.PHN", "350 700 sh", "350 700 shh")
    edit(root / "TRAIN/DR1/FCJF0/SI1027.PHN", "0 350 h#", "0 h#")
    said = complaint("timit", root)
    assert "TRAIN/DR1/FCJF0/SX37.PHN, row 2: phone 'shh' (did you mean 'sh'?) is not one of TIMIT's 61" in said
    assert "TRAIN/DR1/FCJF0/SI1027.PHN, row 1: '0 h#'; expected first sample, last sample, phone" in said


def test_something_else(tmp_path: Path) -> None:
    (tmp_path / "TRAIN").mkdir()
    assert "has no folders TRAIN and TEST with dialect regions" in complaint("timit", tmp_path)


def test_the_miniature_has_the_header_of_the_publisher(tmp_path: Path) -> None:
    path = clips_of("timit", layout.write(tmp_path))[0].path
    assert path.read_bytes()[:7] == b"NIST_1A"
    assert soundfile.info(path).frames == 6400
