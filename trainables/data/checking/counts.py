"""Whether a copy is whole: published figures, classes, folds, names of labels (torch-free)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from trainables.data.checking.findings import Findings, many
from trainables.data.clips import SPLITS, Clip
from trainables.data.datasets import Choice, Dataset, Expected
from trainables.data.planning import DataPlan

_UNEVEN = 5.0  # times as many clips in the largest class as in the smallest


def figures(found: Findings, known: Dataset, choice: Choice, clips: Sequence[Clip]) -> None:
    """Compare with the published figures of the target and subset, where there are any."""
    fitting = [e for e in known.expected if e.target in ("", choice.target)]
    for expected in fitting:
        if expected.subset not in ("", choice.subset):
            continue
        differences = _differences(expected, clips)
        if differences:
            others = [e.subset for e in fitting if e.subset != expected.subset and not _differences(e, clips)]
            hint = f". These are the figures of subset '{others[0]}': --subset {others[0]}" if others else ""
            subset = f" ({choice.subset})" if choice.subset else ""
            said = f"not the figures of a whole copy of {known.name}{subset}; published: {expected.source}{hint}"
            found.add("warning", "figures", said, differences)


def _differences(expected: Expected, clips: Sequence[Clip]) -> list[str]:
    splits = Counter(clip.split for clip in clips if clip.split is not None)
    folds = Counter(clip.fold for clip in clips if clip.fold is not None)
    pairs: list[tuple[str, int, int | None]] = [
        ("clips", len(clips), expected.clips),
        ("classes", len({name for clip in clips for name in clip.classes}), expected.classes),
        *((f"clips in {name}", splits[name], count) for name, count in expected.splits.items() if splits),
        *((f"clips in fold {fold}", folds[fold], count) for fold, count in expected.folds.items() if folds),
    ]
    return [f"{have:,} {what}; there should be {want:,}" for what, have, want in pairs if want not in (None, have)]


def folds(found: Findings, clips: Sequence[Clip]) -> dict[str, int]:
    """Folds without clips, and classes without clips in a fold; gives the clips of every fold."""
    counts = Counter(clip.fold for clip in clips if clip.fold is not None)
    if not counts:
        return {}
    gaps = [(before + 1, after - 1) for before, after in pairwise([0, *sorted(counts)]) if after - before > 1]
    if gaps:
        listed = [f"fold {first}" if first == last else f"folds {first} to {last}" for first, last in gaps]
        found.add("warning", "folds", "folds that no clip is in", listed, sum(b - a + 1 for a, b in gaps))
    return {str(fold): counts[fold] for fold in sorted(counts)}


def classes(found: Findings, plans: Sequence[DataPlan], task: str) -> None:
    """Classes that a split lacks, and how even the training clips are."""
    if task not in ("classification", "tagging"):
        return
    lacking = [
        f"'{name}' has no clip in {split}{f' ({plan.title})' if plan.title else ''}"
        for plan in plans
        for split, held in plan.counts().items()
        for name, count in held.items()
        if not count
    ]
    if lacking:
        said = "classes that a split does not have: nothing is known there of how well they are told"
        found.add("warning" if task == "classification" else "note", "classes", said, lacking)
    counts = {name: count for name, count in plans[0].counts()["train"].items() if count}
    if counts and task == "classification" and max(counts.values()) > _UNEVEN * min(counts.values()):
        ordered = sorted(counts, key=lambda name: (-counts[name], name))
        most, least = ordered[0], ordered[-1]
        said = (
            f"'{most}' has {counts[most] / counts[least]:.0f} times as many training clips as '{least}'; judge by an "
            "average over classes, or draw them evenly: train.balanced=true"
        )
        found.add("note", "balance", said, [f"{name}: {many(counts[name], 'clip')}" for name in (most, least)])


def labels(found: Findings, clips: Sequence[Clip]) -> None:
    """Labels that are one and the same but for case, blanks and hyphens."""
    alike: dict[str, Counter[str]] = defaultdict(Counter)
    for clip in clips:
        for name in clip.classes:
            alike[" ".join(name.casefold().replace("_", " ").replace("-", " ").split())][name] += 1
    pairs = [
        ", ".join(f"'{name}' ({many(count, 'clip')})" for name, count in sorted(names.items()))
        for _, names in sorted(alike.items())
        if len(names) > 1
    ]
    if pairs:
        found.add("warning", "labels", "labels that differ by case, blanks or hyphens alone: is each one class?", pairs)


def facts(clips: Sequence[Clip], plans: Sequence[DataPlan]) -> dict[str, Any]:
    """How many of what there are."""
    known: dict[str, Any] = {"clips": len(clips)}
    held = Counter(name for clip in clips for name in clip.classes)
    if held:
        known["classes"] = len(held)
        ordered = sorted(held, key=lambda name: (-held[name], name))
        known["largest_class"] = [ordered[0], held[ordered[0]]]
        known["smallest_class"] = [ordered[-1], held[ordered[-1]]]
    speakers = {clip.speaker for clip in clips if clip.speaker is not None}
    if speakers:
        known["speakers"] = len(speakers)
    if plans:
        counts = plans[0].counts()
        known["splits"] = {
            split: {
                "clips": plans[0].size(split),
                "classes": sum(count > 0 for count in counts[split].values()),
                "per_class": counts[split],
            }
            for split in SPLITS
        }
    return known
