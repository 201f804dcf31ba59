"""Which column of a Hugging Face data set is which, and its values as text (torch-free)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from petl.errors import UserError, nearest
from trainables.data.datasets.tables import MOST_FOLDS

_USUAL = {
    "label": (
        *("label", "labels", "class", "category", "target", "intent", "intent_class", "emotion", "genre", "keyword"),
        *("word", "command", "language", "lang_id", "accent", "gender"),
    ),
    "labels": ("labels", "label", "tags", "classes", "categories", "human_labels"),
    "text": (
        *("text", "sentence", "transcription", "transcript", "normalized_text", "raw_transcription", "raw_text"),
        *("english_transcription", "utterance"),
    ),
    "speaker": ("speaker", "speaker_id", "speakerid", "client_id", "spk_id"),
    "phonemes": ("phonemes", "phones", "phoneme", "phonetic", "phonetic_detail"),
    "group": ("group",),
    "fold": ("fold",),
}
_LISTS = {"labels": (True,), "phonemes": (True, False)}  # whether the column may hold lists; others: never


class Columns:
    """The columns of one part that are wanted; `UserError` when there is none, naming what there is."""

    def __init__(self, root: Path, rows: Any, target: str, column: str) -> None:
        self._root, self._rows, self._target = root, rows, target
        self.audio = self._audio()
        self._column = column or self._find(target)
        if self._column is None:
            usual = ", ".join(_USUAL[target])
            raise UserError(
                f"{root}: no column for the target '{target}' (looked for {usual}); it has {self._described()}. "
                "Name it with data.subset=CONFIGURATION:COLUMN or data.subset=:COLUMN"
            )
        if self._column not in rows.features:
            raise UserError(
                f"{root}: there is no column '{column}'{nearest(column, rows.features)}; it has {self._described()}"
            )
        if self._is_list(self._column) not in _LISTS.get(target, (False,)) or self._column == self.audio:
            raise UserError(f"{root}: column '{self._column}' does not fit the target '{target}': {self._described()}")

    def learned(self) -> list[dict[str, Any] | str]:
        """For every row what a clip is given for the target, or what is wrong with it."""
        assert self._column is not None
        return [self._value(value) for value in self._values(self._column)]

    def speakers(self) -> list[str | None] | None:
        return self.texts("speaker")

    def texts(self, role: str) -> list[str | None] | None:
        """The values of the usual column for `role`; None when there is none."""
        name = self._find(role)
        return None if name is None else self._values(name)

    def folds(self) -> list[int] | None:
        """The column "fold" where it holds whole numbers from 1 to 10,000, in every row."""
        name = self._find("fold")
        if name is None:
            return None
        values = self._rows.data.column(name).to_pylist()
        fit = all(isinstance(value, int) and 1 <= value <= MOST_FOLDS for value in values)
        return values if fit else None

    def _value(self, value: Any) -> dict[str, Any] | str:
        if value is None:
            return f"'{self._column}' is missing or blank"
        if self._target == "labels":
            return {"labels": tuple(dict.fromkeys(value))}
        if self._target in ("label", "speaker"):
            return {"label": value}
        return {"text": value if isinstance(value, str) else " ".join(value)}

    def _find(self, role: str) -> str | None:
        known = {name.lower(): name for name in self._rows.features if name != self.audio}
        fits = _LISTS.get(role, (False,))
        return next((known[n] for n in _USUAL[role] if n in known and self._is_list(known[n]) in fits), None)

    def _audio(self) -> str:
        from datasets import Audio

        features = self._rows.features
        found = [name for name, feature in features.items() if isinstance(feature, Audio)]
        # Parquet that was written without the library says only that there are bytes and a path.
        found = found or [n for n, f in features.items() if isinstance(f, dict) and set(f) == {"bytes", "path"}]
        if len(found) != 1:
            what = "no audio column" if not found else f"several audio columns ({', '.join(found)})"
            raise UserError(f"{self._root}: {what}; it has {self._described()}")
        return found[0]

    def _is_list(self, name: str) -> bool | None:
        """None: neither a list of values nor one value."""
        import pyarrow as pa

        kind = self._rows.data.schema.field(name).type
        lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
        inner = kind.value_type if lists else kind
        return None if pa.types.is_nested(inner) or pa.types.is_binary(inner) else lists

    def _values(self, name: str) -> list[Any]:
        """As text, classes by name; lists as lists of text; None for what is missing."""
        feature = self._rows.features[name]
        inner = getattr(feature, "feature", feature)
        names = getattr(inner, "names", None)

        def text(value: Any) -> str | None:
            if value is None or (names is not None and value < 0):  # -1: the class is withheld
                return None
            return names[value] if names is not None else str(value).strip() or None

        def convert(value: Any) -> Any:
            if not isinstance(value, list):
                return text(value)
            return [shown for part in value if (shown := text(part)) is not None]

        return [convert(value) for value in self._rows.data.column(name).to_pylist()]

    def _described(self) -> str:
        return ", ".join(f"{name} ({_kind(feature)})" for name, feature in self._rows.features.items())


def _kind(feature: Any) -> str:
    inner = getattr(feature, "feature", None)
    if inner is not None:
        return f"list of {_kind(inner)}"
    return str(getattr(feature, "dtype", "")) if type(feature).__name__ == "Value" else type(feature).__name__
