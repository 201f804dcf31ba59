"""Slots marked in a transcript: `play B-artist daft punk E-artist on B-service deezer E-service` (Audio SNIPS).

A span is `B-<type> <text> E-<same type>`, with markers that are words of their own; it ends at the first such end. A
beginning without its end is no span, and neither is one without text. Markers inside a value belong to no span and are
not part of the value. SURE's code (after SUPERB's) differs in two details: an end marker need only begin with the type
(`E-city_name` ends `B-city`), and only hypotheses are freed from inner markers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np

from trainables.metrics.words import characters_of, edits

_SPAN = re.compile(r"(?<!\S)B-(\S+) (.+?) E-\1(?!\S)")
_MARKER = re.compile(r"[BE]-\S+")


def slot_spans(text: str) -> dict[str, list[str]]:
    """Slot type -> its values in the order of the text; runs of white space count as one space."""
    found: dict[str, list[str]] = {}
    for kind, inside in _SPAN.findall(" ".join(text.split())):
        value = " ".join(word for word in inside.split() if not _MARKER.fullmatch(word))
        found.setdefault(kind, []).append(value)
    return found


def slot_filling(references: Sequence[str], hypotheses: Sequence[str]) -> dict[str, float]:
    """slot_type_f1 and slot_value_cer of marked transcripts.

    slot_type_f1 is the mean over the utterances of the F1 of the set of slot types (1 where both sets are empty).
    slot_value_cer is the total edit distance over the total characters of all reference values, each against the
    nearest hypothesis value of its type ('' if there is none); a hypothesis value may serve several references, and
    superfluous ones cost nothing. NaN without utterances, and for slot_value_cer without reference values.

    Raises:
        ValueError: when there are not as many hypotheses as references.
    """
    pairs = [(slot_spans(r), slot_spans(h)) for r, h in zip(references, hypotheses, strict=True)]
    return {
        "slot_type_f1": float(np.mean([_type_f1(set(r), set(h)) for r, h in pairs])) if pairs else math.nan,
        "slot_value_cer": _value_error_rate(pairs),
    }


def _type_f1(reference: set[str], hypothesis: set[str]) -> float:
    total = len(reference) + len(hypothesis)
    return 2 * len(reference & hypothesis) / total if total else 1.0


def _value_error_rate(pairs: Sequence[tuple[dict[str, list[str]], dict[str, list[str]]]]) -> float:
    wanted: list[str] = []  # a reference value, once for each candidate
    offered: list[str] = []
    firsts: list[int] = []  # where the candidates of each reference value begin
    for reference, hypothesis in pairs:
        for kind, values in reference.items():
            candidates = hypothesis.get(kind, [""])
            for value in values:
                firsts.append(len(wanted))
                wanted += [value] * len(candidates)
                offered += candidates
    if not firsts:
        return math.nan
    distances, lengths = edits([characters_of(v) for v in wanted], [characters_of(v) for v in offered])
    characters = int(lengths[firsts].sum())
    return float(np.minimum.reduceat(distances, firsts).sum() / characters) if characters else math.nan
