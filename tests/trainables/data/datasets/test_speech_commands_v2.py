from __future__ import annotations

from collections import Counter
from itertools import pairwise
from math import ceil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.trainables.data.datasets.reading import clips_of, complaint, edit, published, sizes, splits_of
from tests.trainables.data.layouts import speech_commands_v2 as layout
from trainables.data.datasets._speech_commands import _silence

NAME = "speech_commands_v2"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return layout.write(tmp_path_factory.mktemp("sc2"), audio=False)


def test_what_is_on_no_list_trains(root: Path) -> None:
    parts = splits_of(NAME, root)
    assert sizes(parts) == (105, 35, 35)
    assert {clip.label for clip in parts["train"]} == set(layout.WORDS)
    assert {clip.speaker for clip in parts["val"]} == {"3c257192"}
    assert {clip.group for clip in parts["test"]} == {"a69b9b3e"}
    assert parts["test"][0].name == "backward/a69b9b3e_nohash_0.wav"


def test_eleven_words_of_sure(root: Path) -> None:
    parts = splits_of(NAME, root, subset="11", protocol="sure")
    assert sizes(parts) == (33, 11, 11)
    assert {clip.label for clip in parts["val"]} == {*layout.WORDS[:10], "four"}


@pytest.mark.parametrize(("subset", "classes"), [("35", 35), ("12", 12), ("11", 11)])
def test_published_figures(subset: str, classes: int) -> None:
    figures = published(NAME, subset=subset)
    assert (sum(figures.splits.values()), figures.classes) == (figures.clips, classes)


def test_twelve_classes(root: Path) -> None:
    parts = splits_of(NAME, root, subset="12")
    for name, core, other in (("train", 30, 3), ("val", 10, 1), ("test", 10, 1)):
        counts = Counter(clip.label for clip in parts[name])
        assert sum(counts[word] for word in layout.WORDS[:10]) == core
        assert (counts["_unknown_"], counts["_silence_"]) == (other, other)
    unknown = {clip.name.split("/")[0] for part in parts.values() for clip in part if clip.label == "_unknown_"}
    assert unknown <= set(layout.WORDS[10:])
    assert clips_of(NAME, root, subset="12") == clips_of(NAME, root, subset="12")


def test_silence_is_cut_from_other_places_of_the_noise_for_every_split(root: Path) -> None:
    parts = splits_of(NAME, root, subset="12")
    pieces = {name: [clip for clip in part if clip.label == "_silence_"] for name, part in parts.items()}
    # 15 s: training pieces begin evenly over 0 to 11 s (a sixth, half, five sixths), one piece in each last 1.5 s.
    assert [(clip.start, clip.end) for clip in pieces["train"]] == [(1.833, 2.833), (5.5, 6.5), (9.167, 10.167)]
    assert [(clip.start, clip.end) for clip in pieces["val"]] == [(12.25, 13.25)]
    assert [(clip.start, clip.end) for clip in pieces["test"]] == [(13.75, 14.75)]
    assert {clip.name for part in pieces.values() for clip in part} == {"_background_noise_/white_noise.wav"}


def test_shares_of_the_published_task() -> None:
    """A tenth, rounded up, is what its 36,923, 4,445 and 4,890 clips are made of."""
    split_figures = published(NAME, subset="12").splits
    for name, core in (("train", 30769), ("val", 3703), ("test", 4074)):
        assert split_figures[name] == core + 2 * ceil(core / 10)


def test_the_official_test_archive(tmp_path: Path) -> None:
    layout.write(tmp_path, audio=False)
    layout.write_test_archive(tmp_path)
    parts = splits_of(NAME, tmp_path, subset="12")
    counts = Counter(clip.label for clip in parts["test"])
    assert counts == {**dict.fromkeys(layout.WORDS[:10], 1), "_unknown_": 1, "_silence_": 2}
    assert {clip.name.split("/")[0] for clip in parts["test"]} == {"speech_commands_test_set_v0.02"}
    assert len(clips_of(NAME, tmp_path)) == 175  # the archive is of that task alone
    (tmp_path / "speech_commands_test_set_v0.02" / "_unknown_").rename(tmp_path / "elsewhere")
    assert "the test archive has no folder _unknown_" in complaint(NAME, tmp_path, subset="12")


def test_noise_in_several_recordings(tmp_path: Path) -> None:
    layout.write(tmp_path, audio=False)
    soundfile.write(tmp_path / "_background_noise_" / "pink_noise.wav", np.zeros(4000 * 30), 4000)
    pieces = _silence(tmp_path, "train", 340)  # over 23 s of one, 11 s of the other: a place every 0.1 s
    counts = Counter(clip.name for clip in pieces)
    assert counts == {"_background_noise_/pink_noise.wav": 230, "_background_noise_/white_noise.wav": 110}
    one = [clip.start or 0.0 for clip in pieces if "pink" in clip.name]
    assert all(abs(late - early - 0.1) < 2e-3 for early, late in pairwise(one))
    assert (one[0], one[-1]) == (0.05, 22.95)


def test_lists_and_folders_that_are_missing(tmp_path: Path) -> None:
    layout.write(tmp_path, audio=False)
    (tmp_path / "testing_list.txt").rename(tmp_path / "kept")
    assert "there is no testing_list.txt" in complaint(NAME, tmp_path)
    (tmp_path / "kept").rename(tmp_path / "testing_list.txt")
    (tmp_path / "visual").rename(tmp_path / "_visual")
    assert "there is no folder visual (1 of 35 words missing)" in complaint(NAME, tmp_path)
    assert len(clips_of(NAME, tmp_path, subset="11")) == 55  # that word is not among them
    assert "there is no folder visual" in complaint(NAME, tmp_path, subset="12")
    (tmp_path / "_visual").rename(tmp_path / "visual")
    (tmp_path / "_background_noise_" / "white_noise.wav").unlink()
    assert "cut from recordings of more than 10 s, and there are none" in complaint(NAME, tmp_path, subset="12")


def test_every_wrong_line_is_named(tmp_path: Path) -> None:
    layout.write(tmp_path, audio=False)
    edit(tmp_path / "validation_list.txt", "yes/", "yess/")
    edit(tmp_path / "validation_list.txt", "no/3c257192_nohash_0.wav", "no")
    said = complaint(NAME, tmp_path)
    assert "row 1: 'yess/3c257192_nohash_0.wav' is not <word>/<file> with one of the 35 words" in said
    assert "row 2: 'no' is not <word>/<file>" in said


def test_listed_files_that_are_not_there_are_clips_all_the_same(tmp_path: Path) -> None:
    layout.write(tmp_path, audio=False)
    (tmp_path / "wow" / "a69b9b3e_nohash_0.wav").unlink()
    assert len(clips_of(NAME, tmp_path)) == 175  # whoever looks for the files finds that it is missing
