"""Pairs of clips that a verification is judged by: the same speaker or not (torch-free).

Either a list that comes with the data, or pairs drawn here. N pairs.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from petl.errors import UserError, nearest
from trainables.data.clips import Clip
from trainables.data.datasets.base import Problems

PER_CLIP = 10
MOST = 25_000

_LOOKED_UP = 5  # problems with names for which the nearest one is sought: that takes milliseconds each
_MANY = 10_000

Positions = NDArray[np.int64]


@dataclass(frozen=True)
class Trial:
    """One line of a list: two clips by name, and whether one speaker is heard in both."""

    one: str
    other: str
    same: bool
    split: str = ""  # that the list is of


@dataclass(frozen=True)
class Pairs:
    """Positions of clips, and whether each pair is of one speaker; all (N,)."""

    one_N: Positions
    other_N: Positions
    same_N: NDArray[np.bool_]
    origin: str  # "drawn" or "listed"


def drawn(clips: Sequence[Clip]) -> Pairs:
    """Pairs by hashes of the clips' names: the same ones in whatever order the clips come.

    Clips are put round a circle in the order of their hashes, each beside the next, then beside the one after that,
    and so on: those of each speaker on a circle of their own for the pairs of one speaker, all of them on one for the
    others. Of either kind a clip is in `PER_CLIP` pairs (of different speakers: on average), and there are at most
    `MOST`. So there are as many of one kind as of the other wherever speakers have 11 clips or more; where they have
    fewer, all pairs of one speaker are taken, and more of the others, since rates of false acceptances far below 1 %
    decide about the detection cost.
    """
    keys = [_key(clip) for clip in clips]
    order = np.array(sorted(range(len(clips)), key=keys.__getitem__), dtype=np.int64)
    number = {label: i for i, label in enumerate(sorted({clip.label for clip in clips}))}
    speaker_B = np.array([number[clip.label] for clip in clips], dtype=np.int64)
    same = _same(order, speaker_B)
    different = _different(order, speaker_B)
    one_N, other_N = np.concatenate([same, different], axis=1)
    return Pairs(one_N, other_N, np.arange(len(one_N)) < same.shape[1], "drawn")


def listed(trials: Sequence[Trial], clips: Sequence[Clip]) -> Pairs:
    """Those of a list whose clips are both here."""
    place = {clip.name: i for i, clip in enumerate(clips)}
    rows = [(place[t.one], place[t.other], t.same) for t in trials if t.one in place and t.other in place]
    one_N, other_N, same_N = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    return Pairs(one_N, other_N, same_N.astype(bool), "listed")


def check_trials(clips: Sequence[Clip], split: str) -> None:
    """Raise `UserError` when no pairs of both kinds can be made of the clips of a split."""
    counts = Counter(clip.label for clip in clips)
    if len(counts) < 2 or max(counts.values()) < 2:
        raise UserError(
            f"voices cannot be compared on {split}: its {len(clips)} clips are of {len(counts)} "
            f"speaker{'' if len(counts) == 1 else 's'}; at least two speakers are needed, one of them with two clips"
        )


def read_trials(path: Path, names: Sequence[str], split: str = "") -> tuple[Trial, ...]:
    """Read a list as VoxCeleb has them: `1 one.wav other.wav` (0: two speakers), parted by tabs if names hold blanks.

    `names`: those of all clips of the data, whether they can be used or not, one for each. Raises `Problems` with every
    line that is wrong.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    uses = Counter(names)
    found: list[Trial] = []
    wrong: list[str] = []
    for row, line in enumerate(lines, 1):
        parts = [part.strip() for part in line.split("\t")] if "\t" in line else line.split()
        if not parts:
            continue
        if len(parts) != 3 or parts[0] not in ("0", "1"):
            wrong.append(f"row {row}: '{line[:80]}' is not of the form '1 one.wav other.wav', with 1 or 0")
            continue
        bad = [name for name in parts[1:] if uses[name] != 1]
        for name in bad:
            wrong.append(f"row {row}: {_unusable(name, uses, looked_up=len(wrong) < _LOOKED_UP)}")
        if not bad:
            found.append(Trial(parts[1], parts[2], parts[0] == "1", split))
    if wrong:
        raise Problems(path, wrong)
    check_kinds(found, path)
    return tuple(found)


def check_kinds(trials: Sequence[Trial], path: Path, which: str = "") -> None:
    """Raise `UserError` unless there are pairs of both kinds; `which` says of which of its pairs that is asked."""
    same = sum(trial.same for trial in trials)
    if not 0 < same < len(trials):
        raise UserError(
            f"{path}: it has to list both pairs of one speaker (1) and of two (0){which}; it has {same} and "
            f"{len(trials) - same} of them"
        )


def _unusable(name: str, uses: Counter[str], looked_up: bool) -> str:
    if uses[name]:
        return f"'{name}' is the file of {uses[name]} clips; which one is meant cannot be said here"
    return f"'{name}' is not a clip of the data{nearest(name, uses) if looked_up and len(uses) < _MANY else ''}"


def _key(clip: Clip) -> bytes:
    return hashlib.sha256(f"{clip.name}\0{clip.start}\0{clip.end}".encode()).digest()


def _same(order: Positions, speaker_B: Positions) -> Positions:
    """(2, N): the nearest neighbours on each speaker's circle, nearest first."""
    members: dict[int, list[int]] = defaultdict(list)
    for i in order.tolist():
        members[int(speaker_B[i])].append(i)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    found = [
        (step, int(rank[one]), one, other)
        for circle in members.values()
        for step in range(1, min(PER_CLIP // 2, len(circle) // 2) + 1)
        for one, other in _neighbours(np.array(circle), step).T.tolist()
    ]
    pairs = [(one, other) for _, _, one, other in sorted(found)[:MOST]]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2).T


def _different(order: Positions, speaker_B: Positions) -> Positions:
    """(2, N): neighbours of different speakers on the circle of all clips, nearest first."""
    wanted = min(MOST, PER_CLIP * len(order) // 2)
    found: list[Positions] = [np.zeros((2, 0), dtype=np.int64)]
    many = 0
    for step in range(1, len(order) // 2 + 1):
        if many >= wanted:
            break
        pairs = _neighbours(order, step)
        found.append(pairs[:, speaker_B[pairs[0]] != speaker_B[pairs[1]]])
        many += found[-1].shape[1]
    return np.concatenate(found, axis=1)[:, :wanted]


def _neighbours(circle: Positions, step: int) -> Positions:
    """(2, N): everyone and who stands `step` places on, each pair once (`step` is half the circle at most)."""
    pairs = np.stack([circle, np.roll(circle, -step)])
    return pairs[:, : step if 2 * step == len(circle) else len(circle)]
