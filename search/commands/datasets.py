"""`petl-search datasets`: what can be searched on (torch-free)."""

from __future__ import annotations

from collections.abc import Mapping

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trainables.config import EMBEDDED
from trainables.data.datasets import Dataset, Expected, dataset, datasets

_TASKS = {
    "classification": "one class",
    "tagging": "several tags",
    "slots": "several slots",
    "verification": "same speaker?",
    "speech_recognition": "words",
    "phonemes": "phones",
    "slot_filling": "words and slots",
}


def list_datasets(out: Console) -> None:
    """Print every known data set in a line or two."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), header_style="bold", show_edge=False)
    table.add_column("name", no_wrap=True)
    table.add_column("what it is, and what is learned", overflow="fold")
    table.add_column("clips", justify="right", no_wrap=True)
    table.add_column("protocols", max_width=19)
    for known in datasets():
        targets = "; ".join(f"{name}: {_TASKS[target.task]}" for name, target in known.targets.items())
        protocols = ", ".join(name + ("*" if rule.reads_test else "") for name, rule in known.protocols.items())
        table.add_row(known.name, f"{escape(known.summary)}\n[dim]{escape(targets)}[/]", _clips(known), protocols)
    out.print(table)
    out.print("* chooses epochs on clips of the test, as published")
    out.print(
        "`petl-search datasets NAME` shows layout, subsets, protocols, source and licence; "
        "`petl-search datasets check NAME PATH` finds what is wrong with a copy."
    )


def show_dataset(name: str, out: Console) -> None:
    """Print everything that is known of one data set; `ConfigError` for an unknown name."""
    known = dataset(name)
    out.print(f"[bold]{known.name}[/]  {escape(known.summary)}")
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    targets = {key: f"{target.summary} ({target.task})" for key, target in known.targets.items()}
    protocols = {
        key: rule.summary + (" \\[reads the test: scores are too good]" if rule.reads_test else "")
        for key, rule in known.protocols.items()
    }
    rows = {
        "layout": escape(known.layout),
        "targets": _listed(targets),
        "subsets": _listed(known.subsets) + ("\nor another name" if known.any_subset and known.subsets else ""),
        "protocols": _listed(protocols, escaped=True),
        "a whole copy": "\n".join(escape(_figures(expected)) for expected in known.expected),
        "source": escape(known.citation or "yours"),
        "licence": escape(known.licence or "yours"),
        "use": "" if name == EMBEDDED else escape(_use(known)),
    }
    for title, text in rows.items():
        if text:
            table.add_row(title, text)
    out.print(table)


def _clips(known: Dataset) -> str:
    """The published number of clips, of the default target and subset where there are several."""
    target, subset = next(iter(known.targets)), next(iter(known.subsets), "")
    fitting = [e.clips for e in known.expected if e.target in ("", target) and e.subset in ("", subset)]
    return f"{fitting[0]:,}" if fitting and fitting[0] else ""


def _listed(named: Mapping[str, str], *, escaped: bool = False) -> str:
    return "\n".join(f"[bold]{escape(key)}[/]  {text if escaped else escape(text)}" for key, text in named.items())


def _figures(expected: Expected) -> str:
    of = ", ".join(part for part in (expected.target, expected.subset) if part)
    parts = [f"{expected.clips:,} clips"] if expected.clips else []
    parts += [f"{expected.classes} classes"] if expected.classes else []
    parts += [" + ".join(f"{count:,} {name}" for name, count in expected.splits.items())] if expected.splits else []
    sizes = sorted(set(expected.folds.values()))
    if sizes:
        each = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
        parts.append(f"{len(expected.folds)} folds of {each}")
    return f"{f'{of}: ' if of else ''}{', '.join(parts)}" + (f" ({expected.source})" if expected.source else "")


def _use(known: Dataset) -> str:
    options = [f"--dataset {known.name} --data PATH"]
    options += [f"--set data.target={next(iter(known.targets))}"] if len(known.targets) > 1 else []
    options += [f"--set data.subset={next(iter(known.subsets))}"] if len(known.subsets) > 1 else []
    options += ["--set data.protocol=standard"] if len(known.protocols) > 1 else []
    return " ".join(options)
