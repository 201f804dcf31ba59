"""`petl-search report`: the files of a search again, from its journal."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from search.files import write_files
from search.journal import read_journal
from search.request import Outcome
from search.space import load_space


def rewrite_report(directory: Path, out: Console) -> None:
    """Write report, tables and figures of the search in `directory`."""
    record = read_journal(directory)
    best = directory / "best"
    outcome = Outcome(record, directory, best=best if best.is_dir() else None, mlflow_uri=record.info["mlflow"])
    write_files(outcome, load_space(directory / "space.yaml", {}))
    out.print(f"report  {directory / 'report.html'}", markup=False, soft_wrap=True)
