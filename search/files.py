"""The files a search leaves in its run directory, made from its record (torch-free)."""

from __future__ import annotations

from pathlib import Path

from search.leaderboard import write_leaderboard
from search.records import Status
from search.report import write_figures, write_report
from search.request import Outcome, next_commands
from search.result_tables import write_tables
from search.space import Space
from search.studies import frozen, make_study
from search.tables import write_trials

Artifact = Path | tuple[Path, str]
"""A file, or a file and the folder it goes to in the tracking server."""


def write_files(outcome: Outcome, space: Space) -> list[Artifact]:
    """Write tables, figures and report; returns everything worth keeping with the tracked search."""
    record, directory = outcome.record, outcome.directory
    write_trials(record, directory / "trials.parquet")
    write_leaderboard(record, directory / "leaderboard.csv")
    study = make_study(space)
    study.add_trials([frozen(space, trial) for trial in record.trials if trial.status is not Status.RUNNING])
    write_report(record, directory / "report.html", command_lines=next_commands(outcome), study=study)
    figures = write_figures(record, directory / "figures")
    names = ("report.html", "trials.parquet", "leaderboard.csv", "space.yaml", "best.yaml")
    kept: list[Artifact] = [path for path in (directory / name for name in names) if path.exists()]
    kept += [(figure, "figures") for figure in figures]
    kept += [(table, "tables") for table in write_tables(record, directory / "tables")]
    if outcome.best is not None:
        kept += [(path, "best") for path in sorted(outcome.best.iterdir())]
    return kept
