"""Which clips train, which validate, which test (torch-free).

Every draw is a pure function of the clips' own names, labels and groups and of `split_seed`: candidates are
put in the order of a hash, so that neither directory order, nor Python's hash seed, nor a random generator's
version can change a split, and so that one more class leaves the draws of the others as they are.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from petl.errors import UserError
from trainables.config import DataOptions
from trainables.data.clips import SPLITS, Clip

if TYPE_CHECKING:
    from trainables.data.datasets.base import Splitter


class SplitError(UserError):
    """The clips cannot be split as asked."""


@dataclass(frozen=True)
class Splits:
    """Positions of the clips of each split, ascending, and one sentence that says how they came about."""

    train: tuple[int, ...]
    val: tuple[int, ...]
    test: tuple[int, ...]
    protocol: str
    reads_test: bool = False  # epochs are chosen on clips of the test, as published: scores are too good

    @classmethod
    def of_parts(cls, *, train: Sequence[int], val: Sequence[int], test: Sequence[int], protocol: str) -> Splits:
        """From positions in any order."""
        return cls(tuple(sorted(train)), tuple(sorted(val)), tuple(sorted(test)), protocol)

    def of(self, name: str) -> tuple[int, ...]:
        if name not in SPLITS:
            raise SplitError(f"there is no split '{name}'; the splits are {', '.join(SPLITS)}")
        return getattr(self, name)


def split_clips(
    clips: Sequence[Clip], options: DataOptions, *, task: str = "classification", split: Splitter | None = None
) -> Splits:
    """Assign every clip to train, val or test.

    By `split`, where the protocol has a rule of its own. Otherwise given splits are used as they are (a missing val is
    cut from train), folds with `options.fold` held out for the test, and without either, test and val are drawn from
    all clips. Parts that are drawn are stratified by class and never part the clips of a group. With `options.shots`
    only so many training clips of every class remain, those of draw `options.draw`. Raises `SplitError` when a fold or
    split is not there, or a class cannot be in every split.
    """
    if not clips:
        raise SplitError("there are no clips that can be used")
    classes = {name for clip in clips for name in clip.classes}
    if task in ("classification", "tagging", "verification") and len(classes) < 2:
        raise SplitError(
            f"the data have {len(classes)} class{'' if len(classes) == 1 else 'es'}"
            f"{''.join(f' ({name!r})' for name in classes)}; at least 2 are needed to learn anything"
        )
    if split is not None:
        splits = split(clips, options)
    elif clips[0].split is not None:
        splits = _given(clips, options)
    elif clips[0].fold is not None:
        splits = _folds(clips, options)
    else:
        splits = _drawn(clips, options)
    _check(clips, splits, task)
    return splits if options.shots is None else _few(clips, splits, options)


def folds_of(clips: Sequence[Clip]) -> list[int]:
    """The folds of the data, ascending."""
    return sorted({clip.fold for clip in clips if clip.fold is not None})


def held_out_fold(clips: Sequence[Clip], options: DataOptions) -> int:
    """The fold for the test; `SplitError` when the data do not have it."""
    folds = folds_of(clips)
    if not folds:
        raise SplitError(f"protocol '{options.protocol}' needs folds, and these data have none; use 'standard'")
    if options.fold not in folds:
        raise SplitError(
            f"fold {options.fold} (data.fold) is out of range: the data have folds {', '.join(map(str, folds))}"
        )
    assert isinstance(options.fold, int)
    return options.fold


def cut_validation(clips: Sequence[Clip], pool: Sequence[int], options: DataOptions) -> tuple[list[int], list[int]]:
    """Part the clips at `pool` into (`options.val_fraction` of every class for the validation, the rest).

    Groups stay whole, and every class keeps a clip in both parts.
    """
    return _cut(clips, pool, _targets(clips, pool, options.val_fraction), "val", 1, options.split_seed)


def all_for_test(clips: Sequence[Clip]) -> Splits:
    """Every clip in test, for a model that is trained already: no class is too small then."""
    if not clips:
        raise SplitError("there are no clips that can be used")
    return Splits((), (), tuple(range(len(clips))), "all clips, for evaluation")


def _given(clips: Sequence[Clip], options: DataOptions) -> Splits:
    parts = {name: [i for i, clip in enumerate(clips) if clip.split == name] for name in SPLITS}
    for name in ("train", "test"):
        if not parts[name]:
            found = ", ".join(f"{part} ({len(ids)})" for part, ids in parts.items() if ids)
            raise SplitError(
                f"the data give splits, but no clip is in '{name}' (found: {found}). "
                f"Add clips to {name}, or give no splits at all to have all three drawn"
            )
    if parts["val"]:
        return _splits(parts["train"], parts["val"], parts["test"], "given train, val and test splits")
    val, train = cut_validation(clips, parts["train"], options)
    return _splits(
        train,
        val,
        parts["test"],
        f"given train and test splits; val is {options.val_fraction:g} of train (split_seed {options.split_seed})",
    )


def _folds(clips: Sequence[Clip], options: DataOptions) -> Splits:
    folds, fold = folds_of(clips), held_out_fold(clips, options)
    if len(folds) < 2:
        raise SplitError(f"protocol '{options.protocol}' needs at least 2 folds; the data have {len(folds)}")
    rest = [i for i, clip in enumerate(clips) if clip.fold != fold]
    val, train = cut_validation(clips, rest, options)
    return _splits(
        train,
        val,
        [i for i, clip in enumerate(clips) if clip.fold == fold],
        f"standard: test on fold {fold}; val is {options.val_fraction:g} of the other "
        f"{len(folds) - 1} folds (split_seed {options.split_seed})",
    )


def _drawn(clips: Sequence[Clip], options: DataOptions) -> Splits:
    everything = list(range(len(clips)))
    for_test = _targets(clips, everything, options.test_fraction)
    for_val = _targets(clips, everything, options.val_fraction)  # both fractions are of all clips
    test, rest = _cut(clips, everything, for_test, "test", 2, options.split_seed)
    val, train = _cut(clips, rest, for_val, "val", 1, options.split_seed)
    return _splits(
        train,
        val,
        test,
        f"drawn per class: test {options.test_fraction:g}, val {options.val_fraction:g} of all clips "
        f"(split_seed {options.split_seed})",
    )


def _splits(train: Sequence[int], val: Sequence[int], test: Sequence[int], protocol: str) -> Splits:
    return Splits.of_parts(train=train, val=val, test=test, protocol=protocol)


def _few(clips: Sequence[Clip], splits: Splits, options: DataOptions) -> Splits:
    """`options.shots` training clips of every class, those that a hash of seed, draw and clip puts first.

    The published few-shot runs took the first clips in file order, the same ones every time.
    """
    assert options.shots is not None
    if any(clip.classes != (clip.label,) for clip in clips):
        raise SplitError("data.shots counts clips per class, and these clips do not have one class each; leave it out")
    order = sorted(
        splits.train, key=lambda i: _draw(options.split_seed, "shots", str(options.draw), f"{clips[i].order}")
    )
    taken: Counter[str] = Counter()
    train = []
    for i in order:
        if taken[clips[i].label] < options.shots:
            taken[clips[i].label] += 1
            train.append(i)
    short = sorted(label for label, count in taken.items() if count < options.shots)
    if short:
        listed = ", ".join(f"'{label}' has {taken[label]}" for label in short[:10])
        more = f" (and {len(short) - 10} more classes)" if len(short) > 10 else ""
        raise SplitError(
            f"data.shots is {options.shots}, but class {listed}{more} to train on; use fewer, or add clips"
        )
    words = f"{splits.protocol}; {options.shots} training clips per class, draw {options.draw}"
    return replace(splits, train=tuple(sorted(train)), protocol=words)


def _targets(clips: Sequence[Clip], pool: Sequence[int], fraction: float) -> dict[str, int]:
    """Clips of every class that are `fraction` of those in `pool`: at least one."""
    counts = Counter(name for i in pool for name in _strata(clips[i]))
    return {label: max(1, round(fraction * count)) for label, count in counts.items()}


def _strata(clip: Clip) -> tuple[str, ...]:
    """What clips are drawn evenly by: their classes; all alike where nothing is classified."""
    return clip.classes or ("",)


def _cut(
    clips: Sequence[Clip],
    pool: Sequence[int],
    target: dict[str, int],
    name: str,
    leave: int,
    seed: int,
) -> tuple[list[int], list[int]]:
    """Part `pool` into (`target` clips of every class, as nearly as groups allow; the rest).

    Every class gets at least one clip in the part and keeps at least `leave` groups in the rest.
    """
    units = _units(clips, pool)
    holding: dict[str, int] = defaultdict(int)  # class -> units that hold it
    for unit in units:
        for label in unit.labels:
            holding[label] += 1
    single = _enough(clips, pool, holding, name, leave)
    taken: Counter[str] = Counter()
    part: list[_Unit] = []

    def spare(unit: _Unit) -> bool:
        return all(holding[label] > leave for label in unit.labels)

    def take(unit: _Unit) -> None:
        part.append(unit)
        taken.update(unit.labels)
        for label in unit.labels:
            holding[label] -= 1

    ordered = sorted(units, key=lambda unit: _draw(seed, name, unit.key))
    for unit in ordered:
        gain = sum(
            abs(target[label] - taken[label]) - abs(target[label] - taken[label] - count)
            for label, count in unit.labels.items()
        )
        if gain > 0 and spare(unit):
            take(unit)
    for label in sorted(target):
        if not taken[label] and label in single:  # its groups are all larger than the target: the smallest has to do
            able = [u for u in ordered if label in u.labels and u not in part and spare(u)]
            if not able:
                raise SplitError(
                    f"class '{label}': no source recording can go to {name} without emptying another class's "
                    "train part; give the splits in the data, or fewer groups that span classes"
                )
            take(min(able, key=lambda unit: sum(unit.labels.values())))
    chosen = {i for unit in part for i in unit.indices}
    return sorted(chosen), [i for i in pool if i not in chosen]


@dataclass(frozen=True, eq=False)
class _Unit:
    """Clips that stay together: a group, or one clip."""

    key: str
    indices: tuple[int, ...]
    labels: Counter[str]


def _units(clips: Sequence[Clip], pool: Sequence[int]) -> list[_Unit]:
    members: dict[str, list[int]] = defaultdict(list)
    for i in pool:
        clip = clips[i]
        members[f"clip {clip.order}" if clip.group is None else f"group {clip.group}"].append(i)
    return [_Unit(key, tuple(ids), Counter(n for i in ids for n in _strata(clips[i]))) for key, ids in members.items()]


def _enough(clips: Sequence[Clip], pool: Sequence[int], holding: dict[str, int], name: str, leave: int) -> set[str]:
    """Refuse classes with too few clips to be in every part; those that must be in every part."""
    needed = leave + 1
    # Only where a clip has one class: rare tags are nobody's mistake.
    single = {clips[i].label for i in pool if clips[i].classes == (clips[i].label,)}
    short = sorted(label for label, units in holding.items() if units < needed and label in single)
    if not short:
        return single
    counts = Counter(name for i in pool for name in _strata(clips[i]))
    parts = "train, val and test" if leave == 2 else f"train and {name}"
    found = ", ".join(f"'{label}' has {_having(counts[label], holding[label])}" for label in short[:10])
    more = f" (and {len(short) - 10} more classes)" if len(short) > 10 else ""
    raise SplitError(
        f"too few clips to be in {parts}: class {found}{more}; each class needs at least {needed} "
        "(from different source recordings where these are known). Add clips or remove the class"
    )


def _having(clips: int, units: int) -> str:
    text = f"{clips} clip{'' if clips == 1 else 's'}"
    return text if clips == units else f"{text} from {units} source recording{'' if units == 1 else 's'}"


def _check(clips: Sequence[Clip], splits: Splits, task: str) -> None:
    """What no split may lack, however it came about."""
    for name in SPLITS:
        if not splits.of(name):
            raise SplitError(f"no clip is left in split '{name}' ({splits.protocol})")
    if task == "verification":  # speakers that nobody has trained on are what it is about
        return
    learned = {name for i in splits.train for name in _names(clips[i], task)}
    missing: dict[tuple[str, str], tuple[Clip, int]] = {}
    for split in ("val", "test"):
        for i in splits.of(split):
            for name in _names(clips[i], task):
                if name not in learned:
                    first, count = missing.get((name, split), (clips[i], 0))
                    missing[name, split] = (first, count + 1)
    if missing:
        listed = [
            f"class '{name}' is in {split} ({clip.title}{f' and {count - 1} more' if count > 1 else ''}) "
            "but has 0 clips in train; at least 1 is needed"
            for (name, split), (clip, count) in missing.items()
        ]
        raise SplitError("\n".join(listed))


def _names(clip: Clip, task: str) -> tuple[str, ...]:
    """The classes of a clip as messages call them; a value of a slot is learned in that slot only."""
    if task != "slots":
        return clip.classes
    return tuple(f"{value} (slot {number})" for number, value in enumerate(clip.labels, 1))


def _draw(seed: int, *words: str) -> bytes:
    """Random but repeatable sort key."""
    return hashlib.sha256("\0".join((str(seed), *words)).encode()).digest()
