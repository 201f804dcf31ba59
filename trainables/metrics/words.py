"""Text and phones against references: edits over reference length, summed over the corpus (V vocabulary).

A rate is total edits / total reference length, not a mean of rates; it may exceed 1. An empty reference adds no length,
but what was heard in it counts as insertions. If no reference has any length, the rate is the number of insertions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


def error_rates(references: Sequence[str], hypotheses: Sequence[str]) -> dict[str, float]:
    """wer and cer. Runs of white space count as one space, which is a character; letter case and marks count."""
    return {
        "wer": _rate(*edits([words_of(r) for r in references], [words_of(h) for h in hypotheses])),
        "cer": _rate(*edits([characters_of(r) for r in references], [characters_of(h) for h in hypotheses])),
    }


def phones(references: Sequence[Sequence[str]], hypotheses: Sequence[Sequence[str]]) -> dict[str, float]:
    """per of sequences of phone names. Hypotheses come from `collapsed`; SURE's code keeps the repeats."""
    return {"per": _rate(*edits(references, hypotheses))}


def collapsed(ids: Sequence[int] | Tensor, blank: int) -> list[int]:
    """The labels a path of CTC stands for: repeats become one, then blanks are dropped (Graves et al. 2006, eq. 1)."""
    path: Sequence[int] = ids.tolist() if isinstance(ids, Tensor) else ids
    return [int(label) for label, _ in groupby(path) if label != blank]


def edits(
    references: Sequence[Sequence[str]], hypotheses: Sequence[Sequence[str]]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Fewest substitutions, deletions and insertions for each pair, and the length of each reference; both (B,).

    The distance is rapidfuzz's, which jiwer counts with as well (the tests compare them); without its alignments it
    takes a twentieth of the time.

    Raises:
        ValueError: when there are not as many hypotheses as references.
    """
    from rapidfuzz.distance import Levenshtein

    if len(references) != len(hypotheses):
        raise ValueError(f"{len(references)} references and {len(hypotheses)} hypotheses; there must be one for each")
    counts = [Levenshtein.distance(list(r), list(h)) for r, h in zip(references, hypotheses, strict=True)]
    return np.array(counts, dtype=np.int64), np.array([len(r) for r in references], dtype=np.int64)


def words_of(text: str) -> list[str]:
    """Split at white space."""
    return text.split()


def characters_of(text: str) -> list[str]:
    """Characters, with one space between words and none around them."""
    return list(" ".join(text.split()))


def _rate(edits_B: NDArray[np.int64], lengths_B: NDArray[np.int64]) -> float:
    if not len(edits_B):
        return math.nan
    return float(edits_B.sum() / max(int(lengths_B.sum()), 1))
