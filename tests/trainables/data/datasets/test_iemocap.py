from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import soundfile

from tests.trainables.data.datasets.reading import clips_of, complaint, edit, published, sizes, splits_of
from tests.trainables.data.layouts import iemocap as layout
from trainables.data.clips import Clip, leave_out_missing


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return layout.write(tmp_path_factory.mktemp("iemocap"), audio=False)


def _speakers(clips: list[Clip]) -> set[str]:
    return {clip.speaker or "" for clip in clips}


def test_four_emotions_with_excited_among_the_happy(root: Path) -> None:
    clips = clips_of("iemocap", root)
    assert Counter(clip.label for clip in clips) == {"happy": 20, "neutral": 10, "sad": 10, "angry": 10}
    first = clips[0]
    folder = "IEMOCAP_full_release/Session1/sentences/wav/Ses01M_impro01"
    assert first.name == f"{folder}/Ses01M_impro01_F000.wav"
    assert first.path == root / first.name
    # The letter of the session is the one who wore the markers; the woman speaks.
    assert (first.label, first.fold, first.split, first.speaker, first.group) == (
        "neutral",
        1,
        None,
        "Ses01-F",
        "Ses01-F",
    )
    assert leave_out_missing(clips, False, root)[1] == []


def test_the_release_itself_and_other_than_four_emotions(root: Path) -> None:
    clips = clips_of("iemocap", root / "IEMOCAP_full_release", subset="11")
    assert Counter(clip.label for clip in clips) == dict.fromkeys(("neu", "hap", "ang", "xxx", "sad", "exc", "fru"), 10)
    assert clips[0].name.startswith("Session1/sentences/wav/")
    assert published("iemocap", subset="4").clips == 1708 + 1636 + 1084 + 1103
    assert published("iemocap", subset="11").clips == 10039


@pytest.mark.parametrize(("fold", "val"), [(1, 5), (2, 1), (5, 4)])
def test_standard_tests_on_a_session_and_validates_on_the_one_before(root: Path, fold: int, val: int) -> None:
    parts = splits_of("iemocap", root, fold=fold)
    assert sizes(parts) == (30, 10, 10)
    assert _speakers(parts["test"]) == {f"Ses0{fold}-F", f"Ses0{fold}-M"}
    assert _speakers(parts["val"]) == {f"Ses0{val}-F", f"Ses0{val}-M"}
    assert not _speakers(parts["train"]) & (_speakers(parts["val"]) | _speakers(parts["test"]))


@pytest.mark.parametrize(
    ("fold", "test", "val"), [(1, "Ses01-F", "Ses01-M"), (2, "Ses01-M", "Ses01-F"), (10, "Ses05-M", "Ses05-F")]
)
def test_petl_ast_has_ten_folds_of_one_speaker(root: Path, fold: int, test: str, val: str) -> None:
    parts = splits_of("iemocap", root, fold=fold, protocol="petl_ast")
    assert sizes(parts) == (40, 5, 5)
    assert (_speakers(parts["test"]), _speakers(parts["val"])) == ({test}, {val})
    assert len(_speakers(parts["train"])) == 8
    assert {clip.fold for clip in clips_of("iemocap", root, protocol="petl_ast")} == set(range(1, 11))


def test_sure_takes_whole_sessions_and_leaves_out_what_nobody_trains_on(tmp_path: Path) -> None:
    root = layout.write(tmp_path, audio=False)
    assert sizes(splits_of("iemocap", root, protocol="sure", subset="11")) == (42, 14, 14)
    table = "IEMOCAP_full_release/Session5/dialog/EmoEvaluation/Ses05M_impro01.txt"
    edit(root / table, "\txxx\t", "\tdis\t")
    parts = splits_of("iemocap", root, protocol="sure", subset="11")
    assert sizes(parts) == (42, 14, 13)
    assert _speakers(parts["val"]) == {"Ses04-F", "Ses04-M"}


def test_every_wrong_line_is_named(tmp_path: Path) -> None:
    root = layout.write(tmp_path, audio=False)
    folder = root / "IEMOCAP_full_release/Session2/dialog/EmoEvaluation"
    edit(folder / "Ses02F_impro01.txt", "\tneu\t", "\tneutral\t")
    edit(folder / "Ses02F_script01_1b.txt", "\tSes02F_script01_1b_F000\t", "\tSes03F_script01_1b_F000\t")
    said = complaint("iemocap", root)
    assert "2 problems" in said
    assert "Session2/dialog/EmoEvaluation/Ses02F_impro01.txt, row 3: emotion 'neutral' (did you mean 'neu'?)" in said
    assert "Ses02F_script01_1b.txt, row 3: '[6.2901 - 8.1901]\tSes03F_script01_1b_F000" in said


def test_a_session_that_is_not_there(tmp_path: Path) -> None:
    root = layout.write(tmp_path, audio=False)
    (root / "IEMOCAP_full_release" / "Session4").rename(root / "elsewhere")
    said = complaint("iemocap", root)
    assert (
        "is not a copy of 'iemocap': there is no Session4/dialog/EmoEvaluation (found there: Session1, Session2" in said
    )
    assert "PATH/IEMOCAP_full_release/" in said


def test_the_miniature_can_be_heard(tmp_path: Path) -> None:
    clip = clips_of("iemocap", layout.write(tmp_path))[0]
    assert soundfile.info(clip.path).samplerate == 16000
