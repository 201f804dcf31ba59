"""The report of a search: one HTML file that needs nothing else, and its charts as PNG pictures.

Facts the report shows when they are in `SearchRecord.info` (every one may be missing):

| key | value |
|---|---|
| `space`, `space_digest` | file and digest of the space |
| `backbone`, `backbone_revision`, `backbone_params` | name or path, revision, number of frozen parameters |
| `dataset`, `data`, `data_digest` | format, path, digest of the data |
| `task`, `target` | what is learned of the data |
| `protocol`, `reads_test` | how the data are split; true when epochs were chosen on test clips, as published |
| `repeats` | titles of the trainings of every trial (`["fold1", …]`), when there are several |
| `splits` | `{"train": 240, "val": 120, "test": 120}`, clips per split, of the first repeat |
| `classes`, `labels_are` | number of labels, and what they are called (classes, tags, symbols …) |
| `bad_files` | `[{"file": …, "reason": …}]` or paths: what was skipped |
| `dropped` | the same form: training clips that could not be learned from |
| `left_out` | what the reader of the data set left out, a sentence each |
| `method` | the method, when the space fixes it |
| `epochs` | epochs of a trial that is never stopped |
| `seed`, `git_commit`, `versions`, `hardware` | what it ran with; the last two may be mappings |
| `best_config` | the winner's resolved configuration, dotted or nested |
| `confusion` | `{"labels": [...], "matrix": [[...]]}`, rows true, columns predicted, test split, of the winner |
| `per_class` | a list of rows, each with its `label`, of the same |
| `tables` | names of all tables of the task that are in `info`, those two among them: lists of rows or mappings |
| `intervals` | `{"accuracy": [0.67, 0.83]}`, 95 % bootstrap bounds of test metrics |
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
