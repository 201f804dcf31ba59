"""`petl-search report` on what is not whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from petl.errors import UserError
from search.commands.report import rewrite_report
from tests.search.test_tracking import make_record, write_journal


def test_a_run_without_its_space_says_what_is_missing_and_where_to_take_it_from(tmp_path: Path) -> None:
    record = make_record(tmp_path)
    write_journal(record)
    with pytest.raises(UserError, match=r"space\.yaml is missing.*MLflow"):
        rewrite_report(Path(record.directory), Console(quiet=True))
    assert not (Path(record.directory) / "report.html").exists()
