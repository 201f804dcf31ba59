"""Pronunciations: words to phones by a lexicon file (torch-free)."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from petl.errors import UserError
from trainables.data.datasets._files import decoded
from trainables.data.datasets._reading import refuse, tell
from trainables.data.datasets.tables import parsed

SPOKEN_NOISE = "SPN"
"""The phone of a word that the lexicon does not have."""

_MOST_UNKNOWN = 0.05  # share of running words; more of them, and it is the lexicon of something else
_VARIANT = re.compile(r"\(\d+\)$")


def read_lexicon(path: Path | None) -> dict[str, tuple[str, ...]]:
    """Upper-cased word -> phones, as they are written: digits of stress stay.

    Takes LibriSpeech's `librispeech-lexicon.txt` (`WORD  P H`), the CMU dictionary (comments after `;;;` or ` # `,
    variants as `WORD(2)` or `WORD(1)`), and JSON objects of words (phones as a list or in one text). Where a word has
    several pronunciations, the first one counts. Raises `UserError` for a file that is not there or holds nothing.
    """
    if path is None:
        raise UserError(
            "phonemes are made from words here, and that needs a lexicon: data.lexicon=FILE, for instance "
            "librispeech-lexicon.txt (openslr.org/11) or cmudict (WORD  P H O N E S on every line), or JSON"
        )
    if not path.is_file():
        raise UserError(f"lexicon {path} (data.lexicon) does not exist")
    pairs = _of_json(path) if path.suffix.lower() == ".json" else _of_lines(path)
    found: dict[str, tuple[str, ...]] = {}
    for word, phones in pairs:
        found.setdefault(_VARIANT.sub("", word).upper(), phones)
    if not found:
        raise UserError(f"lexicon {path} (data.lexicon) has no words")
    return found


def pronounced(
    texts: Iterable[str], lexicon: dict[str, tuple[str, ...]], path: Path | None, tolerated: float = _MOST_UNKNOWN
) -> list[str]:
    """Phones of every text, parted by blanks; a word that is not known is one `SPN`.

    Raises `Problems` with the words when more than `tolerated` of all running words are not known.
    """
    unknown: Counter[str] = Counter()
    words = 0
    spoken = []
    for text in texts:
        phones: list[str] = []
        for word in text.upper().split():
            words += 1
            if word not in lexicon:
                unknown[word] += 1
            phones += lexicon.get(word, (SPOKEN_NOISE,))
        spoken.append(" ".join(phones))
    missing = unknown.total()
    if missing > tolerated * words:
        commonest = sorted(unknown, key=lambda word: (-unknown[word], word))
        refuse(
            f"lexicon {path} lacks {missing} of {words} words, {len(unknown)} different ones; "
            f"give one that fits the data (data.lexicon)",
            [f"'{word}' ({unknown[word]} times)" for word in commonest],
        )
    elif missing:
        tell(f"{missing} of {words} words ({len(unknown)} different ones) are not in {path}: they are one phone, SPN")
    return spoken


def _of_lines(path: Path) -> list[tuple[str, tuple[str, ...]]]:
    pairs, wrong = [], []
    for number, line in enumerate(decoded(path, "utf-8-sig", "latin-1").split("\n"), 1):
        if line.startswith(";;;") or not line.strip():
            continue
        word, *phones = re.split(r"\s#\s", line)[0].split()
        if phones:
            pairs.append((word, tuple(phones)))
        else:
            wrong.append(f"row {number}: '{line.strip()}' has a word and no phones; expected WORD  P H O N E S")
    if wrong:
        refuse(path, wrong)
    return pairs


def _of_json(path: Path) -> list[tuple[str, tuple[str, ...]]]:
    try:
        held = parsed(decoded(path, "utf-8-sig"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, row {error.lineno}: not JSON ({error.msg})") from None
    if not isinstance(held, dict):
        raise UserError(f'{path}: expected an object such as {{"HELLO": ["HH", "AH0", "L", "OW1"]}}')
    pairs, wrong = [], []
    for word, value in held.items():
        phones = value.split() if isinstance(value, str) else value
        if isinstance(phones, list) and phones and all(isinstance(phone, str) and phone for phone in phones):
            pairs.append((word, tuple(phones)))
        else:
            wrong.append(f"'{word}': {json.dumps(value)}; expected a list of phones, or one text of them")
    if wrong:
        refuse(path, wrong)
    return pairs
