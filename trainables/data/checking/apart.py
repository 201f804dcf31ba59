"""Whether splits are apart: copies of recordings, overlapping parts, recordings and voices in two of them (torch-free).

A part is where a clip counts: its fold, where folds are what is held out, else its split.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

from trainables.data.checking.findings import Findings, Severity
from trainables.data.clips import SPLITS, Clip
from trainables.data.datasets import Target
from trainables.data.planning import DataPlan


def parts_of(clips: Sequence[Clip], plans: Sequence[DataPlan]) -> list[str]:
    """The part of every clip; "" where it is in none."""
    if len(plans) > 1 or not plans:
        return [f"fold {clip.fold}" if clip.fold is not None else clip.split or "" for clip in clips]
    parts = [""] * len(clips)
    for split in reversed(SPLITS):  # a clip that validates and tests, as some protocols have it, is in val here
        for i in plans[0].splits.of(split):
            parts[i] = split
    return parts


def copies(found: Findings, clips: Sequence[Clip], parts: Sequence[str], contents: Mapping[int, str]) -> None:
    """Clips whose bytes are those of another one; `contents`: hash of the file of each clip that could be read."""
    same: dict[Hashable, list[int]] = defaultdict(list)
    for i, content in contents.items():
        same[content, clips[i].start or 0.0, clips[i].end].append(i)
    across, other, within = [], [], []
    for ids in same.values():
        if len(ids) < 2:
            continue
        names = " = ".join(f"{clips[i].title}{_in(parts[i])}" for i in ids[:4]) + (" = …" if len(ids) > 4 else "")
        answers = {(clips[i].classes, clips[i].text) for i in ids}
        if len(answers) > 1:
            told = " | ".join(sorted({clips[i].text or ", ".join(clips[i].classes) for i in ids}))
            other.append(f"{names}: {told}")
        if len({parts[i] for i in ids} - {""}) > 1:
            across.append(names)
        elif len(answers) == 1:
            within.append(names)
    if across:
        said = "the same bytes in two parts: scores on them mean little; keep one, or keep them together"
        found.add("warning", "copies_across", said, across)
    if other:
        found.add("warning", "copies_differ", "the same bytes with different answers; keep the right one", other)
    if within:
        found.add("note", "copies", "the same bytes more than once; keep one", within)


def overlaps(found: Findings, clips: Sequence[Clip], parts: Sequence[str]) -> None:
    """Parts of one recording that overlap, of which one trains and another one tests."""
    cut = {clip.path for clip in clips if clip.start is not None or clip.end is not None}
    of_file: dict[Path, list[int]] = defaultdict(list)
    for i, clip in enumerate(clips):
        if clip.path in cut and parts[i]:
            of_file[clip.path].append(i)

    def end(i: int) -> float:
        last = clips[i].end
        return math.inf if last is None else last

    pairs = []
    for ids in of_file.values():
        latest: dict[str, int] = {}  # part -> the clip of those before that ends last
        for right in sorted(ids, key=lambda i: clips[i].start or 0.0):
            for part, left in latest.items():
                if part != parts[right] and (clips[right].start or 0.0) < end(left):
                    pairs.append(" and ".join(f"{clips[i].title}{_in(parts[i])}" for i in (left, right)))
            before = latest.get(parts[right])
            if before is None or end(before) < end(right):
                latest[parts[right]] = right
    if pairs:
        found.add("warning", "overlaps", "the same seconds of a recording in two parts; keep them together", pairs)


def leaks(found: Findings, clips: Sequence[Clip], parts: Sequence[str], target: Target, protocol: str) -> None:
    """Recordings, and voices where they should be others, that are in two parts."""
    severity: Severity = "warning" if protocol == "standard" else "note"
    published = "" if protocol == "standard" else f", as protocol '{protocol}' has it"
    speakers = [_speaker(clip, target) for clip in clips]
    groups = [clip.group for clip in clips]
    if groups != speakers:
        shared = _shared(groups, parts)
        if shared:
            said = f"clips of one recording (group) in two parts{published}: scores are too good; keep them together"
            found.add(severity, "groups_across", said, shared)
    by_speaker = target.task == "classification" and all(clip.label == clip.speaker for clip in clips)
    if not target.speakers_recur and not by_speaker:
        shared = _shared(speakers, parts)
        if shared:
            said = f"speakers in two parts{published}: scores are too good for voices that are new; keep them together"
            found.add(severity, "speakers_across", said, shared)


def _speaker(clip: Clip, target: Target) -> str | None:
    return clip.speaker or (clip.label if target.task == "verification" else None)


def _shared(names: Sequence[str | None], parts: Sequence[str]) -> list[str]:
    held: dict[str, dict[str, int]] = defaultdict(dict)
    for name, part in zip(names, parts, strict=True):
        if name is not None and part:
            held[name][part] = held[name].get(part, 0) + 1
    return [
        f"'{name}': " + ", ".join(f"{count} in {part}" for part, count in sorted(counts.items()))
        for name, counts in sorted(held.items())
        if len(counts) > 1
    ]


def _in(part: str) -> str:
    return f" ({part})" if part else ""
