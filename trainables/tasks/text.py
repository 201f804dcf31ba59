"""What counts of a transcript: text as it is learned and compared (torch-free).

Every rule leaves a text alone that has been through it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from petl.outputs.tokens import Unit, is_marker

_MARKS = re.compile(r'[,?.!\-;:"]')
# Typographic quotation marks, low and reversed ones too; the bar separates words in vocabularies of CTC.
_STRAIGHT = str.maketrans({**dict.fromkeys("‘’‚‛", "'"), **dict.fromkeys("“”„‟", '"'), "|": " "})


def spoken(text: str) -> str:
    """Lower case, without `, ? . ! - ; : "`, one space between words: SURE's rule for speech recognition.

    The marks are taken out, not replaced: "twenty-one" is "twentyone". Apostrophes stay, typographic quotation marks
    count as straight ones, accents as one character with their letter (Unicode NFC). Other marks are symbols.
    """
    return _tidy(_MARKS.sub("", _plain(text).lower()))


def marked(text: str) -> str:
    """Words with `B-<slot> … E-<slot>` around the values, case kept, `&` spoken as AND: SURE's rule for slot filling.

    The marks that `spoken` takes out are taken out of all words but the markers; a word of nothing else is skipped.
    SURE's code skips such words only, and marks inside of words are unknown symbols there.
    """
    return _tidy(" ".join(word if is_marker(word) else _unmarked(word) for word in _plain(text).split()))


def phones(text: str) -> str:
    """Names of phones as they are, one space between them."""
    return " ".join(text.split())


_RULES: dict[Unit, Callable[[str], str]] = {"characters": spoken, "slots": marked, "phones": phones}


def reference(text: str, unit: Unit) -> str:
    """The text that is learned and that answers are compared with, for an output of this unit."""
    return _RULES[unit](text)


def _unmarked(word: str) -> str:
    bare = _MARKS.sub("", word)
    return "AND" if bare == "&" else bare


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).translate(_STRAIGHT)


def _tidy(text: str) -> str:
    """Composed once more, as letters and accents may have met where something was taken out."""
    return unicodedata.normalize("NFC", " ".join(text.split()))
