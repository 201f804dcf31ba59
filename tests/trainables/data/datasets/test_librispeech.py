from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile

from tests.trainables.data.datasets.reading import clips_of, complaint, edit, listing_of, published, sizes, splits_of
from tests.trainables.data.layouts import librispeech as layout


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return layout.write(tmp_path, audio=False)


def test_published_parts_are_the_splits(root: Path) -> None:
    parts = splits_of("librispeech", root)
    assert sizes(parts) == (8, 4, 4)
    first = parts["train"][0]
    assert first.name == "LibriSpeech/train-clean-100/103/1240/103-1240-0000.flac"
    assert (first.text, first.speaker) == ("HE'D SEEN TWO", "103")
    assert clips_of("librispeech", root / "LibriSpeech")[0].name.startswith("dev-clean/84/121123/")


def test_figures_of_the_subsets() -> None:
    assert published("librispeech", "text", "clean-100").splits == {"train": 28539, "val": 2703, "test": 2620}
    assert published("librispeech", "text", "clean-460").splits["train"] == 132553
    assert published("librispeech", "text", "960").splits["train"] == 281241


def test_a_part_that_is_not_there(root: Path) -> None:
    said = complaint("librispeech", root, subset="clean-460")
    assert "there is no train-clean-360 (found there: SPEAKERS.TXT, dev-clean, test-clean, train-clean-100)" in said


def test_speakers_are_those_of_the_training_part(root: Path) -> None:
    parts = splits_of("librispeech", root, target="speaker")
    assert sizes(parts) == (4, 2, 2)
    for part in parts.values():
        assert {clip.label for clip in part} == {"103", "19"}


@pytest.mark.parametrize("form", ["librispeech", "cmudict", "json"])
def test_phones_by_a_lexicon_the_first_pronunciation_counts(root: Path, form: str) -> None:
    lexicon = root / "librispeech-lexicon.txt"
    if form == "cmudict":
        lines = ";;; # CMUdict\nHE'D  HH IY1 D\nseen  S IY1 N\nSEEN(1)  S IY0 N\nTWO  T UW1 # number\n"
        lexicon.write_text(lines + "WORDS  W ER1 D Z\nAGAIN  AH0 G EH1 N\n")
    elif form == "json":
        words = [line.split() for line in layout.LEXICON.splitlines() if "IY0" not in line]
        lexicon = root / "word2phonemes.json"
        lexicon.write_text(json.dumps({w: p if i % 2 else " ".join(p) for i, (w, *p) in enumerate(words)}))
    clips = clips_of("librispeech", root, target="phonemes", lexicon=str(lexicon))
    assert [clip.text for clip in clips[:2]] == ["HH IY1 D S IY1 N T UW1", "T UW1 W ER1 D Z S IY1 N"]


def test_few_unknown_words_are_one_phone_many_an_error(root: Path) -> None:
    lexicon = root / "librispeech-lexicon.txt"
    edit(root / "LibriSpeech/dev-clean/84/121123/84-121123.trans.txt", "HE'D SEEN TWO", "HE'D SEEN XERXES")
    listing = listing_of("librispeech", root, target="phonemes", lexicon=str(lexicon))
    assert listing.clips[0].text == "HH IY1 D S IY1 N SPN"
    assert listing.left_out == (f"1 of 52 words (1 different ones) are not in {lexicon}: they are one phone, SPN",)
    edit(lexicon, "WORDS ", "WORD ")
    said = complaint("librispeech", root, target="phonemes", lexicon=str(lexicon))
    assert "lacks 13 of 52 words, 2 different ones" in said
    assert "'WORDS' (12 times)\n  'XERXES' (1 times)" in said


def test_no_lexicon_or_a_broken_one(root: Path) -> None:
    assert "data.lexicon=FILE" in complaint("librispeech", root, target="phonemes")
    assert "does not exist" in complaint("librispeech", root, target="phonemes", lexicon=str(root / "none.txt"))
    edit(root / "librispeech-lexicon.txt", "TWO  T UW1", "TWO")
    said = complaint("librispeech", root, target="phonemes", lexicon=str(root / "librispeech-lexicon.txt"))
    assert "row 4: 'TWO' has a word and no phones" in said


def test_wrong_and_missing_transcripts(root: Path) -> None:
    home = root / "LibriSpeech" / "train-clean-100"
    edit(home / "19/198/19-198.trans.txt", "19-198-0001 ", "19-189-0001 ")
    (home / "103/1240/103-1240.trans.txt").unlink()
    said = complaint("librispeech", root)
    assert "train-clean-100/103/1240/103-1240.trans.txt: the transcripts are not there" in said
    assert "19-198.trans.txt, row 2: '19-189-0001 TWO WORDS SEEN'; expected 19-198-0000 and a text" in said


def test_the_miniature_can_be_heard(tmp_path: Path) -> None:
    assert soundfile.info(clips_of("librispeech", layout.write(tmp_path))[0].path).format == "FLAC"
