"""A sequence of symbols along time, without saying when: characters, phones, or characters with slot markers (CTC).

B clips, T tokens along time, V symbols of the head, the blank included.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Self, cast, get_args

from petl.errors import UserError, nearest
from petl.outputs.base import Output, Prediction

if TYPE_CHECKING:
    from torch import Tensor

Unit = Literal["characters", "phones", "slots"]

BLANK: Final = 0
"""Number of the symbol that stands for no symbol."""

_PAD, _UNKNOWN, _BOUNDARY = "[PAD]", "[UNK]", "|"  # transformers' names; [PAD] is the blank
_SHOWN = "⁇"  # one character, so that it counts as one wrong character
_MARKER = re.compile(r"[BE]-\S+")


def is_marker(word: str) -> bool:
    """Whether a word of marked text begins or ends a slot's value: `B-<slot>`, `E-<slot>`."""
    return _MARKER.fullmatch(word) is not None


@dataclass(frozen=True)
class Transcript(Prediction):
    """What was heard in one clip: `text`, and the names of the symbols that it is made of, in the head's spelling."""

    text: str
    tokens: tuple[str, ...]

    @property
    def shown(self) -> str:
        return self.text

    def to_json(self) -> dict[str, Any]:
        return {"text": self.text, "tokens": list(self.tokens)}


@dataclass(frozen=True)
class Tokens(Output):
    """Symbols, the best path collapsed: repeats become one, then blanks go (Graves et al. 2006, equation 1).

    `labels` are the blank `[PAD]`, `[UNK]` for whatever the training clips do not have, `|` between words, and the
    symbols, sorted. `unit` says how text is spelled with them: by characters; by phones, named with blanks between
    them and without `|`; or by characters with markers `B-<slot>` and `E-<slot>`, each a symbol and a word of its own.
    An unknown symbol is shown as ⁇.
    """

    kind: ClassVar[str] = "tokens"
    noun: ClassVar[str] = "symbols"
    sequence: ClassVar[bool] = True

    unit: Unit = "characters"

    @classmethod
    def of(cls, texts: Iterable[str], unit: Unit) -> Self:
        """The symbols of these texts; their numbers do not depend on the order of the texts."""
        special = _special(unit)
        found = {symbol for text in texts for symbol in _spelled(text, unit)}
        return cls((*special, *sorted(found.difference(special))), unit)

    def check(self) -> None:
        special = _special(self.unit)
        if self.labels[: len(special)] != special:
            raise UserError(
                f"labels of {self.unit} begin with {', '.join(special)}; found {', '.join(self.labels[:3]) or 'none'}"
            )
        symbols = self.labels[len(special) :]
        if not symbols:
            raise UserError("a transcript needs at least one symbol; the texts of the training clips are all empty")
        if len(set(self.labels)) != len(self.labels):
            twice = next(label for label, count in Counter(self.labels).items() if count > 1)
            raise UserError(f"symbols are all different; {twice!r} is there twice")
        wrong = [symbol for symbol in symbols if not _fits(symbol, self.unit)]
        if wrong:
            raise UserError(f"{wrong[0]!r} is no symbol of unit '{self.unit}': {_RULES[self.unit]}")

    def spelled(self, text: str) -> list[str]:
        """The symbols of a text, those that are not among the labels included; runs of white space count as one."""
        return _spelled(text, self.unit)

    def encode(self, text: str) -> list[int]:
        """Numbers of the symbols of a text, never the blank's."""
        unknown = self._numbers[_UNKNOWN]
        return [self._numbers.get(symbol, unknown) or unknown for symbol in self.spelled(text)]

    def text(self, ids: Sequence[int]) -> str:
        """The text that numbers of symbols stand for, without blanks of CTC: words with one space between them."""
        symbols = [_SHOWN if label == _UNKNOWN else label for label in (self.labels[i] for i in ids)]
        if self.unit == "phones":
            return " ".join(symbols)
        marked = self.unit == "slots"
        parts = (
            " " if symbol == _BOUNDARY else f" {symbol} " if marked and is_marker(symbol) else symbol
            for symbol in symbols
        )
        return " ".join("".join(parts).split())

    def paths(self, logits_BTV: Tensor, lengths_B: Tensor | None) -> list[list[int]]:
        """The best symbol of every token, collapsed: numbers of symbols per clip, on the CPU. None: all T tokens."""
        import torch

        best_BT = logits_BTV.argmax(dim=-1)
        kept_BT = best_BT != BLANK
        kept_BT[:, 1:] &= best_BT[:, 1:] != best_BT[:, :-1]
        if lengths_B is not None:
            kept_BT &= torch.arange(best_BT.shape[1], device=best_BT.device) < lengths_B.to(best_BT.device)[:, None]
        return [best_T[kept_T].tolist() for best_T, kept_T in zip(best_BT.cpu(), kept_BT.cpu(), strict=True)]

    def predictions(self, logits: Tensor, lengths_B: Tensor | None) -> list[Prediction]:
        return [Transcript(self.text(ids), tuple(self.labels[i] for i in ids)) for ids in self.paths(logits, lengths_B)]

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "unit": self.unit}

    @classmethod
    def read(cls, labels: tuple[str, ...], values: Mapping[str, Any]) -> Self:
        unit, units = values.get("unit"), get_args(Unit)
        if unit not in units:
            guess = nearest(unit, units) if isinstance(unit, str) else ""
            raise UserError(f"output unit {unit!r} is not known{guess}; allowed: {', '.join(units)}")
        return cls(labels, cast("Unit", unit))

    def files(self) -> dict[str, bytes]:
        """What transformers' tokenizers for CTC read, so that they turn the same numbers into the same text.

        They show an unknown symbol as [UNK], and put no spaces around a slot's marker that are not spelled.
        """
        phones = self.unit == "phones"
        settings: dict[str, Any] = {
            "tokenizer_class": "Wav2Vec2PhonemeCTCTokenizer" if phones else "Wav2Vec2CTCTokenizer",
            "pad_token": _PAD,
            "unk_token": _UNKNOWN,
            "bos_token": None,
            "eos_token": None,
            "word_delimiter_token": None if phones else _BOUNDARY,
            "clean_up_tokenization_spaces": False,
        }
        if phones:
            settings |= {"do_phonemize": False, "phone_delimiter_token": " "}
        return {"vocab.json": _json(self._numbers), "tokenizer_config.json": _json(settings)}

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {label: i for i, label in enumerate(self.labels)}


_RULES: dict[str, str] = {
    "characters": "each is one character",
    "phones": "names without blanks in them",
    "slots": "each is one character, or B-<slot> or E-<slot>",
}


def _special(unit: Unit) -> tuple[str, ...]:
    return (_PAD, _UNKNOWN) if unit == "phones" else (_PAD, _UNKNOWN, _BOUNDARY)


def _fits(symbol: str, unit: Unit) -> bool:
    if symbol.split() != [symbol]:  # empty, or white space in it
        return False
    return unit == "phones" or len(symbol) == 1 or (unit == "slots" and is_marker(symbol))


def _spelled(text: str, unit: Unit) -> list[str]:
    words = text.split()
    if unit == "phones":
        return words
    symbols: list[str] = []
    for word in words:
        if symbols:
            symbols.append(_BOUNDARY)
        symbols += [word] if unit == "slots" and is_marker(word) else word
    return symbols


def _json(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode()
