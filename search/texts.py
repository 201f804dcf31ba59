"""How settings, sizes and durations are written for people (torch-free)."""

from __future__ import annotations

import math
from typing import Any

from search.records import Incident, TrialRecord

_TASKS = {
    "classification": "audio classification",
    "tagging": "audio tagging",
    "slots": "spoken intent classification",
    "verification": "speaker verification",
    "phonemes": "phoneme recognition",
}
_RECIPE = ("optim.", "schedule.", "aug.", "train.")


def configuration_text(params: dict[str, Any]) -> str:
    """A trial's settings on one line, `moa.experts=7 optim.lr=0.005`; the method stands elsewhere."""
    return " ".join(f"{k}={format_setting(v)}" for k, v in params.items() if k != "method")


def short_configuration(params: dict[str, Any]) -> str:
    """`configuration_text` for narrow places: keys cut to their last word, what matters most first.

    That is the learning rate, then the method's own settings, then the rest of the recipe.
    """
    keys = sorted((k for k in params if k != "method"), key=lambda k: (k != "optim.lr", k.startswith(_RECIPE)))
    last = [k.rsplit(".", 1)[-1] for k in keys]
    words = [w if last.count(w) == 1 else k for k, w in zip(keys, last, strict=True)]
    values = [f"{v:.2g}" if isinstance(v, float) else format_setting(v) for v in map(params.get, keys)]
    return " ".join(f"{w}={v}" for w, v in zip(words, values, strict=True))


def format_setting(value: Any) -> str:
    """A configuration value as a person would write it: floats to four significant digits."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "none"}[value]
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ",".join(format_setting(v) for v in value)
    return str(value)


def format_duration(seconds: float) -> str:
    """Seconds as `4 min 07 s`, `2 h 05 min`, `12.3 s`."""
    if not math.isfinite(seconds) or seconds < 0:
        return "–"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def short_count(number: int) -> str:
    """A count in three or four characters: `868`, `70.7k`, `1.2M`."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            short = number / size
            return f"{short:.0f}{letter}" if short >= 99.95 else f"{short:.1f}{letter}"
    return str(number)


def plural(count: int, word: str) -> str:
    """The word, with an "s" unless there is one of it."""
    return word if count == 1 else f"{word}s"


def joined(*parts: Any) -> str:
    """What there is of the parts, with dots between."""
    return joined_by(" · ", *(str(p) for p in parts if p))


def task_text(task: str) -> str:
    """What people call a task."""
    return _TASKS.get(task, task.replace("_", " "))


_AFTER = {
    "node": "goes on elsewhere",
    "worker": "goes on with other workers",
    "hung": "tried once more",
    "error": "tried again",
    "proxy": "tried again",
    "gave up": "given up",
}


def incident_text(trial: TrialRecord, incident: Incident) -> str:
    """What happened to a trial and what was done about it, in a line."""
    return f"{trial.name}: {joined_by('; ', incident.reason, dealt_with(incident))}"


def dealt_with(incident: Incident) -> str:
    """What was done about an incident; "" where its reason says so."""
    done = _AFTER.get(incident.kind, "")
    return f"{done} after epoch {incident.epoch}" if done and incident.epoch and incident.kind != "gave up" else done


def joined_by(separator: str, *parts: str) -> str:
    """What there is of the parts, with the separator between."""
    return separator.join(part for part in parts if part)
