"""Draws where a search stands as lines of text that fit the terminal (torch-free).

At most 20 lines, none longer than the terminal is wide; what does not fit is cut with "…", never wrapped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.text import Text

from search.metric_text import repeats_of, repeats_text, with_deviation
from search.records import EpochRecord, TrialRecord
from search.standing import Standing
from search.texts import format_duration, short_configuration, short_count

MAX_LINES = 20
_FIXED_LINES = 9  # everything but the running trials
_CURVE = 6  # values shown of a running trial


def draw(standing: Standing, width: int, height: int = 25) -> list[Text]:
    """The screen as lines; call it under `standing.lock`."""
    lines: list[Text] = []
    if standing.record is not None:
        lines += [_title(standing), _progress(standing, width), _counts(standing), *_best(standing)]
    if standing.phase and not standing.finished:
        lines.append(_phase(standing, width))
    elif standing.record is not None and not standing.finished:
        rows = max(1, min(MAX_LINES, height - 1) - _FIXED_LINES)
        lines += _running(standing, width, rows)
    if standing.record is not None:
        lines.append(_pace(standing))
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
        line.truncate(width, overflow="ellipsis")
    return lines


def curve(values: list[float], room: int, digits: int = 2) -> str:
    """The last values as short numbers, `.41 .47 .52`, as many as fit into `room` characters."""
    shown = [number(v, digits) for v in values[-_CURVE:]]
    while shown and len(" ".join(shown)) > room:
        shown.pop(0)
    return " ".join(shown)


def number(value: float, digits: int = 2) -> str:
    """A number in few characters: scores below 1 without their leading zero, others to three digits."""
    if value != value:
        return "nan"
    if abs(value) >= 0.9995:
        return f"{value:.3g}" if abs(value) < 1e5 else f"{value:.0e}"
    text = f"{value:.{digits}f}"
    return text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text


def state_line(standing: Standing) -> str:
    """Counts in words, those that are zero left out."""
    counts = standing.counts()
    order = ("running", "complete", "stopped", "failed", "rejected")
    words = {"running": "interrupted"} if standing.finished else {}
    return " · ".join(f"{counts[k]} {words.get(k, k)}" for k in order if counts[k])


def data_text(info: Mapping[str, Any]) -> str:
    """The data set in a few words: its name, what is learned of it, clips, labels and repeats where they are known."""
    target, splits = info.get("target"), info.get("splits")
    words = [str(info.get("dataset") or "") + (f" ({target})" if target else "")]
    if isinstance(splits, dict) and all(isinstance(clips, int) for clips in splits.values()):
        # As some systems were published, validation and test are the same clips.
        counted = [clips for split, clips in splits.items() if split != "val" or not info.get("reads_test")]
        words.append(f"{sum(counted):,} clips")
    if info.get("classes"):
        words.append(f"{info['classes']} {info.get('labels_are') or 'classes'}")
    words.append(repeats_text(repeats_of(info)))
    return ", ".join(w for w in words if w)


def _title(standing: Standing) -> Text:
    assert standing.record is not None
    info = standing.record.info
    line = Text(standing.record.name, style="bold")
    for label, value in (("backbone", str(info.get("backbone") or "")), ("data", data_text(info))):
        if value:
            line.append(f"  {label} ", style="dim not bold").append(value, style="not bold")
    return line


def _progress(standing: Standing, width: int) -> Text:
    done, total = standing.ended, standing.total
    if total is None:
        return Text(f"{done} trials ended")
    return _bar(done, total, width, f" {done}/{total} trials")


def _bar(done: int, total: int, width: int, label: str) -> Text:
    room = max(4, min(60, width - len(label) - 2))
    full = round(room * min(1.0, done / max(1, total)))
    return Text("━" * full, style="green").append("─" * (room - full), style="dim").append(label, style="default")


def _counts(standing: Standing) -> Text:
    return Text(state_line(standing), style="dim")


def _best(standing: Standing) -> list[Text]:
    trial, objective = standing.best, standing.objective
    value = None if trial is None else standing.value(trial)
    if trial is None or objective is None or value is None:
        return []
    line = Text("best ", style="bold green")
    reached = with_deviation(objective.metric, value[0], standing.deviation(trial))
    line.append(f"{objective.metric} {reached}", style="bold")
    line.append(f"  {trial.name}", style="not bold default")
    line.append(f"  epoch {value[1]}, {short_count(trial.trainable_params)} parameters", style="dim not bold")
    return [line, Text(f"     {short_configuration(trial.params)}", style="dim")]


def _phase(standing: Standing, width: int) -> Text:
    if standing.done_of is not None:
        done, total = standing.done_of
        return _bar(done, total, min(width, 70) - 14, f" {done}/{total}").append(f"  {standing.phase}")
    return Text(f"{standing.phase} …", style="cyan").append(f"  {_clock(standing.in_phase)}", style="dim")


def _running(standing: Standing, width: int, rows: int) -> list[Text]:
    if not standing.running:
        waiting = "starting the workers" if not standing.ended else "waiting for the next trial"
        return [Text(f"{waiting} …", style="cyan")]
    wide = width >= 110
    room = 30 if wide else 23
    name = min(44, width - room - 31)
    metric = standing.objective.metric if standing.objective else ""
    lines = [Text(f"{'running':<{name}}  epoch  {_cut(metric, room):<{room}}  train/loss  s/epoch", style="dim")]
    trials = sorted(standing.running.values(), key=lambda t: t.number)
    for trial in trials[:rows]:
        lines.append(_row(trial, standing.epochs_of(trial), standing.max_epochs, metric, name, room, wide))
    if len(trials) > rows:
        lines.append(Text(f"… and {len(trials) - rows} more", style="dim"))
    return lines


def _row(
    trial: TrialRecord, epochs: list[EpochRecord], most: int | None, metric: str, name: int, room: int, wide: bool
) -> Text:
    last = epochs[-1] if epochs else None
    count = f"{last.epoch if last else 0}" + (f"/{most}" if most else "")
    values = curve([e.metrics[metric] for e in epochs if metric in e.metrics], room, 3 if wide else 2)
    loss = last.metrics.get("train/loss") if last else None
    line = Text(f"{_cut(trial.name, name):<{name}}  {count:>5}  ")
    line.append(f"{values:<{room}}", style="cyan")
    line.append(f"  {'–' if loss is None else f'{loss:.3g}':>10}  {f'{last.seconds:.2g}' if last else '–':>7}")
    return line


def _pace(standing: Standing) -> Text:
    words = []
    epochs, trials = standing.epochs_a_minute(), standing.trials_a_minute()
    if epochs is not None:
        words.append(f"{_rate(epochs)} epochs/min")
    if trials is not None:
        words.append(f"{_rate(trials)} trials/min")
    words.append(f"elapsed {_clock(standing.elapsed)}")
    left = standing.left()
    if left is not None and not standing.phase and not standing.finished:
        words.append(f"about {format_duration(round(left)) if left >= 60 else f'{left:.0f} s'} left")
    return Text(" · ".join(words), style="dim")


def _rate(value: float) -> str:
    return f"{value:.0f}" if value >= 99.5 else f"{value:.2g}"


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else text[: room - 1] + "…"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
