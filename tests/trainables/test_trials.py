"""Pairs of clips that voices are compared by: drawn ones and lists."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petl import UserError
from trainables.config import DataOptions
from trainables.data.clips import SPLITS, Clip
from trainables.data.datasets.base import Problems
from trainables.data.digest import data_digest
from trainables.data.planning import DataPlan, plan
from trainables.tasks.trials import MOST, PER_CLIP, Pairs, Trial, check_trials, drawn, listed, read_trials


def _clip(name: str, label: str, **values: Any) -> Clip:
    return Clip(Path(name), name, label, **values)


VOICES = [_clip("a", "p1"), _clip("b", "p1"), _clip("c", "p2"), _clip("d", "p2")]


def _names(clips: Sequence[Clip], pairs: Pairs) -> list[tuple[str, str, bool]]:
    return [
        (clips[i].name, clips[j].name, bool(same))
        for i, j, same in zip(pairs.one_N, pairs.other_N, pairs.same_N, strict=True)
    ]


@settings(deadline=None)
@given(st.lists(st.integers(0, 25), min_size=1, max_size=7), st.randoms(use_true_random=False))
def test_pairs_that_are_drawn(sizes: list[int], shuffle: random.Random) -> None:
    clips = [_clip(f"{s}/{i}.wav", f"p{s}") for s, size in enumerate(sizes) for i in range(size)]
    pairs = drawn(clips)
    names = _names(clips, pairs)
    assert len({frozenset(pair[:2]) for pair in names}) == len(names)  # nothing twice
    assert all(one != other and (one[0] == other[0]) == same for one, other, same in names)
    same, different = sum(pairs.same_N), sum(~pairs.same_N)
    total = math.comb(len(clips), 2) - sum(math.comb(size, 2) for size in sizes)
    assert different == min(total, PER_CLIP * len(clips) // 2)
    assert same == sum(min(math.comb(size, 2), PER_CLIP * size // 2) for size in sizes)
    if all(size >= PER_CLIP + 1 for size in sizes) and total >= different == PER_CLIP * len(clips) // 2:
        assert same == different
    uses = np.bincount(np.concatenate([pairs.one_N, pairs.other_N])[np.tile(pairs.same_N, 2)], minlength=1)
    assert uses.max(initial=0) <= PER_CLIP
    mixed = shuffle.sample(clips, len(clips))
    assert _names(mixed, drawn(mixed)) == names


def test_no_more_pairs_than_wanted() -> None:
    clips = [_clip(f"{i}", f"p{i % 7}") for i in range(6000)]
    pairs = drawn(clips)
    assert (sum(pairs.same_N), sum(~pairs.same_N)) == (MOST, MOST)
    # Those left out are spread: every clip is in some, every speaker in as many as the others.
    assert len(np.unique(np.concatenate([pairs.one_N, pairs.other_N]))) == 6000
    of_speaker = np.bincount(pairs.one_N[pairs.same_N] % 7)
    assert of_speaker.max() - of_speaker.min() < 0.1 * of_speaker.mean()


def test_parts_of_one_file_are_clips_of_their_own() -> None:
    clips = [_clip("long.wav", f"p{i // 2}", start=float(i), end=i + 1.0) for i in range(6)]
    assert sum(drawn(clips).same_N) == 3 and sum(~drawn(clips).same_N) == 12


@pytest.mark.parametrize("labels", [["p1"], ["p1", "p1"], ["p1", "p2", "p3"]])
def test_splits_without_pairs_are_refused(labels: list[str]) -> None:
    with pytest.raises(UserError, match=rf"on val: its {len(labels)} clips are of {len(set(labels))} speaker"):
        check_trials([_clip(f"{i}", label) for i, label in enumerate(labels)], "val")
    check_trials(VOICES, "val")


def test_a_list_of_pairs(tmp_path: Path) -> None:
    path = tmp_path / "trials_test.txt"
    clips = [*VOICES, _clip("my own.wav", "p3")]
    path.write_text("1 a b\n\n0  a   c\n0\tmy own.wav\td\n")
    trials = read_trials(path, [clip.name for clip in clips], "test")
    expected = [("a", "b", True), ("a", "c", False), ("my own.wav", "d", False)]
    assert trials == tuple(Trial(*pair, "test") for pair in expected)
    assert _names(VOICES, listed(trials, VOICES)) == [("a", "b", True), ("a", "c", False)]
    assert len(listed(trials, []).same_N) == 0


def test_lists_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "trials_test.txt"
    parts = [_clip("part", "p3", start=0.0, end=1.0), _clip("part", "p3", start=1.0, end=2.0)]
    path.write_text("1 a b\n2 a b\n0 a\n0 aa c\n0 part a\n")
    with pytest.raises(Problems, match="4 problems") as caught:
        read_trials(path, [clip.name for clip in (*VOICES, *parts)])
    for words in ("row 2: '2 a b'", "row 3", "row 4: 'aa' is not a clip", "row 5: 'part' is the file of 2 clips"):
        assert words in str(caught.value)
    names = [clip.name for clip in VOICES]
    path.write_text("1 a b\n")
    with pytest.raises(UserError, match="both pairs of one speaker"):
        read_trials(path, names)
    with pytest.raises(UserError, match="cannot be read"):
        read_trials(tmp_path / "none.txt", names)


def test_lines_end_at_line_feeds_alone(tmp_path: Path) -> None:
    path = tmp_path / "trials.txt"
    path.write_text("1\ta\u2028b\tc\n0\td\tc\n", encoding="utf-8")
    assert read_trials(path, ["a\u2028b", "c", "d"]) == (Trial("a\u2028b", "c", True), Trial("d", "c", False))


def test_few_of_many_wrong_names_are_looked_up(tmp_path: Path) -> None:
    path = tmp_path / "trials.txt"
    path.write_text("".join(f"1 clip{i}.wavv clip{i}.wav\n" for i in range(9)))
    with pytest.raises(Problems, match="9 problems") as caught:
        read_trials(path, [f"clip{i}.wav" for i in range(9)])
    assert str(caught.value).count("did you mean") == 5


def _spoken(root: Path, skip: bool = False) -> list[DataPlan]:
    """Two clips of each of two speakers in every split; `trials_*.txt` are in `root` already."""
    names = [f"{split}/{speaker}{take}.wav" for split in SPLITS for speaker in "pq" for take in (1, 2)]
    rows = [f"{name},{name[-6]}{name[:2]},{name.partition('/')[0]}" for name in names]
    (root / "manifest.csv").write_text("\n".join(["path,speaker,split", *rows]) + "\n")
    for name in names:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).touch()
    (root / "test" / "p2.wav").unlink()
    options = {"dataset": "manifest", "target": "speaker", "path": str(root), "skip_bad_files": skip}
    return [plan(DataOptions.model_validate(options))]


def test_a_list_is_of_its_split_alone(tmp_path: Path) -> None:
    test = "1 test/p1.wav test/p2.wav\n1 test/q1.wav test/q2.wav\n0 test/p1.wav test/q1.wav\n"
    (tmp_path / "trials_test.txt").write_text(test)
    [made] = _spoken(tmp_path, skip=True)
    # A pair of a clip that is missing is left out, but the list is not wrong; val has no list, and pairs are drawn.
    assert [(t.one, t.other, t.same, t.split) for t in made.trials] == [
        ("test/q1.wav", "test/q2.wav", True, "test"),
        ("test/p1.wav", "test/q1.wav", False, "test"),
    ]
    assert any("1 of 3 pairs are not used" in said for said in made.left_out)

    # The list of val does not count for the test, whatever it names.
    (tmp_path / "trials_val.txt").write_text(test)
    with pytest.raises(UserError, match=r"trials_val\.txt: .* whose clips are in val and can be used; it has 0 and 0"):
        _spoken(tmp_path, skip=True)
    (tmp_path / "trials_val.txt").write_text("1 val/p1.wav val/p2.wav\n0 val/p1.wav val/q1.wav\n" + test)
    [made] = _spoken(tmp_path, skip=True)
    assert [t.split for t in made.trials] == ["val", "val", "test", "test"]

    (tmp_path / "trials_test.txt").write_text("1 test/p1.wav test/p2.wav\n0 test/p1.wav test/q1.wav\n")
    with pytest.raises(UserError, match=r"trials_test\.txt: .*; it has 0 and 1 of them"):
        _spoken(tmp_path, skip=True)


def test_pairs_are_part_of_the_data() -> None:
    pairs = [("a", "b", True, "test"), ("a", "c", False, "test")]
    plain, hashes = data_digest(VOICES, "wxyz"), [*"wxyz"]
    assert data_digest(VOICES, hashes, []) == plain != data_digest(VOICES, hashes, pairs)
    assert data_digest(VOICES, hashes, pairs[::-1]) == data_digest(VOICES, hashes, pairs)
    assert data_digest(VOICES, hashes, [("a", "b", True, "val"), pairs[1]]) != data_digest(VOICES, hashes, pairs)
