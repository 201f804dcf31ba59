"""`petl-search datasets check`: everything that is wrong with a copy of a data set (torch-free)."""

from __future__ import annotations

import json as json_text
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from petl.keys import validated
from trainables.config import DataOptions
from trainables.data.checking import Finding, Report, check
from trainables.data.datasets import dataset

_MARKS = {"error": "[red]error[/]  ", "warning": "[yellow]warning[/]", "note": "note   "}


def check_copy(
    name: str, path: Path, options: dict[str, str | None], examples: int, decode: bool, json: bool, out: Console
) -> int:
    """Print what was found; returns 0 when a search could train on the copy as it is, else 1.

    `options`: target, subset, protocol, lexicon; None stands for the data set's own. Raises `UserError` for a request
    that means nothing.
    """
    dataset(name)  # names what was probably meant
    given = {key: value for key, value in options.items() if value is not None}
    asked = validated(DataOptions, {"dataset": name, "path": str(path), **given})
    with _progress() as progress:
        report = check(asked, path.expanduser(), progress=progress, examples=examples, decode=decode)
    if json:
        out.file.write(json_text.dumps(report.to_json(), indent=2, ensure_ascii=False) + "\n")
    else:
        _print(report, out)
    return 0 if report.usable else 1


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A bar on the terminal; nothing where the output goes elsewhere."""
    console = Console(stderr=True)
    columns = (TextColumn("decoding"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("decoding", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _print(report: Report, out: Console) -> None:
    what = ", ".join(part for part in (report.target, report.subset, f"protocol {report.protocol}") if part)
    out.print(f"[bold]{escape(report.dataset)}[/] ({escape(what)}) in {escape(str(report.path))}", soft_wrap=True)
    facts = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for title, text in _facts(report.facts):
        facts.add_row(title, escape(text))
    if facts.row_count:
        out.print(facts)
    for finding in report.findings:
        _print_finding(finding, out)
    counts = [
        (len(report.of("error")), "error"),
        (len(report.of("warning")), "warning"),
        (len(report.of("note")), "note"),
    ]
    said = ", ".join(f"{count} {noun}{'' if count == 1 else 's'}" for count, noun in counts if count)
    heard = "" if report.listened else "; no clip was decoded"
    out.print(
        f"{said or 'nothing is wrong'}{heard}" + ("" if report.usable else ": this cannot be trained on as it is")
    )


def _print_finding(finding: Finding, out: Console) -> None:
    count = f" ({finding.count:,})" if finding.examples or finding.count > 1 else ""
    title = finding.kind.replace("_", " ")
    out.print(f"{_MARKS[finding.severity]} [bold]{title}[/]{count}: {escape(finding.message)}", soft_wrap=True)
    for example in finding.examples:
        out.print(f"          {escape(example)}", soft_wrap=True)
    rest = finding.count - len(finding.examples)
    if finding.examples and rest > 0 and finding.kind not in _SUMS:
        out.print(f"          … and {rest:,} more")


_SUMS = ("low_rate", "channels")  # their examples say how many clips each


def _facts(facts: Any) -> Iterator[tuple[str, str]]:
    if not facts:
        return
    counted = [f"{facts['clips']:,}"]
    counted += [f"{facts[key]:,} {key}" for key in ("classes", "speakers", "symbols") if key in facts]
    yield "clips", ", ".join(counted)
    of = "splits (first fold)" if "folds" in facts else "splits"
    yield of, ", ".join(_split(name, held) for name, held in facts.get("splits", {}).items())
    if "folds" in facts:
        yield "folds", ", ".join(f"{fold}: {count:,}" for fold, count in facts["folds"].items())
    if "largest_class" in facts:
        ends = ((facts[key], word) for key, word in (("largest_class", "most"), ("smallest_class", "fewest")))
        yield "per class", ", ".join(f"{word} {count:,} ({name})" for (name, count), word in ends)
    if "seconds" in facts:
        held = facts["seconds"]
        yield (
            "seconds",
            f"{held['least']:g} to {held['most']:g}, median {held['median']:g}; {_time(held['total'])} in all",
        )
        yield "sample rate", ", ".join(f"{int(rate):,} Hz ({n:,} clips)" for rate, n in facts["sample_rates"].items())
        yield "channels", ", ".join(f"{number} ({n:,} clips)" for number, n in facts["channels"].items())


def _split(name: str, held: dict[str, Any]) -> str:
    hours = f", {_time(3600 * held['hours'])}" if "hours" in held else ""
    return f"{name} {held['clips']:,}{hours}"


def _time(seconds: float) -> str:
    if seconds >= 7200:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
