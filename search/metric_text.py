"""How names and values of metrics are written for people (torch-free).

A metric is called `<split>/<name>`; of a trial with several repeats (folds, few-shot draws) that is the mean, beside
it stand `<split>/<name>_std`, the standard deviation over the repeats, and `<split>/<name>/<repeat>`, each one's own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

_SPLITS: Final = ("train", "val", "test")
_WHERE: Final = {"train": "training", "val": "validation", "test": "test"}
_SCORE_WORDS: Final = ("accuracy", "acc", "top1", "top5", "f1", "uar", "war", "precision", "recall")
_SCORE_WORDS_TOO: Final = ("auc", "mauc", "map", "eer")
_EDIT_RATES: Final = ("wer", "cer", "per")  # they may exceed 100 %
_PERCENT_NAMES: Final = ("exact_match",)
_STD: Final = "_std"

_WORDS: Final = {
    "macro_f1": "macro F1",
    "weighted_f1": "weighted F1",
    "exact_match": "exact match",
    "map": "mean average precision",
    "mauc": "mean area under the ROC curve",
    "d_prime": "d-prime",
    "eer": "equal error rate",
    "min_dcf": "minimum detection cost",
    "wer": "word error rate",
    "cer": "character error rate",
    "per": "phone error rate",
    "slot_type_f1": "slot type F1",
    "slot_value_cer": "slot value character error rate",
}


class MetricName(NamedTuple):
    """The parts of a metric's name; "" where there is none."""

    split: str
    plain: str
    repeat: str
    deviation: bool


def parts_of(metric: str) -> MetricName:
    """`val/accuracy/fold1` → validation, accuracy, of the repeat fold1."""
    split, _, rest = metric.partition("/")
    if split not in _SPLITS:
        split, rest = "", metric
    plain, _, repeat = rest.partition("/")
    return MetricName(split, plain.removesuffix(_STD), repeat, plain.endswith(_STD))


def is_detail(metric: str) -> bool:
    """Whether it is one repeat's own value or a deviation: shown beside the mean, never as a curve of its own."""
    name = parts_of(metric)
    return bool(name.repeat) or name.deviation


def is_percentage(metric: str) -> bool:
    """Whether a metric is a share that people read in per cent."""
    plain = parts_of(metric).plain.lower().replace("-", "_")
    words = plain.split("_")
    known = any(word in _SCORE_WORDS + _SCORE_WORDS_TOO for word in words) or plain in _PERCENT_NAMES
    return known or plain == "average_precision" or _is_edit_rate(plain)


def format_value(metric: str, value: float | None) -> str:
    """A metric's value: shares as per cent, all else to four digits, "–" when there is none."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if metric == "trainable_params":
        return f"{int(value):,}"
    # A score beyond 1 was reported in per cent already; an error rate was not.
    if is_percentage(metric) and (-1.0 <= value <= 1.0 or _is_edit_rate(parts_of(metric).plain)):
        return f"{100 * value:.1f} %"
    return f"{value:.4g}"


def format_mean(metric: str, metrics: Mapping[str, float]) -> str:
    """The metric among `metrics` and its deviation over the repeats, where there are any: "83.8 % ± 1.2"."""
    return with_deviation(metric, metrics.get(metric), deviation_of(metric, metrics))


def with_deviation(metric: str, value: float | None, deviation: float | None) -> str:
    """A value and its standard deviation, in the same unit: "83.8 % ± 1.2", "2.71 ± 0.04"."""
    text = format_value(metric, value)
    if value is None or deviation is None or not math.isfinite(value) or not math.isfinite(deviation):
        return text
    return f"{text} ± {100 * deviation:.1f}" if text.endswith(" %") else f"{text} ± {deviation:.2g}"


def deviation_of(metric: str, metrics: Mapping[str, float]) -> float | None:
    """The standard deviation of the metric over the repeats; None of a single training."""
    return metrics.get(f"{metric}{_STD}")


def name_of(metric: str) -> str:
    """What people call it: "word error rate"; the split is left out."""
    plain = parts_of(metric).plain
    return _WORDS.get(plain, plain.replace("_", " "))


def name_with_split(metric: str) -> str:
    """ "validation word error rate"."""
    return " ".join(word for word in (_WHERE.get(parts_of(metric).split, ""), name_of(metric)) if word)


def phrase(metric: str, text: str) -> str:
    """A value in a sentence: "12.3 % word error rate", but "loss 0.52"."""
    return f"{text} {name_of(metric)}" if "%" in text else f"{name_of(metric)} {text}"


def gap_text(metric: str, gap: float | None, mode: str) -> str:
    """A difference to a baseline, `gap` being positive for what is better.

    Scores: "+3.1 points"; errors and losses, which are better when lower: "3.1 points below".
    """
    if gap is None:
        return ""
    size, unit = (f"{abs(100 * gap):.1f}", " points") if is_percentage(metric) else (f"{abs(gap):.4g}", "")
    if mode == "max":
        return f"{'+' if gap >= 0 else '-'}{size}{unit}"
    return f"{size}{unit} {'below' if gap > 0 else 'above'}" if gap else "equal"


def repeats_of(info: Mapping[str, Any]) -> list[str]:
    """Titles of the repeats of every trial; empty when there is only one."""
    found = info.get("repeats")
    return [str(title) for title in found] if isinstance(found, list | tuple) and len(found) > 1 else []


def repeats_text(titles: Sequence[str]) -> str:
    """ "5 folds", "3 draws", "5 folds x 3 draws"; "" without repeats."""
    counts = []
    for noun in ("fold", "draw"):
        count = len({part for title in titles for part in title.split("-") if part.startswith(noun)})
        if count:
            counts.append(f"{count} {noun}{'' if count == 1 else 's'}")
    if titles and not counts:
        return f"{len(titles)} repeats"
    return " x ".join(counts)


def repeat_noun(titles: Sequence[str]) -> str:
    """What one of the repeats is called."""
    kinds = {part.rstrip("0123456789") for title in titles for part in title.split("-")}
    return kinds.pop() if len(kinds) == 1 and kinds <= {"fold", "draw"} else "repeat"


def _is_edit_rate(plain: str) -> bool:
    return plain in _EDIT_RATES or plain.endswith("_cer")
