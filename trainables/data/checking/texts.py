"""What is wrong with texts: empty, too long for their clips, or symbols that nobody has trained on (torch-free)."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from petl.outputs.tokens import Tokens, is_marker
from trainables.data.checking.findings import Findings
from trainables.data.checking.listening import Heard
from trainables.data.clips import Clip
from trainables.data.planning import DataPlan
from trainables.tasks import text
from trainables.tasks.ctc import needed_tokens, unknown_symbols

_RATE, _WINDOW, _HOP = 16000, 400, 320
"""Of wav2vec 2.0 and its relatives: the samples of the first token, and of every other one."""

_BROKEN = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"}  # control, format, unassigned, private, half of a pair; separators
_REPLACEMENT = "\ufffd"


def texts(found: Findings, plan: DataPlan, heard: Mapping[int, Heard]) -> dict[str, Any]:
    """Report on the texts of the clips; gives the number of symbols that are learned."""
    output = plan.output
    if not isinstance(output, Tokens):
        return {}
    spoken = [text.reference(clip.text or "", output.unit) for clip in plan.clips]
    empty = [clip.title for clip, words in zip(plan.clips, spoken, strict=True) if not words]
    if empty:
        said = "nothing is left of their text without punctuation: they are learned as silence; remove them"
        found.add("warning", "empty_texts", said, empty)
    _unknown(found, plan, output)
    _too_much(found, plan, output, heard)
    if output.unit != "phones":
        _characters(found, plan, output, spoken)
    return {"symbols": output.size, "characters": sum(map(len, spoken))}


def _unknown(found: Findings, plan: DataPlan, output: Tokens) -> None:
    """Symbols of val and test that no training clip has."""
    listed = []
    for split in ("val", "test"):
        clips = [plan.clips[i] for i in plan.splits.of(split)]
        listed += [
            f"{_named(symbol)} in {count} of {len(clips)} {split} clips"
            for symbol, count in unknown_symbols(output, clips).items()
        ]
    if listed:
        said = "symbols that no training clip has: each of them is counted as wrong, whatever is heard"
        found.add("warning", "unknown_symbols", said, listed)


def _too_much(found: Findings, plan: DataPlan, output: Tokens, heard: Mapping[int, Heard]) -> None:
    """Training clips whose text needs more tokens than a model with one every 20 ms makes of them."""
    listed = []
    for i in plan.splits.train:
        if i not in heard or heard[i].reason:
            continue
        samples = round(heard[i].seconds * _RATE)
        given, needed = max(0, (samples - _WINDOW) // _HOP + 1), needed_tokens(output, plan.clips[i])
        if needed > given:
            listed.append(
                f"{plan.clips[i].title}: {needed} tokens for '{_short(plan.clips[i])}', its "
                f"{heard[i].seconds:.2f} s give {given}"
            )
    if listed:
        said = "longer texts than their clips can give, a token every 20 ms: they are left out of training; is the"
        found.add("warning", "too_much_text", f"{said} right text with the right clip?", listed)


def _characters(found: Findings, plan: DataPlan, output: Tokens, spoken: Sequence[str]) -> None:
    """Characters that texts seldom have on purpose, with the first clip that has them."""
    held: Counter[str] = Counter()
    first: dict[str, Clip] = {}
    for clip, words in zip(plan.clips, spoken, strict=True):
        for symbol in set(output.spelled(words)):
            if not is_marker(symbol):
                held[symbol] += 1
                first.setdefault(symbol, clip)
    held.pop("|", None)  # between words
    scripts = Counter(_script(symbol) for symbol in held.elements() if symbol.isalpha())
    main = scripts.most_common(1)[0][0] if scripts else ""
    broken, odd = [], []
    for symbol in sorted(held):
        line = f"{_named(symbol)} in {held[symbol]} clips, first {first[symbol].title}"
        if symbol == _REPLACEMENT or unicodedata.category(symbol) in _BROKEN:
            broken.append(line)
        elif symbol.isalpha():
            if _script(symbol) != main and held[symbol] * 100 < len(spoken):
                odd.append(f"{line}; other letters are {main.lower()}")
        elif symbol != "'" and unicodedata.category(symbol)[0] != "M":
            odd.append(line)
    if broken:
        said = "characters that no text has on purpose: was it decoded rightly?"
        found.add("warning", "broken_characters", said, broken)
    if odd:
        said = "neither letters nor apostrophes, or letters of another script: each is a symbol to be learned"
        found.add("note", "unusual_characters", said, odd)


def _script(symbol: str) -> str:
    return unicodedata.name(symbol, "unknown").split()[0]


def _named(symbol: str) -> str:
    if len(symbol) > 1:
        return f"'{symbol}'"
    shown = f"'{symbol}' " if symbol.isprintable() else ""
    return f"{shown}(U+{ord(symbol):04X} {unicodedata.name(symbol, 'unnamed').lower()})"


def _short(clip: Clip) -> str:
    words = clip.text or ""
    return words if len(words) <= 40 else f"{words[:39]}…"
