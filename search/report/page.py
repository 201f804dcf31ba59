"""Writes `report.html`: one file with its style, its code and its charts inside, readable without a network."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.metric_text import gap_text, repeats_of, repeats_text, with_deviation
from search.ranking import leaderboard, primary_objective, winner_of
from search.records import SearchRecord, TrialRecord
from search.report import charts, series, summary
from search.report.cautions import cautions, files_left_out
from search.report.cells import cells
from search.report.confusion import MOST_CLASSES, confusion_chart
from search.report.importance import importances
from search.report.methods import method_rows
from search.result_tables import class_table, confused_pairs, confusion_of, repeats_table, task_tables
from search.texts import configuration_text

if TYPE_CHECKING:
    import optuna

_HERE = Path(__file__).parent
_MAX_CURVE_METRICS = 8
_ROWS_AT_FIRST = 25


def write_report(
    record: SearchRecord,
    path: str | os.PathLike[str],
    *,
    command_lines: Sequence[str],
    study: optuna.Study | None = None,
) -> Path:
    """Write the report of a search, finished or not, and return its path.

    Args:
        record: what happened; `search.report` lists the facts of `record.info` that are shown.
        path: the HTML file; an older one is replaced only once the new one is whole.
        command_lines: what a person would run next (view, predict, repeat), shown to be copied.
        study: the search's Optuna study, if at hand; it tells the importances which scales were sampled.

    Raises:
        OSError: the file cannot be written.
    """
    target = Path(path)
    page = render(record, command_lines=command_lines, study=study)
    partial = target.with_name(target.name + ".part")
    partial.write_text(page, encoding="utf-8")
    partial.replace(target)
    return target


def render(
    record: SearchRecord, *, command_lines: Sequence[str], study: optuna.Study | None = None, script: bool = True
) -> str:
    """The page as text; `script=False` leaves Plotly's own 5 MB out (the charts then stay empty)."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    figures = _figures(record)
    needed = script and any(figures.values())
    return environment.get_template("report.html.j2").render(
        **_words(record, command_lines, study),
        has=figures,
        # Markup: our own files, and JSON in which "<" is escaped.
        style=Markup((_HERE / "report.css").read_text(encoding="utf-8")),
        code=Markup((_HERE / "report.js").read_text(encoding="utf-8")),
        plotly=Markup(_plotly()) if needed else "",
        figures=Markup(_json(figures)),
    )


def _words(record: SearchRecord, command_lines: Sequence[str], study: optuna.Study | None) -> dict[str, Any]:
    objective = primary_objective(record)
    winner = winner_of(record)
    points = series.history(record)
    return {
        "record": record,
        "metric": objective.metric,
        "lower": objective.mode == "min",
        "over": repeats_text(repeats_of(record.info)),
        "headline": summary.headline(record),
        "tiles": summary.tiles(record),
        "facts": summary.facts(record),
        "cautions": cautions(record),
        "left_out": [
            (title, rows)
            for title, rows in (
                ("Skipped audio files", files_left_out(record, "bad_files")),
                ("Training clips not learned from", files_left_out(record, "dropped")),
            )
            if rows
        ],
        "methods": method_rows(record),
        "colours": charts.colour_of(record),
        "importances": importances(record, study),
        "front": series.front(record, [p for p in points if p.trial.trainable_params > 0]),
        "board": leaderboard(record),
        "rows_at_first": _ROWS_AT_FIRST,
        "rejected": summary.rejected_rows(record),
        "failures": summary.failures(record),
        "incidents": summary.incidents(record),
        "winner": winner,
        **_configuration(record, winner),
        "metrics": summary.metric_rows(record),
        **_tables(record),
        "commands": [str(line) for line in command_lines],
        "environment": summary.environment(record),
        "value": lambda v, deviation=None: with_deviation(objective.metric, v, deviation),
        "gap": lambda g: gap_text(objective.metric, g, objective.mode),
        "configuration": configuration_text,
    }


def _tables(record: SearchRecord) -> dict[str, Any]:
    """What the evaluation of the winner found, as cells."""
    classes = class_table(record)
    confusion = confusion_of(record)
    repeats = repeats_table(record)
    pairs = confused_pairs(*confusion) if confusion is not None and len(confusion[0]) > MOST_CLASSES else None
    return {
        "repeats": None if repeats is None else cells(repeats),
        "classes": None if classes is None else cells(*classes, ascending=True),
        "pairs": None if pairs is None else cells(pairs, "share"),
        "others": [cells(table) for table in task_tables(record) if table.name != "per_class"],
        "labels_are": str(record.info.get("labels_are") or "classes"),
    }


def _configuration(record: SearchRecord, winner: TrialRecord | None) -> dict[str, Any]:
    """The winner's sampled settings, and the rest of its configuration, which may be long."""
    sampled = winner.params if winner is not None else {}
    config = record.info.get("best_config")
    others = config if isinstance(config, dict) else {}
    pairs = [(key, text) for key, text in summary.settings(others) if key not in sampled]
    return {"settings": summary.settings(sampled), "other_settings": pairs}


def _figures(record: SearchRecord) -> dict[str, Any]:
    """Chart name → figure, or None where there is nothing to draw. Curves: one figure per metric."""
    confusion = confusion_of(record)
    drawn = confusion is not None and len(confusion[0]) <= MOST_CLASSES
    curves = {m: charts.curves_chart(record, m) for m in series.curve_metrics(record)[:_MAX_CURVE_METRICS]}
    return {
        "history": charts.history_chart(record),
        "curves": {m: figure for m, figure in curves.items() if figure} or None,
        "size": charts.size_chart(record),
        "confusion": confusion_chart(*confusion) if confusion is not None and drawn else None,
    }


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return get_plotlyjs()


def _json(value: Any) -> str:
    """JSON that may stand inside a script element: no "<" to close it, no NaN, no line separators."""
    text = json.dumps(_finite(value), allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
