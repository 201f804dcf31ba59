"""The report of a search: one HTML file that needs nothing else, and its charts as PNG pictures.

Facts the report shows when they are in `SearchRecord.info` (every one may be missing):

| key | value |
|---|---|
| `space`, `space_digest` | file and digest of the space |
| `backbone`, `backbone_revision`, `backbone_params` | name or path, revision, number of frozen parameters |
| `dataset`, `data`, `data_digest` | format, path, digest of the data |
| `splits` | `{"train": 240, "val": 120, "test": 120}`, clips per split |
| `classes` | number of labels |
| `bad_files` | `[{"file": …, "reason": …}]` or paths: what was skipped |
| `method` | the method, when the space fixes it |
| `epochs` | epochs of a trial that is never stopped |
| `seed`, `git_commit`, `versions`, `hardware` | what it ran with; the last two may be mappings |
| `best_config` | the winner's resolved configuration, dotted or nested |
| `confusion` | `{"labels": [...], "matrix": [[...]]}`, rows true, columns predicted, test split, of the winner |
| `interrupted` | true when the search was stopped before its budget |

Whatever else is there is listed under "Environment". Torch-free; jinja2, plotly, optuna and matplotlib are
imported when something is written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search.report.figures import write_figures
    from search.report.page import write_report

__all__ = ["write_figures", "write_report"]


def __getattr__(name: str) -> Any:
    if name == "write_report":
        from search.report.page import write_report

        return write_report
    if name == "write_figures":
        from search.report.figures import write_figures

        return write_figures
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
