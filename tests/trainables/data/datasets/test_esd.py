from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.trainables.data.datasets.reading import clips_of, complaint, edit, published, sizes, splits_of
from tests.trainables.data.layouts import esd as layout
from trainables.data.datasets.esd import _by_number


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return layout.write(tmp_path_factory.mktemp("esd"), audio=False)


def test_emotions_of_the_english_half(root: Path) -> None:
    parts = splits_of("esd", root)
    assert sizes(parts) == (20, 20, 20)
    for part in parts.values():
        assert Counter(clip.label for clip in part) == dict.fromkeys(layout.EMOTIONS, 4)
        assert {clip.speaker for clip in part} == {"0011", "0012"}
    assert parts["val"][0].name == "0011/Angry/evaluation/0011_000351.wav"
    assert splits_of("esd", root, protocol="sure") == parts


@pytest.mark.parametrize(("subset", "speakers"), [("chinese", {"0001"}), ("all", {"0001", "0011", "0012"})])
def test_subsets_and_speakers(root: Path, subset: str, speakers: set[str]) -> None:
    clips = clips_of("esd", root, subset=subset, target="speaker")
    assert {clip.label for clip in clips} == speakers
    assert len(clips) == 30 * len(speakers)


def test_copies_without_folders_for_the_splits_have_the_same_ones(root: Path, tmp_path: Path) -> None:
    flat = layout.write(tmp_path, audio=False, parted=False)
    assert [(clip.path.name, clip.split) for clip in clips_of("esd", flat)] == [
        (clip.path.name, clip.split)
        for clip in sorted(clips_of("esd", root), key=lambda c: (c.path.parts[-4:-2], c.path.name))
    ]
    counts = Counter(_by_number(number) for number in range(1, 1751))
    assert counts == {"train": 5 * 300, "evaluation": 5 * 20, "test": 5 * 30}
    assert published("esd", "emotion", "english").splits == {"train": 15000, "val": 1000, "test": 1500}


@pytest.mark.parametrize(
    ("subset", "name", "sentence"),
    [
        ("english", "0011", "The nine the eggs, I keep."),  # code page 1252
        ("english", "0012", "I\u2019ve never been so hungry."),  # UTF-16
        ("chinese", "0001", "打远一看，它们的确很是美丽。"),  # GB 2312
    ],
)
def test_transcripts_in_every_encoding_and_with_blanks_for_tabs(
    root: Path, subset: str, name: str, sentence: str
) -> None:
    texts = [clip.text for clip in clips_of("esd", root, subset=subset, target="text") if clip.speaker == name]
    assert texts == [sentence] * 30


def test_recordings_without_a_transcript_are_left_out(tmp_path: Path) -> None:
    root = layout.write(tmp_path, audio=False)
    edit(root / "0011" / "0011.txt", "0011_000021\t", "0011_x00021\t", "cp1252")
    assert len(clips_of("esd", root, target="text")) == 59
    (root / "0011" / "0011.txt").unlink()
    assert "0011/0011.txt: the transcripts are not there" in complaint("esd", root, target="text")
    assert len(clips_of("esd", root)) == 60


def test_what_does_not_belong_there(tmp_path: Path) -> None:
    root = layout.write(tmp_path, audio=False)
    (root / "0011" / "Angry" / "test" / "0012_000371.wav").touch()
    (root / "0011" / "Angry" / "test" / "._0011_000371.wav").touch()
    (root / "0012" / "Surprise").rename(root / "0012" / "Surprised")
    said = complaint("esd", root)
    assert "2 problems" in said
    assert "0011/Angry/test/0012_000371.wav: not a name such as 0011_000001.wav to 0011_001750.wav" in said
    assert "0012/Surprised: no emotion (did you mean 'Surprise'?)" in said


def test_the_other_half_and_the_folder_above(tmp_path: Path) -> None:
    root = layout.write(tmp_path / "Emotion Speech Dataset", audio=False)
    said = complaint("esd", tmp_path)
    assert "found: Emotion Speech Dataset" in said
    assert f"use --data {root}" in said
    for name in ("0011", "0012"):
        (root / name).rename(tmp_path / name)
    assert "none of the speaker folders 0011 to 0020 of subset 'english' (found: 0001;" in complaint("esd", root)
