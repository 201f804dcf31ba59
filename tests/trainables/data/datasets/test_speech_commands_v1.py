from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.trainables.data.datasets.reading import clips_of, complaint, published, sizes, splits_of
from tests.trainables.data.layouts import speech_commands_v1 as layout
from tests.trainables.data.layouts import speech_commands_v2

NAME = "speech_commands_v1"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return layout.write(tmp_path_factory.mktemp("sc1"), audio=False)


def test_thirty_words(root: Path) -> None:
    parts = splits_of(NAME, root, protocol="aat")
    assert sizes(parts) == (90, 30, 30)
    assert {clip.label for clip in parts["test"]} == set(layout.WORDS)


def test_eleven_and_twelve(root: Path) -> None:
    assert sizes(splits_of(NAME, root, subset="11", protocol="sure")) == (33, 11, 11)
    counts = Counter(clip.label for clip in splits_of(NAME, root, subset="12")["train"])
    assert (len(counts), counts["_unknown_"], counts["_silence_"]) == (12, 3, 3)


@pytest.mark.parametrize("subset", ["30", "12"])
def test_published_figures(subset: str) -> None:
    figures = published(NAME, subset=subset)
    assert sum(figures.splits.values()) == figures.clips


def test_the_other_version_is_told_apart(root: Path, tmp_path: Path) -> None:
    newer = speech_commands_v2.write(tmp_path, audio=False)
    assert "has words of version 2 ('forward', 'backward'); it is 'speech_commands_v2'" in complaint(NAME, newer)
    assert "It looks like 'speech_commands_v2'" in complaint(NAME, newer)
    said = complaint("speech_commands_v2", root)
    assert "there is no folder backward, follow, forward, learn, visual (5 of 35 words missing)" in said
    assert "It looks like 'speech_commands_v1'" in said


def test_hidden_files_are_no_clips(tmp_path: Path) -> None:
    root = layout.write(tmp_path / "data", audio=False)
    before = clips_of("speech_commands_v1", root)
    (root / "yes" / "._a_nohash_0.wav").write_bytes(b"of a Mac")
    assert clips_of("speech_commands_v1", root) == before
