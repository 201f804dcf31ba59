from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.trainables.data.datasets.reading import clips_of, complaint, edit, published, sizes, splits_of
from tests.trainables.data.layouts import meld as layout
from trainables.data.clips import BadFiles, leave_out_missing


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return layout.write(tmp_path, audio=False)


def test_published_splits_and_dialogues(root: Path) -> None:
    parts = splits_of("meld", root)
    assert sizes(parts) == (21, 7, 7)
    assert Counter(clip.label for clip in parts["train"]) == dict.fromkeys(layout.EMOTIONS, 3)
    first = parts["val"][0]
    assert (first.name, first.group, first.speaker, first.text) == (
        "dev/dia0_utt0.wav",
        "dev dialogue 0",
        "Chandler",
        None,
    )
    assert sum(published("meld", "emotion").splits.values()) == 13708


def test_texts_with_quotes_and_the_punctuation_of_another_code_page(root: Path) -> None:
    clips = clips_of("meld", root, target="text")
    assert clips[0].text == 'My company\u2019s "transition", well\u2026 no'
    assert clips[0].label == ""


def test_recordings_that_are_missing_can_be_left_out(root: Path) -> None:
    (root / "train" / "dia2_utt3.wav").unlink()
    clips = clips_of("meld", root)
    with pytest.raises(BadFiles, match=r"train/dia2_utt3\.wav: missing"):
        leave_out_missing(clips, False, root)
    kept, missing = leave_out_missing(clips, True, root)
    assert (len(kept), len(missing)) == (34, 1)


def test_videos_alone_are_told_how_to_become_sound(root: Path) -> None:
    videos = root / "dev" / "dev_splits_complete"
    videos.mkdir()
    for path in (root / "dev").glob("*.wav"):
        path.rename(videos / f"{path.stem}.mp4")
    said = complaint("meld", root)
    assert f"{videos} holds videos" in said
    assert 'ffmpeg -v error -i "$f" -vn -ac 1 -ar 16000' in said
    for path in videos.glob("*.mp4"):  # taken out beside the videos
        path.rename(path.with_suffix(".wav"))
    assert {clip.path.parent for clip in clips_of("meld", root) if clip.split == "val"} == {videos}


def test_tables_in_the_folders_of_their_splits(root: Path) -> None:
    (root / "train_sent_emo.csv").rename(root / "train" / "train_sent_emo.csv")
    assert len(clips_of("meld", root)) == 35
    (root / "dev_sent_emo.csv").unlink()
    assert "is not a copy of 'meld': there is no dev_sent_emo.csv" in complaint("meld", root)


def test_every_wrong_row_is_named(root: Path) -> None:
    edit(root / "test_sent_emo.csv", ",joy,", ",happiness,")
    edit(root / "test_sent_emo.csv", ",0,2,8,21", ",0,1,8,21")
    said = complaint("meld", root)
    assert "row 4: dia0_utt1.wav is listed already in row 3" in said
    assert "row 6: 'Emotion' is 'happiness', which is not known" in said
    assert "allowed: anger, disgust, fear, joy" in said
