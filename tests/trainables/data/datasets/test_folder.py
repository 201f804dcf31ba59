from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainables.data.datasets.reading import clips_of, complaint, listing_of, sizes, splits_of
from tests.trainables.data.layouts import esc50
from tests.trainables.data.layouts import folder as layout
from trainables.data.splits import SplitError


def _touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_classes_are_folders(tmp_path: Path) -> None:
    _touch(
        tmp_path, "b/x.wav", "b/deep/er/y.FLAC", "a/z.ogg", "a/notes.txt", "a/.hidden.wav", ".git/k.wav", "docs/r.md"
    )
    assert [(c.name, c.label, c.split, c.speaker) for c in clips_of("folder", tmp_path)] == [
        ("a/z.ogg", "a", None, None),
        ("b/deep/er/y.FLAC", "b", None, None),
        ("b/x.wav", "b", None, None),
    ]


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    _touch(tmp_path / "elsewhere", "x.wav")
    (tmp_path / "data" / "b").mkdir(parents=True)
    (tmp_path / "data" / "a").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "b" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "b" / "up").symlink_to(tmp_path / "data")
    assert [c.name for c in clips_of("folder", tmp_path / "data")] == ["a/x.wav", "b/more/x.wav"]


def test_splits_above(tmp_path: Path) -> None:
    _touch(tmp_path, *(f"{split}/{label}/x.wav" for split in ("train", "Validation", "test") for label in "ab"))
    clips = clips_of("folder", tmp_path)
    assert {(c.split, c.label) for c in clips} == {(s, k) for s in ("train", "val", "test") for k in "ab"}

    _touch(tmp_path, "other/x.wav")
    assert "folder 'other' with audio lies beside split folders" in complaint("folder", tmp_path)
    (tmp_path / "other" / "x.wav").unlink()
    (tmp_path / "dev" / "a").mkdir(parents=True)
    assert "'Validation' and 'dev' both name the val split" in complaint("folder", tmp_path)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    _touch(tmp_path, "train/x.wav", "test/x.wav", "plane/x.wav")
    assert {(c.label, c.split) for c in clips_of("folder", tmp_path)} == {
        ("train", None),
        ("test", None),
        ("plane", None),
    }


def test_nothing_to_read(tmp_path: Path) -> None:
    assert "no audio files were found" in complaint("folder", tmp_path)
    _touch(tmp_path, "x/a.m4a")
    assert "1 .m4a files, which cannot be decoded here; convert them" in complaint("folder", tmp_path)
    _touch(tmp_path, "a.wav")
    assert "1 audio files lie directly in it; put them into one folder per class" in complaint("folder", tmp_path)
    assert "it is a file" in complaint("folder", tmp_path / "a.wav")


def test_one_class_only_because_it_is_another_layout(tmp_path: Path) -> None:
    said = complaint("folder", esc50.write(tmp_path, audio=False))
    assert "the one class 'audio'" in said
    assert "It looks like 'esc50': use --dataset esc50" in said


def test_standard_draws_from_every_class(tmp_path: Path) -> None:
    layout.write(tmp_path, audio=False, clips=10)
    assert sizes(splits_of("folder", tmp_path)) == (18, 6, 6)
    assert sizes(splits_of("folder", tmp_path, shots=2)) == (6, 6, 6)


def test_speakers_of_a_split_are_in_no_other(tmp_path: Path) -> None:
    layout.write(tmp_path, audio=False, classes=10, clips=3)
    parts = splits_of("folder", tmp_path, target="speaker")
    who = {name: {clip.speaker for clip in clips} for name, clips in parts.items()}
    assert [len(who[name]) for name in ("train", "val", "test")] == [6, 2, 2]
    assert set.union(*who.values()) == {f"class{i}" for i in range(10)}
    assert sizes(parts) == (18, 6, 6)
    assert splits_of("folder", tmp_path, target="speaker") == parts
    assert splits_of("folder", tmp_path, target="speaker", split_seed=1) != parts


def test_speakers_of_the_validation_are_cut_from_train(tmp_path: Path) -> None:
    _touch(tmp_path, *(f"train/s{i}/{n}.wav" for i in range(8) for n in range(2)), "test/t0/a.wav", "test/t1/a.wav")
    parts = splits_of("folder", tmp_path, target="speaker")
    who = {name: {clip.speaker for clip in clips} for name, clips in parts.items()}
    assert who["test"] == {"t0", "t1"}
    assert len(who["val"]) == 2 and len(who["train"]) == 6 and not who["val"] & who["train"]


def test_too_few_speakers(tmp_path: Path) -> None:
    layout.write(tmp_path, audio=False, classes=5)
    with pytest.raises(SplitError, match=r"there are 3 speakers, too few to draw 2 for val and keep 2 to train on"):
        splits_of("folder", tmp_path, target="speaker")


def test_links_between_two_folders(tmp_path: Path) -> None:
    _touch(tmp_path, "a/x.wav", "b/y.wav")
    (tmp_path / "a" / "to_b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "to_a").symlink_to(tmp_path / "a")
    assert [c.name for c in clips_of("folder", tmp_path)] == ["a/to_b/y.wav", "a/x.wav", "b/to_a/x.wav", "b/y.wav"]


def test_recordings_that_are_not_decoded_are_counted(tmp_path: Path) -> None:
    _touch(tmp_path, "a/x.wav", "a/deep/y.m4a", "b/z.M4A", "b/x.wav", "b/w.wma", "b/._v.m4a")
    [said] = listing_of("folder", tmp_path).left_out
    assert "2 .m4a, 1 .wma; convert them" in said
