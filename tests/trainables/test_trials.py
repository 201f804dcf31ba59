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
from trainables.data.clips import Clip
from trainables.data.datasets.base import Problems
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
    trials = read_trials(path, clips)
    assert trials == (Trial("a", "b", True), Trial("a", "c", False), Trial("my own.wav", "d", False))
    assert _names(VOICES, listed(trials, VOICES)) == [("a", "b", True), ("a", "c", False)]
    assert len(listed(trials, []).same_N) == 0


def test_lists_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "trials_test.txt"
    parts = [_clip("part", "p3", start=0.0, end=1.0), _clip("part", "p3", start=1.0, end=2.0)]
    path.write_text("1 a b\n2 a b\n0 a\n0 aa c\n0 part a\n")
    with pytest.raises(Problems, match="4 problems") as caught:
        read_trials(path, [*VOICES, *parts])
    for words in ("row 2: '2 a b'", "row 3", "row 4: 'aa' is not a clip", "row 5: 'part' is the file of 2 clips"):
        assert words in str(caught.value)
    path.write_text("1 a b\n")
    with pytest.raises(UserError, match="both pairs of one speaker"):
        read_trials(path, VOICES)
    with pytest.raises(UserError, match="cannot be read"):
        read_trials(tmp_path / "none.txt", VOICES)
