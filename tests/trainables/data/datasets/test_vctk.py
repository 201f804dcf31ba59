from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import soundfile

from tests.trainables.data.datasets.reading import clips_of, complaint, sizes, splits_of
from tests.trainables.data.layouts import vctk as layout
from trainables.data.clips import Clip
from trainables.data.datasets.vctk import _tenths


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return layout.write(tmp_path_factory.mktemp("vctk"), audio=False)


def _speakers(clips: list[Clip]) -> set[str]:
    return {clip.speaker or "" for clip in clips}


def test_every_speaker_is_in_every_split(root: Path) -> None:
    parts = splits_of("vctk", root)
    assert sizes(parts) == (96, 12, 12)
    for name, each in (("train", 8), ("val", 1), ("test", 1)):
        assert Counter(clip.label for clip in parts[name]) == dict.fromkeys(layout.SPEAKERS, each)
    assert parts["train"][0].name.startswith("wav48_silence_trimmed/p225/p225_0")
    assert {clip.path.stem.rpartition("_")[2] for clip in clips_of("vctk", root)} == {"mic1"}


def test_speakers_of_a_split_are_in_no_other_for_verification(root: Path) -> None:
    parts = splits_of("vctk", root, target="verification")
    assert sizes(parts) == (80, 20, 20)
    assert (len(_speakers(parts["val"])), len(_speakers(parts["test"]))) == (2, 2)
    assert not _speakers(parts["val"]) & _speakers(parts["test"])
    assert not _speakers(parts["train"]) & (_speakers(parts["val"]) | _speakers(parts["test"]))
    assert parts["test"][0].label == parts["test"][0].speaker
    assert splits_of("vctk", root, target="verification", split_seed=7) == parts


def test_tenths_depend_on_names_alone() -> None:
    names = [f"p{number}" for number in range(225, 335)]
    parts = _tenths(names, 2)
    assert Counter(parts.values()) == {"train": 88, "val": 11, "test": 11}
    assert _tenths(names[::-1], 2) == parts


def test_texts_but_of_the_speaker_who_has_none(root: Path) -> None:
    clips = clips_of("vctk", root, target="text")
    assert len(clips) == 110
    assert "p315" not in _speakers(clips)
    assert (clips[0].text, clips[0].label) == ("Please call Stella 1.", "")
    parts = splits_of("vctk", root, target="text")
    assert not _speakers(parts["train"]) & _speakers(parts["test"])


def test_sure_takes_tenths_in_order_of_name_and_107_speakers(root: Path) -> None:
    parts = splits_of("vctk", root, protocol="sure")
    assert sizes(parts) == (72, 9, 9)
    assert _speakers(parts["train"]) == set(layout.SPEAKERS) - {"p280", "p315", "s5"}
    assert {clip.path.stem.split("_")[1] for clip in parts["val"]} == {"009"}
    assert {clip.path.stem.split("_")[1] for clip in parts["test"]} == {"010"}


def test_sure_verifies_eight_speakers(tmp_path: Path) -> None:
    for speaker in ("p225", "p360", "p376"):
        for number in range(60):
            path = tmp_path / "wav48" / speaker / f"{speaker}_{number:03d}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    parts = splits_of("vctk", tmp_path, target="verification", protocol="sure")
    assert sizes(parts) == (10, 50, 120)
    assert _speakers(parts["test"]) == {"p360", "p376"}


def test_the_older_version_and_bare_folders(tmp_path: Path) -> None:
    old = layout.write(tmp_path, audio=False, version="0.80")
    assert (len(clips_of("vctk", old)), clips_of("vctk", old)[0].name) == (110, "wav48/p225/p225_001.wav")
    bare = clips_of("vctk", old / "wav48")
    assert (len(bare), bare[0].name) == (110, "p225/p225_001.wav")
    assert len(clips_of("vctk", old / "wav48", target="text")) == 100
    (old / "txt").rename(tmp_path / "texts")
    assert "has no folder 'txt'" in complaint("vctk", old, target="text")


def test_something_else(tmp_path: Path) -> None:
    (tmp_path / "speakers").mkdir()
    assert "has no folders of speakers (p225, p226, …)" in complaint("vctk", tmp_path)


def test_the_miniature_can_be_heard(tmp_path: Path) -> None:
    clip = clips_of("vctk", layout.write(tmp_path, version="0.80"))[0]
    assert soundfile.info(clip.path).samplerate == 48000
