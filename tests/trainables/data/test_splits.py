"""Splits: disjoint, whole, stratified, with groups intact, and the same wherever and in whatever order."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables.config import DataOptions
from trainables.data import SPLITS, Clip, SplitError, Splits, split_clips
from trainables.data.datasets.protocols import petl_ast


def _clip(number: int, label: str, group: str | None = None, **more: object) -> Clip:
    name = f"{label}/{number:03d}.wav"
    return Clip(path=Path(name), name=name, label=label, group=group, **more)  # type: ignore[arg-type]


def _options(**more: object) -> DataOptions:
    return DataOptions(dataset="folder", path="x", **more)  # type: ignore[arg-type]


def _labels(clips: list[Clip], part: tuple[int, ...]) -> Counter[str]:
    return Counter(clips[i].label for i in part)


def _names(clips: list[Clip], splits: Splits) -> dict[str, set[str]]:
    return {name: {clips[i].name for i in splits.of(name)} for name in SPLITS}


def _check_partition(clips: list[Clip], splits: Splits) -> None:
    everything = [i for name in SPLITS for i in splits.of(name)]
    assert sorted(everything) == list(range(len(clips)))
    for name in SPLITS:
        assert list(splits.of(name)) == sorted(splits.of(name))


class_sizes = st.lists(st.integers(3, 40), min_size=2, max_size=6)
fractions = st.floats(0.05, 0.45)


@settings(max_examples=60, deadline=None)
@given(sizes=class_sizes, val=fractions, test=fractions, seed=st.integers(0, 9), data=st.data())
def test_drawn_splits(sizes: list[int], val: float, test: float, seed: int, data: st.DataObject) -> None:
    clips = [_clip(i, f"k{c}") for c, size in enumerate(sizes) for i in range(size)]
    options = _options(val_fraction=val, test_fraction=test, split_seed=seed)
    splits = split_clips(clips, options)
    _check_partition(clips, splits)
    for c, size in enumerate(sizes):
        label = f"k{c}"
        train, n_val, n_test = (_labels(clips, splits.of(name))[label] for name in SPLITS)
        # Exact, unless the class is too small to leave one clip for every split.
        assert n_test == min(max(1, round(test * size)), size - 2)
        assert n_val == min(max(1, round(val * size)), size - n_test - 1)
        assert train >= 1
    shuffled = data.draw(st.permutations(clips))
    assert _names(shuffled, split_clips(shuffled, options)) == _names(clips, splits)


@settings(max_examples=60, deadline=None)
@given(
    groups=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 5)), min_size=12, max_size=40),
    val=fractions,
    seed=st.integers(0, 5),
    data=st.data(),
)
def test_groups_never_part(groups: list[tuple[int, int]], val: float, seed: int, data: st.DataObject) -> None:
    groups = [(0, 1), (0, 2), (0, 1), (1, 1), (1, 2), (1, 1), (2, 1), (2, 2), (2, 1), *groups]
    clips = [
        _clip(10 * g + i, f"k{label}", group=f"g{g}") for g, (label, size) in enumerate(groups) for i in range(size)
    ]
    options = _options(val_fraction=val, split_seed=seed)
    splits = split_clips(clips, options)
    _check_partition(clips, splits)
    where = defaultdict(set)
    for name in SPLITS:
        for i in splits.of(name):
            where[clips[i].group].add(name)
        assert set(_labels(clips, splits.of(name))) == {"k0", "k1", "k2"}
    assert all(len(names) == 1 for names in where.values())
    counts = Counter(clip.label for clip in clips)
    for label, count in counts.items():
        assert abs(_labels(clips, splits.test)[label] - 0.2 * count) <= 5  # the largest group
    shuffled = data.draw(st.permutations(clips))
    assert _names(shuffled, split_clips(shuffled, options)) == _names(clips, splits)


def test_groups_that_span_classes_stay_whole() -> None:
    clips = [_clip(10 * g + c, f"k{c}", group=f"g{g}") for g in range(10) for c in range(3)]
    splits = split_clips(clips, _options())
    for name in SPLITS:
        assert len({clips[i].group for i in splits.of(name)}) * 3 == len(splits.of(name))
    assert [len(splits.of(name)) for name in SPLITS] == [18, 6, 6]


def test_another_seed_is_another_split_and_another_class_changes_nothing() -> None:
    clips = [_clip(i, f"k{c}") for c in range(2) for i in range(20)]
    splits = split_clips(clips, _options())
    assert split_clips(clips, _options(split_seed=1)).test != splits.test
    more = [*clips, *(_clip(i, "k9") for i in range(8))]
    wider = split_clips(more, _options())
    assert [i for i in wider.test if i < 40] == list(splits.test)


def test_the_hash_seed_of_python_does_not_matter() -> None:
    code = (
        "from tests.trainables.data.test_splits import _clip, _options\n"
        "from trainables.data import split_clips\n"
        "clips = [_clip(i, f'k{c}', group=f'g{i // 2}{c}') for c in range(3) for i in range(12)]\n"
        "print(split_clips(clips, _options()))"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parents[3],
        ).stdout
        for seed in ("1", "2")
    }
    assert len(printed) == 1


# folds


def _folded(folds: int = 5, per_class: int = 8) -> list[Clip]:
    return [
        _clip(100 * f + i, f"k{c}", group=f"{f}-{c}-{i // 2}", fold=f)
        for f in range(1, folds + 1)
        for c in range(3)
        for i in range(per_class)
    ]


@pytest.mark.parametrize("fold", [1, 3, 5])
def test_standard_protocol(fold: int) -> None:
    clips = _folded()
    splits = split_clips(clips, _options(fold=fold))
    _check_partition(clips, splits)
    assert {clips[i].fold for i in splits.test} == {fold}
    assert len(splits.test) == 24
    assert all(abs(count - 0.2 * 32) <= 1 for count in _labels(clips, splits.val).values())
    assert not {clips[i].group for i in splits.val} & {clips[i].group for i in splits.train}
    assert f"test on fold {fold}" in splits.protocol


def test_petl_ast_protocol_is_the_published_rotation() -> None:
    clips = _folded()
    runs = []
    for fold in range(1, 6):
        splits = split_clips(clips, _options(fold=fold, protocol="petl_ast"), split=petl_ast)
        _check_partition(clips, splits)
        folds = [sorted({clips[i].fold or 0 for i in splits.of(name)}) for name in SPLITS]
        runs.append(tuple(map(tuple, folds)))
    assert runs == [
        ((2, 3, 4), (5,), (1,)),
        ((3, 4, 5), (1,), (2,)),
        ((1, 4, 5), (2,), (3,)),
        ((1, 2, 5), (3,), (4,)),
        ((1, 2, 3), (4,), (5,)),
    ]


# given splits


def _given(**counts: int) -> list[Clip]:
    return [_clip(i, f"k{c}", split=s) for s, n in counts.items() for c in range(2) for i in range(n)]


def test_given_splits_are_used_as_they_are() -> None:
    clips = _given(train=5, val=2, test=3)
    splits = split_clips(clips, _options())
    assert all(clips[i].split == name for name in SPLITS for i in splits.of(name))


def test_a_missing_val_is_cut_from_train() -> None:
    clips = [replace(c, name=f"{c.split}/{c.name}") for c in _given(train=10, test=3)]
    splits = split_clips(clips, _options(val_fraction=0.3))
    _check_partition(clips, splits)
    assert {clips[i].split for i in splits.val} == {"train"}
    assert _labels(clips, splits.val) == {"k0": 3, "k1": 3}
    assert len(splits.test) == 6


# what cannot be


@pytest.mark.parametrize(
    ("clips", "options", "said"),
    [
        (_folded(), {"fold": 6}, "fold 6 (data.fold) is out of range: the data have folds 1, 2, 3, 4, 5"),
        (_folded(2), {"protocol": "petl_ast"}, "needs at least 3 folds; the data have 2"),
        (_given(train=3, test=3), {"protocol": "petl_ast"}, "protocol 'petl_ast' needs folds"),
        (_given(train=3, val=3), {}, "no clip is in 'test' (found: train (6), val (6))"),
        (_given(val=3, test=3), {}, "no clip is in 'train'"),
        ([_clip(i, "a") for i in range(9)], {}, "the data have 1 class ('a'); at least 2"),
        ([], {}, "no clips that can be used"),
        (
            [_clip(i, k) for k, n in (("a", 9), ("b", 2)) for i in range(n)],
            {},
            "too few clips to be in train, val and test: class 'b' has 2 clips; each class needs at least 3",
        ),
        (
            [_clip(i, k, group=f"{k}{i // 4}") for k in "ab" for i in range(8)],
            {},
            "class 'a' has 8 clips from 2 source recordings, 'b' has 8 clips from 2 source recordings",
        ),
        (
            [*_given(train=4, test=2), _clip(0, "z", split="train")],
            {},
            "too few clips to be in train and val: class 'z' has 1 clip; each class needs at least 2",
        ),
        (
            [*_given(train=4, val=2, test=2), _clip(0, "z", split="test")],
            {},
            "class 'z' is in test (z/000.wav) but has 0 clips in train",
        ),
        (
            [*_folded(), _clip(0, "z", fold=1)],
            {"protocol": "petl_ast"},
            "class 'z' is in test (z/000.wav) but has 0 clips in train",
        ),
    ],
)
def test_what_cannot_be_split(clips: list[Clip], options: dict[str, object], said: str) -> None:
    with pytest.raises(SplitError) as caught:
        rule = petl_ast if options.get("protocol") == "petl_ast" else None
        split_clips(clips, _options(**options), split=rule)
    assert said in str(caught.value)


def test_there_are_three_splits() -> None:
    with pytest.raises(SplitError, match="there is no split 'validation'; the splits are train, val, test"):
        split_clips(_folded(), _options()).of("validation")
