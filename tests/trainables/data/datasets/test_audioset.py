from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainables.data.datasets.reading import clips_of, complaint, edit, published, sizes, splits_of
from tests.trainables.data.layouts import audioset as layout
from trainables.data.clips import BadFiles, leave_out_missing
from trainables.data.datasets.audioset import _FILE


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return layout.write(tmp_path_factory.mktemp("audioset"), audio=False)


def test_balanced_trains_and_the_evaluation_list_tests(root: Path) -> None:
    clips = clips_of("audioset", root)
    assert [sum(clip.split == split for clip in clips) for split in ("train", "val", "test")] == [12, 0, 6]
    one = next(clip for clip in clips if clip.name == "audio/balanced_train_segments/-Y_bal00000.wav")
    assert one.labels == ("Male speech, man speaking", "Speech")
    assert (one.start, one.end, one.negatives) == (None, None, None)
    assert all(clip.path.is_file() for clip in clips)
    parts = splits_of("audioset", root)
    assert sizes(parts)[2] == 6 and len(parts["train"]) + len(parts["val"]) == 12


@pytest.mark.parametrize(("subset", "train"), [("unbalanced", 8), ("full", 20)])
def test_other_lists(root: Path, subset: str, train: int) -> None:
    clips = clips_of("audioset", root, subset=subset)
    assert sum(clip.split == "train" for clip in clips) == train
    assert any(clip.name == "audio/unbalanced_train_segments/Y-Y_unb00007.wav" for clip in clips)
    assert any(clip.name == "audio/eval_segments/-Y_eva00000_30.000_40.000.flac" for clip in clips)


def test_segments_that_could_not_be_had_are_counted(tmp_path: Path) -> None:
    layout.write(tmp_path, audio=False)
    (tmp_path / "audio" / "balanced_train_segments" / "-Y_bal00003.wav").unlink()
    clips = clips_of("audioset", tmp_path)
    kept, missing = leave_out_missing(clips, True, tmp_path)
    assert len(kept) == 17
    assert [(file.name, file.reason) for file in missing] == [
        ("audio/balanced_train_segments/-Y_bal00003.wav", "missing")
    ]
    with pytest.raises(BadFiles, match="1 of 18 clips"):
        leave_out_missing(clips, False, tmp_path)


def test_folders_that_are_called_otherwise_or_parted(tmp_path: Path) -> None:
    layout.write(tmp_path, audio=False)
    names = {clip.path.name for clip in clips_of("audioset", tmp_path)}
    audio = tmp_path / "audio"
    (audio / "eval_segments").rename(audio / "eval")
    (audio / "balanced_train_segments").rename(tmp_path / "balanced_train_segments")
    part = tmp_path / "balanced_train_segments" / "part00"
    part.mkdir()
    for file in sorted((tmp_path / "balanced_train_segments").glob("*.wav"))[:5]:
        file.rename(part / file.name)
    clips = clips_of("audioset", tmp_path)
    assert {clip.path.name for clip in clips if clip.path.is_file()} == names
    (audio / "eval").rename(audio / "other")
    assert "there is no folder with the audio of eval_segments.csv (one of audio/eval_segments, " in complaint(
        "audioset", tmp_path
    )


@pytest.mark.parametrize(
    ("stem", "video"),
    [
        ("-Y_bal00000", "-Y_bal00000"),
        ("Y-Y_bal00000", "-Y_bal00000"),
        ("YbcdefghijK", "YbcdefghijK"),  # an id may begin with Y
        ("YbcdefghijK_30.000", "YbcdefghijK"),
        ("YYbcdefghijK_0_10", "YbcdefghijK"),
        ("notes", None),
    ],
)
def test_names_of_files(stem: str, video: str | None) -> None:
    found = _FILE.fullmatch(stem)
    assert (found["id"] if found else None) == video


def test_every_wrong_row_is_named(tmp_path: Path) -> None:
    layout.write(tmp_path, audio=False)
    table = tmp_path / "balanced_train_segments.csv"
    edit(table, '"/m/09x0r,/m/05zppz"', '"/m/09x0r,/m/nothing"')
    edit(table, "-Y_bal00002", "-Y_bal00001")
    edit(table, '-Y_bal00004, 30.000, 40.000, "/m/09x0r,/m/05zppz"', "-Y_bal00004, 30.000, 40.000")
    said = complaint("audioset", tmp_path)
    assert f"{table}: 3 problems" in said
    assert "row 4: label '/m/nothing' is not in class_labels_indices.csv" in said
    assert "row 6: segment of '-Y_bal00001' is listed already in row 5" in said
    assert "row 8: 3 values; YTID, start_seconds, end_seconds, positive_labels" in said
    (tmp_path / "class_labels_indices.csv").unlink()
    assert "there is no class_labels_indices.csv" in complaint("audioset", tmp_path)


def test_published_figures() -> None:
    assert [published("audioset", subset=s).clips for s in ("balanced", "unbalanced", "full")] == [
        22160 + 20371,
        2041789 + 20371,
        22160 + 2041789 + 20371,
    ]
