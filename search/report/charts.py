"""The report's charts as plain Plotly figures (`{"data": [...], "layout": {...}}`), no plotly import needed.

Colours are written as `@name`; the page replaces them by its style sheet's `--name`, so that the charts
follow light and dark. Text that came from a user goes through `as_text`: Plotly reads a little HTML.
"""

from __future__ import annotations

import html
from typing import Any

from search.metric_text import deviation_of, is_percentage, repeats_of, repeats_text, with_deviation
from search.ranking import BASELINE_METHOD, primary_objective
from search.records import Objective, SearchRecord, Status, TrialRecord
from search.report import series
from search.texts import configuration_text

Figure = dict[str, Any]

_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "pentagon", "hexagon", "star", "triangle-down")
_DASHES = ("solid", "dash", "dot", "dashdot")
COLOURS = 7  # --c0 … --c6 in the style sheet
_HOVER_LIMIT = 160


def history_chart(record: SearchRecord) -> Figure | None:
    """Value of every trial by number, with the best so far as a line; None without a value."""
    points = series.history(record)
    if not points:
        return None
    objective = primary_objective(record)
    best = series.best_so_far(points, objective.mode)
    line = {
        "x": [p.trial.number for p in points],
        "y": best,
        "mode": "lines",
        "name": "best so far",
        "line": {"color": "@ink-soft", "width": 1.5, "shape": "hv"},
        "hoverinfo": "skip",
    }
    data = [line, *_markers(record, points, lambda p: p.trial.number), *_ring(record, points, "number")]
    layout = {
        "xaxis": {"title": {"text": "trial number"}, **_whole(points[-1].trial.number)},
        "yaxis": _value_axis(objective.metric, objective),
    }
    return {"data": data, "layout": layout}


def curves_chart(record: SearchRecord, metric: str) -> Figure | None:
    """One line per trial, coloured by method; a cross where the scheduler stopped it, the winner thick."""
    found = series.curves(record, metric)
    if not found:
        return None
    style = _styles(record)
    data: list[dict[str, Any]] = []
    for method in series.methods(record):
        xs: list[int | None] = []
        ys: list[float | None] = []
        hover: list[str] = []
        own = [c for c in found if c.method == method]
        for curve in own:
            # One trace per method keeps a page with thousands of trials quick; None breaks the line.
            xs += [*curve.epochs, None]
            ys += [*curve.values, None]
            hover += [_hover(curve.trial)] * (len(curve.epochs) + 1)
        if own:
            colour, dash, _ = style[method]
            # A dot as well when no line would show: every trial has a single epoch.
            dots = all(len(c.epochs) == 1 for c in own)
            trace = {"x": xs, "y": ys, "name": as_text(method), "mode": "markers" if dots else "lines"}
            trace |= {"line": {"color": colour, "width": 1.4, "dash": dash}, "opacity": 0.75}
            trace |= {"marker": {"color": colour}, "text": hover, "hovertemplate": _template(metric, "epoch")}
            data.append(trace)
    stopped = [c for c in found if c.stopped]
    if stopped:
        data.append(
            {
                "x": [c.epochs[-1] for c in stopped],
                "y": [c.values[-1] for c in stopped],
                "mode": "markers",
                "name": "stopped early",
                "marker": {"symbol": "x-thin", "size": 7, "line": {"width": 1.5, "color": "@ink-soft"}},
                "text": [_hover(c.trial) + "<br>" + as_text(c.trial.reason) for c in stopped],
                "hovertemplate": _template(metric, "epoch"),
            }
        )
    for curve in found:
        if curve.trial.id == record.winner:
            colour, dash, _ = style[curve.method]
            trace = {"x": curve.epochs, "y": curve.values, "name": "winner", "mode": "lines"}
            trace |= {"line": {"color": colour, "width": 4, "dash": dash}}
            trace |= {"text": _hover(curve.trial), "hovertemplate": _template(metric, "epoch")}
            data.append(trace)
    last = max(c.epochs[-1] for c in found)
    layout = {
        "xaxis": {"title": {"text": "epoch"}, "rangemode": "tozero", **_whole(last)},
        "yaxis": _value_axis(metric, primary_objective(record)),
    }
    return {"data": data, "layout": layout}


def size_chart(record: SearchRecord) -> Figure | None:
    """Value against trainable parameters (log scale) with the Pareto front as a line."""
    points = [p for p in series.history(record) if p.trial.trainable_params > 0]
    if not points:
        return None
    objective = primary_objective(record)
    front = series.front(record, points)
    line = {
        "x": [p.trial.trainable_params for p in front],
        "y": [p.value for p in front],
        "mode": "lines",
        "name": "Pareto front",
        "line": {"color": "@ink-soft", "width": 1.5, "shape": "hv"},
        "hoverinfo": "skip",
    }
    data = [line, *_markers(record, points, lambda p: p.trial.trainable_params)]
    data += _ring(record, points, "trainable_params")
    layout: dict[str, Any] = {
        "xaxis": {
            "title": {"text": "trainable parameters (log scale)"},
            "type": "log",
            "tickformat": "~s",
            "dtick": "D2" if _decades(points) < 3 else 1,
        },
        "yaxis": _value_axis(objective.metric, objective),
    }
    bound = next((o.bound_max for o in record.objectives if o.metric == "trainable_params"), None)
    if bound:
        layout["shapes"] = [
            {
                "type": "line",
                **{"x0": bound, "x1": bound, "y0": 0, "y1": 1, "yref": "paper"},
                "line": {"color": "@ink-soft", "width": 1, "dash": "dot"},
                "label": {
                    **{"text": "bound", "textposition": "end", "textangle": 0},
                    **{"xanchor": "left", "yanchor": "top", "padding": 6},
                    "font": {"color": "@ink-soft"},
                },
            }
        ]
    return {"data": data, "layout": layout}


def colour_of(record: SearchRecord) -> dict[str, str]:
    """The style sheet's colour of each method, `c0` …; the linear probe is always `baseline`."""
    return {method: colour[1:] for method, (colour, _, _) in _styles(record).items()}


def _styles(record: SearchRecord) -> dict[str, tuple[str, str, str]]:
    """Colour, dash and symbol per method: shape as well as colour, for eyes that see fewer colours."""
    styles: dict[str, tuple[str, str, str]] = {}
    index = 0
    for method in series.methods(record):
        if method == BASELINE_METHOD:
            styles[method] = ("@baseline", "solid", "triangle-down")
            continue
        dash = _DASHES[(index // COLOURS) % len(_DASHES)]
        styles[method] = (f"@c{index % COLOURS}", dash, _SYMBOLS[index % len(_SYMBOLS)])
        index += 1
    return styles


def _markers(record: SearchRecord, points: list[series.Point], x: Any) -> list[dict[str, Any]]:
    """One trace per method; filled when the trial trained to its end, hollow when it was stopped."""
    metric = primary_objective(record).metric
    over = repeats_text(repeats_of(record.info))
    traces = []
    for method, (colour, _, symbol) in _styles(record).items():
        own = [p for p in points if p.method == method]
        if own:
            marker = {"color": colour, "size": 10, "line": {"width": 1.8, "color": colour}}
            traces.append(
                {
                    "x": [x(p) for p in own],
                    "y": [p.value for p in own],
                    "mode": "markers",
                    "name": as_text(method),
                    "marker": {**marker, "symbol": [symbol if p.complete else f"{symbol}-open" for p in own]},
                    "text": [f"{_hover(p.trial)}<br>{_state(p, metric, over)}" for p in own],
                    "hovertemplate": _template(metric),
                }
            )
    return traces


def _ring(record: SearchRecord, points: list[series.Point], attribute: str) -> list[dict[str, Any]]:
    winner = next((p for p in points if p.trial.id == record.winner), None)
    if winner is None:
        return []
    marker = {"symbol": "circle-open", "size": 22, "color": "@ink", "line": {"width": 1.5}}
    place = {"x": [getattr(winner.trial, attribute)], "y": [winner.value], "mode": "markers"}
    return [{**place, "name": "winner", "marker": marker, "hoverinfo": "skip"}]


def _state(point: series.Point, metric: str, over: str) -> str:
    epochs = point.trial.epochs
    best = next((e for e in epochs if e.metrics.get(metric) == point.value), None)
    deviation = None if best is None else deviation_of(metric, best.metrics)
    spread = "" if deviation is None else f"<br>{with_deviation(metric, point.value, deviation)} ({over})"
    return f"{point.trial.status}, epoch {epochs[-1].epoch if epochs else 0}{spread}"


def _hover(trial: TrialRecord) -> str:
    lines = _wrap(shortened(configuration_text(trial.params), _HOVER_LIMIT), 48)
    parts = [f"<b>{as_text(trial.name)}</b>", *map(as_text, lines), f"{trial.trainable_params:,} trainable"]
    if trial.status is Status.FAILED:
        parts.append(as_text(trial.reason))
    return "<br>".join(parts)


def shortened(text: str, limit: int) -> str:
    """At most `limit` characters, the last one … where something is cut off."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _wrap(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return [line for line in lines if line]


def _template(metric: str, x: str = "") -> str:
    value = "%{y:.1%}" if is_percentage(metric) else "%{y:.4g}"
    where = f" at {x} %{{x}}" if x else ""
    return f"%{{text}}<br><b>{as_text(metric)} {value}</b>{where}<extra></extra>"


def _value_axis(metric: str, objective: Objective) -> dict[str, Any]:
    better = " (lower is better)" if metric == objective.metric and objective.mode == "min" else ""
    axis: dict[str, Any] = {"title": {"text": as_text(metric) + better}}
    if is_percentage(metric):
        axis |= {"tickformat": ".1~%", "rangemode": "nonnegative"}
    return axis


def _whole(last: int) -> dict[str, Any]:
    """No ticks between whole numbers on an axis that counts to `last`."""
    return {"tickformat": "d", "dtick": 1} if last < 8 else {"tickformat": "d"}


def _decades(points: list[series.Point]) -> float:
    sizes = [p.trial.trainable_params for p in points]
    return len(str(max(sizes))) - len(str(min(sizes)))


def as_text(value: Any) -> str:
    """A user's text for Plotly, which would otherwise read tags, entities and %{…} in it."""
    return html.escape(str(value), quote=False).replace("%{", "%&#123;")


__all__ = [
    "COLOURS",
    "Figure",
    "as_text",
    "colour_of",
    "curves_chart",
    "history_chart",
    "shortened",
    "size_chart",
]
