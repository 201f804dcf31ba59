"""The three main charts as PNG pictures, for places that show pictures but no page (torch-free)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from search.metric_text import is_percentage
from search.ranking import BASELINE_METHOD, primary_objective
from search.records import SearchRecord
from search.report import series

# Okabe and Ito's colours, told apart by almost every eye; the page uses shades of the same.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A6D3B")
_MARKERS = "osD^pP*v"
_GREY = "#777777"


def write_figures(record: SearchRecord, directory: str | os.PathLike[str]) -> list[Path]:
    """Write `history.png`, `curves.png` and `pareto.png` into `directory` (made if missing).

    A picture that would be empty is not written. Returns the files written.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    drawings: dict[str, Callable[[SearchRecord, Any], bool]] = {
        "history.png": _history,
        "curves.png": _curves,
        "pareto.png": _pareto,
    }
    return [folder / name for name, draw in drawings.items() if _picture(record, folder / name, draw)]


def _picture(record: SearchRecord, path: Path, draw: Callable[[SearchRecord, Any], bool]) -> bool:
    # Figure without pyplot: no global state, no window, safe beside a user's own plots.
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(8, 4.5), dpi=130, layout="constrained")
    axes = figure.subplots()
    if not draw(record, axes):
        return False
    objective = primary_objective(record)
    metric = objective.metric
    axes.set_ylabel(_text(metric) + (" (lower is better)" if objective.mode == "min" else ""))
    if is_percentage(metric):
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1.0))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9)
    figure.savefig(path)
    return True


def _history(record: SearchRecord, axes: Any) -> bool:
    points = series.history(record)
    if not points:
        return False
    best = series.best_so_far(points, primary_objective(record).mode)
    numbers = [p.trial.number for p in points]
    axes.step(numbers, best, where="post", color=_GREY, linewidth=1.2, label="best so far")
    _scatter(record, points, axes, lambda p: p.trial.number)
    axes.set_xlabel("trial number (hollow: stopped early)")
    return True


def _curves(record: SearchRecord, axes: Any) -> bool:
    found = series.curves(record, primary_objective(record).metric)
    if not found:
        return False
    styles = _styles(record)
    named: set[str] = set()
    for curve in found:
        colour, marker = styles[curve.method]
        winner = curve.trial.id == record.winner
        label = None if curve.method in named else _text(curve.method)
        named.add(curve.method)
        axes.plot(
            curve.epochs,
            curve.values,
            color=colour,
            linewidth=3.0 if winner else 1.0,
            alpha=1.0 if winner else 0.7,
            marker=marker if len(curve.epochs) == 1 else None,
            label=label,
        )
    stopped = [c for c in found if c.stopped]
    if stopped:
        ends = [c.epochs[-1] for c in stopped], [c.values[-1] for c in stopped]
        axes.plot(*ends, "x", color="#444444", markersize=5, label="stopped early")
    axes.set_xlabel("epoch (thick: the winner)" if record.winner else "epoch")
    return True


def _pareto(record: SearchRecord, axes: Any) -> bool:
    points = [p for p in series.history(record) if p.trial.trainable_params > 0]
    if not points:
        return False
    front = series.front(record, points)
    steps = [p.trial.trainable_params for p in front], [p.value for p in front]
    axes.step(*steps, where="post", color=_GREY, linewidth=1.2, label="Pareto front")
    _scatter(record, points, axes, lambda p: p.trial.trainable_params)
    axes.set_xscale("log")
    axes.set_xlabel("trainable parameters (log scale; hollow: stopped early)")
    return True


def _scatter(record: SearchRecord, points: list[series.Point], axes: Any, x: Callable[[series.Point], float]) -> None:
    for method, (colour, marker) in _styles(record).items():
        for complete in (True, False):
            own = [p for p in points if p.method == method and p.complete is complete]
            if own:
                named = complete or not any(p.method == method and p.complete for p in points)
                axes.scatter(
                    [x(p) for p in own],
                    [p.value for p in own],
                    s=36,
                    marker=marker,
                    facecolors=colour if complete else "none",
                    edgecolors=colour,
                    label=_text(method) if named else None,
                    zorder=3,
                )


def _styles(record: SearchRecord) -> dict[str, tuple[str, str]]:
    styles: dict[str, tuple[str, str]] = {}
    others = [m for m in series.methods(record) if m != BASELINE_METHOD]
    for index, method in enumerate(others):
        styles[method] = (_COLOURS[index % len(_COLOURS)], _MARKERS[index % len(_MARKERS)])
    if BASELINE_METHOD in series.methods(record):
        styles[BASELINE_METHOD] = (_GREY, "v")
    return styles


def _text(value: str) -> str:
    """A user's text for matplotlib, which would read formulas between dollar signs and skip a leading "_"."""
    text = value.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text
