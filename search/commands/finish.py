"""The last screen of a search."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from search.leaderboard import leaderboard_text
from search.metric_text import format_mean, repeats_of, repeats_text
from search.ranking import primary_objective
from search.records import SearchRecord, TrialRecord
from search.report.cautions import test_value
from search.report.summary import interval_text
from search.request import Outcome, next_commands, resume_command


def print_outcome(outcome: Outcome, out: Console, err: Console) -> int:
    """Print what came out and where it is; returns the exit status."""
    record = outcome.record
    if record.ranked():
        out.print(leaderboard_text(record))
    if outcome.best is not None and record.winner is not None:
        winner = next(t for t in record.trials if t.id == record.winner)
        out.print(f"best: [bold]{escape(winner.name)}[/]  {escape(_reached(record, winner))}", soft_wrap=True)
    if record.info.get("reads_test"):
        out.print("as published, epochs were chosen on test clips: the values are too good", style="yellow")
    dropped = len(record.info.get("dropped") or ())
    if dropped:
        out.print(f"{dropped} training clips could not be learned from; the report lists them")
    if record.info.get("bad_files"):
        out.print(f"{len(record.info['bad_files'])} unusable clips were left out; the report lists them")
    for sentence in record.info.get("left_out") or ():
        out.print(escape(sentence), soft_wrap=True)
    out.print()
    repeats = [str(title) for title in record.info.get("repeats") or ()]
    for label, path in (
        ("adapter", outcome.best),
        ("report", outcome.directory / "report.html"),
        ("all trials", outcome.directory / "trials.parquet"),
    ):
        if path is not None and path.exists():
            several = label == "adapter" and len(repeats) > 1
            of = f" ({repeats[0]}'s; those of {', '.join(repeats[1:])} are beside it)" if several else ""
            out.print(f"{label:<11}{escape(str(path))}{escape(of)}", soft_wrap=True)
    out.print(f"{'tracking':<11}{escape(outcome.mlflow_uri)}", soft_wrap=True)
    commands = next_commands(outcome)
    if commands:
        out.print("\nnext:")
        for command in commands:
            out.print(f"  {escape(command)}", soft_wrap=True)
    resume = resume_command(outcome.record)
    if outcome.interrupted:
        err.print(f"\ninterrupted; everything finished is kept. Continue with:\n  {escape(resume)}", soft_wrap=True)
        return 130
    if outcome.problem:
        err.print(f"\n[bold red]failed:[/] {escape(outcome.problem)}", soft_wrap=True)
        err.print(f"what was finished is kept; after mending, continue with:\n  {escape(resume)}", soft_wrap=True)
        return 1
    return 0


def _reached(record: SearchRecord, winner: TrialRecord) -> str:
    objective = primary_objective(record)
    best = winner.best(objective)
    words = f"{objective.metric} {format_mean(objective.metric, best.metrics) if best is not None else '–'}"
    titles = repeats_of(record.info)
    if titles:
        words += f" ({repeats_text(titles)})"
    tested = test_value(record)
    if tested is not None:
        words += f", test {format_mean(tested[0], record.test)}"
        interval = interval_text(record, *tested)
        words += f" ({interval})" if interval else ""
    return f"{words}  ({winner.trainable_params:,} trained parameters)"
