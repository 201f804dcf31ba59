"""What is wrong with the recordings themselves (torch-free)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from trainables.data.checking.findings import Findings, many
from trainables.data.checking.listening import Heard
from trainables.data.clips import BadFile, Clip
from trainables.data.features import MAX_FRAMES

_SKIP = "or go on without them: --skip-bad-files"
_UNUSABLE = {
    "unreadable": "nothing decodes them; fetch or convert them again",
    "empty": "there is no sound in them; remove them",
    "not finite": "samples that are no numbers; write them again",
    "too short": "there are no features of so little; remove them",
}
_MOST = MAX_FRAMES / 100  # seconds
_USUAL = 16000  # Hz, what nearly all backbones hear


def missing(found: Findings, absent: Sequence[BadFile], clips: int) -> None:
    """Clips whose file is not there."""
    if absent:
        said = f"clips of {clips:,} that have no file; fetch them, {_SKIP}"
        found.add("error", "missing", said, [bad.name for bad in absent])


def sounds(found: Findings, clips: Sequence[Clip], heard: Mapping[int, Heard]) -> dict[str, Any]:
    """Report what was heard, by position of the clip; gives facts about those that can be used."""
    for reason, words in _UNUSABLE.items():
        bad = [f"{clips[i].title}: {one.detail}" for i, one in heard.items() if one.reason == reason]
        if bad:
            found.add("error", reason.replace(" ", "_"), f"{words}, {_SKIP}", bad)
    good = {i: one for i, one in heard.items() if not one.reason}
    if not good:
        return {}
    cut = [f"{clips[i].title}: {one.seconds:.2f} of {one.promised:.2f} s" for i, one in good.items() if one.promised]
    if cut:
        said = "they end before the length that the header gives; fetch or convert them again"
        found.add("warning", "truncated", said, cut)
    silent = [clips[i].title for i, one in good.items() if one.silent]
    if silent:
        found.add("warning", "silent", "every sample is 0, which nothing can be learned of; remove them", silent)
    _lengths(found, clips, good)
    rates, channels = _formats(found, clips, good)
    lengths = [one.seconds for one in good.values()]
    return {
        "seconds": {
            "least": round(min(lengths), 3),
            "median": round(median(lengths), 3),
            "most": round(max(lengths), 3),
            "total": round(sum(lengths), 1),
        },
        "sample_rates": {str(rate): count for rate, count in sorted(rates.items())},
        "channels": {str(number): count for number, count in sorted(channels.items())},
    }


def _lengths(found: Findings, clips: Sequence[Clip], good: Mapping[int, Heard]) -> None:
    long = sorted((i for i, one in good.items() if one.seconds > _MOST), key=lambda i: -good[i].seconds)
    if not long:
        return
    texts = clips[long[0]].text is not None
    what = "those that train are left out, others are cut off" if texts else "only their beginning is heard"
    said = f"more than {_MOST:g} s, the longest input: {what}; cut them into parts"
    found.add("warning", "long", said, [f"{clips[i].title}: {good[i].seconds:.1f} s" for i in long])


def _formats(found: Findings, clips: Sequence[Clip], good: Mapping[int, Heard]) -> tuple[Counter[int], Counter[int]]:
    rates = Counter(one.rate for one in good.values())
    channels = Counter(one.channels for one in good.values())
    if len(rates) > 1:
        _mixed_rates(found, clips, good, rates)
    low = {rate: count for rate, count in rates.items() if rate < _USUAL}
    if low:
        said = f"recorded with less than the {_USUAL:,} Hz of the backbones: what is above half of the rate is missing"
        found.add("note", "low_rate", said, _counted(low, "Hz"), sum(low.values()))
    several = {number: count for number, count in channels.items() if number > 1}
    if several:
        said = "several channels, which are averaged"
        found.add("note", "channels", said, _counted(channels, "channels"), sum(several.values()))
    return rates, channels


def _mixed_rates(found: Findings, clips: Sequence[Clip], good: Mapping[int, Heard], rates: Mapping[int, int]) -> None:
    by_class: dict[str, set[int]] = defaultdict(set)
    for i, one in good.items():
        for name in clips[i].classes:
            by_class[name].add(one.rate)
    said = "different rates; clips are resampled to that of the backbone"
    if len(by_class) > 1 and all(len(held) == 1 for held in by_class.values()):
        said = f"{said}. Each class has one of its own, so that the rate may be what is learned; check with other data"
        found.add("warning", "rates_by_class", said, _counted(rates, "Hz"), len(rates))
    else:
        found.add("note", "sample_rates", said, _counted(rates, "Hz"), len(rates))


def _counted(values: Mapping[int, int], unit: str) -> list[str]:
    return [f"{value:,} {unit}: {many(count, 'clip')}" for value, count in sorted(values.items(), key=lambda p: -p[1])]
