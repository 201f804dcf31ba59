"""`petl-search report`: the files of a search again, from its journal."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from petl.errors import UserError
from search.files import write_files
from search.journal import read_journal
from search.request import Outcome
from search.space import load_space


def rewrite_report(directory: Path, out: Console) -> None:
    """Write report, tables and figures of the search in `directory`.

    Raises:
        UserError: it is not the directory of a search, or part of it is missing.
    """
    record, space = read_journal(directory), directory / "space.yaml"
    if not space.is_file():
        raise UserError(
            f"{space} is missing, which the report shows; take it from the search's artifacts in MLflow, from its "
            "--storage, or copy the file there that the search was begun with"
        )
    best = directory / "best"
    outcome = Outcome(record, directory, best=best if best.is_dir() else None, mlflow_uri=record.info["mlflow"])
    write_files(outcome, load_space(space, {}))
    out.print(f"report  {directory / 'report.html'}", markup=False, soft_wrap=True)
