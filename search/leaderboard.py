"""The leaderboard for a terminal and as CSV (torch-free and Ray-free; rich is imported when needed)."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import TYPE_CHECKING

from search.metric_text import parts_of, repeats_of, repeats_text, with_deviation
from search.ranking import LeaderboardRow, leaderboard, primary_objective
from search.records import Objective, SearchRecord, Status
from search.tables import param_keys, plain_value
from search.texts import short_configuration, short_count

if TYPE_CHECKING:
    import rich.table


def leaderboard_text(record: SearchRecord, rows: int = 10) -> rich.table.Table:
    """The top of the leaderboard of a search that nobody runs any more, for a terminal of at least 100 columns.

    The best linear probe is always there, as one line more when it is not among the first `rows`; the
    winner is bold.
    """
    from rich.table import Table
    from rich.text import Text

    objective = primary_objective(record)
    board = leaderboard(record)
    shown = [r for r in board if r.rank is not None][:rows]
    baseline = next((r for r in board if r.is_baseline and r.rank is not None), None)

    table = Table(width=100, box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", title_justify="left")
    table.add_column("#", justify="right", no_wrap=True, width=3)
    table.add_column("trial", no_wrap=True, width=6)
    table.add_column("method", no_wrap=True, overflow="ellipsis", max_width=18)
    table.add_column(objective.metric, justify="right", no_wrap=True, overflow="ellipsis", max_width=18)
    table.add_column("epochs", justify="right", no_wrap=True, width=6)
    words = {Status.RUNNING: "interrupted"}
    table.add_column("status", no_wrap=True, width=max([8, *(len(words.get(r.trial.status, "")) for r in shown)]))
    table.add_column("params", justify="right", no_wrap=True, width=6)
    table.add_column("configuration", no_wrap=True, overflow="ellipsis", ratio=1)

    def add(row: LeaderboardRow) -> None:
        style = "bold green" if row.is_winner else ("cyan" if row.is_baseline else "")
        cells = [
            str(row.rank),
            row.trial.id,
            f"{row.method} *" if row.is_baseline else row.method,
            with_deviation(objective.metric, row.value, row.deviation),
            str(row.epochs),
            words.get(row.trial.status, str(row.trial.status)),
            short_count(row.trial.trainable_params),
            short_configuration(row.trial.params),
        ]
        # Text, not str: a "[" in a configuration is no markup.
        table.add_row(*(Text(c) for c in cells), style=style)

    for row in shown:
        add(row)
    if baseline is not None and baseline not in shown:
        add(baseline)
        shown.append(baseline)
    table.caption = Text(_caption(record, board, shown))
    table.caption_justify = "left"
    return table


def _caption(record: SearchRecord, board: list[LeaderboardRow], shown: list[LeaderboardRow]) -> str:
    unranked = [r for r in board if r.rank is None]
    more = len(board) - len(unranked) - len(shown)
    parts = []
    if repeats_of(record.info):
        parts.append(f"mean of {repeats_text(repeats_of(record.info))} ± standard deviation")
    if any(r.is_baseline for r in shown):
        parts.append("* linear probe, the baseline")
    if more > 0:
        parts.append(f"{more} more in trials.parquet")
    if unranked:
        parts.append(f"{len(unranked)} without a result")
    if record.rejected:
        parts.append(f"{len(record.rejected)} rejected")
    return ", ".join(parts)


def write_leaderboard(record: SearchRecord, path: str | os.PathLike[str]) -> Path:
    """Write the whole leaderboard as CSV, one row per trial with every parameter of the search as a column.

    Of several repeats there are columns for the deviation and for each repeat's value, too.
    """
    target = Path(path)
    objective = primary_objective(record)
    keys = param_keys(record.trials)
    details = _details(record, objective)
    partial = target.with_name(target.name + ".part")
    with partial.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        outcome = ["rank", "trial_id", "name", "method", objective.metric, *details, "best_epoch", "epochs", "status"]
        writer.writerow([*outcome, "reason", "trainable_params", "seconds", *(f"param/{k}" for k in keys)])
        for row in leaderboard(record):
            trial = row.trial
            best = trial.best(objective)
            found = best.metrics if best is not None else {}
            head = [row.rank, trial.id, trial.name, row.method, row.value, *(found.get(name) for name in details)]
            head += [row.best_epoch, row.epochs]
            tail = [str(trial.status), trial.reason, trial.trainable_params, round(row.seconds, 3)]
            writer.writerow(head + tail + [plain_value(trial.params.get(k)) for k in keys])
    partial.replace(target)
    return target


def _details(record: SearchRecord, objective: Objective) -> list[str]:
    """Names of the deviation and of the repeats' own values of the objective."""
    names = dict.fromkeys(m for t in record.trials for e in t.epochs for m in e.metrics if m != objective.metric)
    wanted = parts_of(objective.metric)[:2]
    return [name for name in names if parts_of(name)[:2] == wanted]
