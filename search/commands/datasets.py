"""`petl-search datasets`: the layouts that can be searched on (torch-free)."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def list_datasets(out: Console) -> None:
    """Print every known layout with its protocols, source and licence."""
    from trainables.data import datasets

    table = Table(title="data layouts: --dataset NAME --data PATH", show_lines=True)
    for column in ("name", "layout on disk", "splits", "source and licence"):
        table.add_column(column)
    for layout in datasets():
        source = "\n".join(part for part in (layout.citation, layout.licence) if part) or "yours"
        table.add_row(
            layout.name,
            escape(f"{layout.summary}\n{layout.layout}"),
            escape("\n".join(layout.protocols)),
            escape(source),
        )
    out.print(table)
