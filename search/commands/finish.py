"""The last screen of a search."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from search.request import Outcome, next_commands
from search.tables import format_value, leaderboard_text


def print_outcome(outcome: Outcome, out: Console, err: Console) -> int:
    """Print what came out and where it is; returns the exit status."""
    record = outcome.record
    if record.ranked():
        out.print(leaderboard_text(record))
    if outcome.best is not None and record.winner is not None:
        winner = next(t for t in record.trials if t.id == record.winner)
        first = record.objectives[0]
        tested = record.test.get(first.metric.replace("val/", "test/", 1))
        shown = f", test {format_value(first.metric, tested)}" if tested is not None else ""
        out.print(
            f"best: [bold]{escape(winner.name)}[/]  "
            f"{first.metric} {format_value(first.metric, winner.value(first))}{shown}  "
            f"({winner.trainable_params:,} trained parameters)"
        )
    if record.info.get("bad_files"):
        out.print(f"{len(record.info['bad_files'])} unusable clips were left out; the report lists them")
    out.print()
    for label, path in (
        ("adapter", outcome.best),
        ("report", outcome.directory / "report.html"),
        ("all trials", outcome.directory / "trials.parquet"),
    ):
        if path is not None and path.exists():
            out.print(f"{label:<11}{escape(str(path))}", soft_wrap=True)
    out.print(f"{'tracking':<11}{escape(outcome.mlflow_uri)}", soft_wrap=True)
    commands = next_commands(outcome)
    if commands:
        out.print("\nnext:")
        for command in commands:
            out.print(f"  {escape(command)}", soft_wrap=True)
    resume = f"uv run launch.py --resume {outcome.directory}"
    if outcome.interrupted:
        err.print(f"\ninterrupted; everything finished is kept. Continue with:\n  {escape(resume)}", soft_wrap=True)
        return 130
    if outcome.problem:
        err.print(f"\n[bold red]failed:[/] {escape(outcome.problem)}", soft_wrap=True)
        err.print(f"what was finished is kept; after mending, continue with:\n  {escape(resume)}", soft_wrap=True)
        return 1
    return 0
