"""`petl-search recipes`: how the published systems trained what, on what (torch-free)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from petl.errors import ConfigError, nearest
from trainables.recipes import RECIPES, Row, recipes
from trainables.recipes.base import KINDS, Kind


def list_recipes(name: str | None, dataset: str | None, method: str | None, out: Console) -> None:
    """Print what the recipes cover; with a data set or method, the settings and where each is published.

    Raises `ConfigError` for a recipe, data set or method that no recipe has.
    """
    if name is not None and name not in RECIPES:
        raise ConfigError(f"recipe '{name}' is not known{nearest(name, RECIPES)}; there are: {', '.join(RECIPES)}")
    rows = recipes(name)
    rows = _only(rows, "dataset", dataset, lambda row: row.dataset)
    rows = _only(rows, "method", method, lambda row: row.method)
    if dataset is None and method is None:
        _coverage(rows, out)
    else:
        for case in _cases(rows):
            _settings(*case, out)
    out.print("Use one with --set recipe=NAME beside --dataset and a method; whatever is given beside it wins.")


def _cases(rows: Sequence[Row]) -> list[tuple[list[Row], list[Kind]]]:
    """Rows of one target of a data set, and the kinds of backbones that have the same ones."""
    found: list[tuple[list[Row], list[Kind]]] = []
    for key, group in groupby(rows, lambda row: (row.name, row.dataset, row.target, row.backbone)):
        case = list(group)
        for other, kinds in found:
            if [replace(row, backbone=kinds[0]) for row in case] == other:
                kinds.append(key[-1])
                break
        else:
            found.append((case, [key[-1]]))
    return found


def _only(rows: list[Row], what: str, wanted: str | None, value: Any) -> list[Row]:
    if wanted is None:
        return rows
    found = [row for row in rows if value(row) == wanted]
    if not found:
        known = list(dict.fromkeys(value(row) for row in rows))
        raise ConfigError(f"no recipe has {what} '{wanted}'{nearest(wanted, known)}; there are: {', '.join(known)}")
    return found


def _coverage(rows: Sequence[Row], out: Console) -> None:
    """A block per recipe, a line per target of a data set."""
    for name, of_recipe in groupby(rows, lambda row: row.name):
        recipe = RECIPES[name]
        out.print(f"[bold]{name}[/]  {escape(recipe.summary)} ({escape(recipe.source)})", soft_wrap=True)
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), header_style="bold", show_edge=False)
        table.add_column("data set", no_wrap=True)
        table.add_column("target", no_wrap=True)
        table.add_column("backbone", overflow="fold")
        table.add_column("methods", overflow="fold")
        lines: dict[tuple[str, str, str], list[str]] = {}
        for (dataset, target, kind), case in groupby(of_recipe, lambda row: (row.dataset, row.target, row.backbone)):
            lines.setdefault((dataset, target, _counted(row.method for row in case)), []).append(kind)
        for (dataset, target, methods), kinds in lines.items():
            table.add_row(dataset, target, ", ".join(kinds), methods)
        out.print(table)
        out.print()


def _counted(methods: Iterable[str]) -> str:
    """ "lora, adapter (5)": how many variants of each are published, where there are several."""
    found: dict[str, int] = {}
    for method in methods:
        found[method] = found.get(method, 0) + 1
    return ", ".join(method if count == 1 else f"{method} ({count})" for method, count in found.items())


def _settings(rows: Sequence[Row], kinds: Sequence[Kind], out: Console) -> None:
    """What all variants of one case share, then what each has of its own."""
    first = rows[0]
    backbones = " or ".join(KINDS[kind] for kind in kinds)
    out.print(
        f"[bold]{first.name}[/]  {first.dataset} ({first.target}) with {backbones}; {escape(first.source)}",
        soft_wrap=True,
    )
    shared = {
        key: value
        for key, value in first.settings.items()
        if all((row.settings.get(key, row), row.sources.get(key)) == (value, first.sources[key]) for row in rows)
    }
    if len(rows) > 1:
        _table("every method below", shared, first.sources, out)
    for row in rows:
        own = {key: value for key, value in row.settings.items() if len(rows) == 1 or key not in shared}
        _table(", ".join(f"{key} {_word(value)}" for key, value in row.given.items()), own, row.sources, out)
    out.print()


def _table(title: str, settings: Mapping[str, Any], sources: Mapping[str, str], out: Console) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), header_style="bold", show_edge=False)
    table.add_column(title, overflow="fold", min_width=24)
    table.add_column("value", overflow="fold")
    table.add_column("published in", overflow="fold", style="dim")
    for key, value in settings.items():
        table.add_row(key, escape(_word(value)), escape(_place(sources[key])))
    out.print(table)


def _place(source: str) -> str:
    """Without the paper, which is named above already."""
    for recipe in RECIPES.values():
        source = source.removeprefix(f"{recipe.source.partition(';')[0]}, ")
    return source


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
