"""`petl-search methods`: what can be searched over, and how large it is on a backbone (torch-free)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from petl import plan
from petl.config import LAYERED, METHODS, PUBLISHED_NORMS, MethodConfig, method_keys, readers
from petl.counts import BackboneShape, backbone_parameters, trainable_parameters
from petl.errors import ConfigError
from petl.hub import read_config
from petl.keys import KeyInfo
from petl.presets import PRESETS, SOURCES


def list_methods(backbone: str, classes: int, out: Console) -> None:
    """Print methods with their sizes on `backbone`, every option, and the published settings."""
    shape = BackboneShape.from_config(read_config(backbone))
    frozen = backbone_parameters(shape)
    out.print(
        f"[bold]{escape(backbone)}[/]: {shape.family}, {shape.layers} layers of width {shape.hidden}, "
        f"{frozen:,} parameters. Counts of trainable parameters include a head for {classes} classes."
    )
    out.print()
    out.print(_methods(shape, classes))
    for title, infos in _sections():
        out.print()
        out.print(f"[bold]{title}[/]")
        out.print(_options(infos, shape))
    out.print()
    out.print(_presets(shape, classes))


def _methods(shape: BackboneShape, classes: int) -> Table:
    table = _table("method", "trains", "trainable")
    for name, what in METHODS.items():
        size, reason = _size({"method": name}, shape, classes)
        told = [what]
        told += [f"[dim]{SOURCES[name]}[/]"] if SOURCES[name] else []
        told += [f"[yellow]{escape(reason)}[/]"] if reason else []
        table.add_row(name, "\n".join(told), size)
    table.caption = "Methods join with +, such as adapter+lora. Counts are those of the default options."
    table.caption_justify = "left"
    return table


def _sections() -> Iterator[tuple[str, list[KeyInfo]]]:
    """Options by the methods that read them."""
    groups: dict[str, list[KeyInfo]] = {}
    for info in method_keys():
        section = info.key.partition(".")[0] if "." in info.key else ""
        if info.key != "method":
            groups.setdefault("" if section == "head" else section, []).append(info)
    for section, infos in groups.items():
        methods = dict.fromkeys(method for info in infos for method in info.methods)
        yield _TITLES.get(section, f"options of {', '.join(methods)}"), infos


_TITLES = {
    "": "options of every method",
    "layers": f"options of {', '.join(LAYERED)}",
}


def _options(infos: list[KeyInfo], shape: BackboneShape) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1))
    table.add_column(no_wrap=True, min_width=max(len(info.key) for info in method_keys()))
    table.add_column(overflow="fold")
    for info in infos:
        parts = [escape(info.describe())]
        parts.append(f"[dim]default: {escape(_default(info))}[/]")
        needed = {parent: values for parent, values in readers(info.key).items() if parent != "method"}
        parts += [f"[dim]with {parent} {escape(_or(values))}[/]" for parent, values in needed.items()]
        if set(info.methods) < {method for other in infos for method in other.methods}:
            parts.append(f"[dim]{_or(info.methods)} only[/]")
        missing = _missing(info, shape)
        if missing:
            parts.append(f"[yellow]not on this backbone: {escape(', '.join(missing))}[/]")
        table.add_row(info.key, "; ".join(parts))
    return table


def _presets(shape: BackboneShape, classes: int) -> Table:
    table = _table("published setting", "source", "trainable")
    for name, published in PRESETS.items():
        size, reason = _size(published.options, shape, classes)
        told = f"{published.source}; lr {published.lr:g}"
        table.add_row(name, escape(told) + (f"\n[yellow]{escape(reason)}[/]" if reason else ""), size)
    table.caption = 'In Python: petl.attach(backbone, petl.preset("pfeiffer")).'
    table.caption_justify = "left"
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), header_style="bold", show_edge=False)
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right" if name == "trainable" else "left", overflow="fold")
    return table


def _size(options: Mapping[str, Any], shape: BackboneShape, classes: int) -> tuple[str, str]:
    """Trainable parameters and "", or "-" and why the backbone cannot have them."""
    try:
        return f"{trainable_parameters(MethodConfig.from_flat(options), shape, classes):,}", ""
    except ConfigError as error:
        return "-", f"not on this backbone: {error}"


def _missing(info: KeyInfo, shape: BackboneShape) -> list[str]:
    """Values of an option that the backbone's family refuses whatever its size."""
    base: dict[str, Any] = {"method": info.methods[0] if info.methods else "linear"}
    if _size(base, shape, 2)[1]:
        return [f"method '{base['method']}'"]
    defaults = {other.key: other.default for other in method_keys()}
    needed = {k: values for k, values in readers(info.key).items() if k != "method" and defaults[k] not in values}
    base |= {parent: values[0] for parent, values in needed.items()}
    values = [value for part in (info.annotation, *get_args(info.annotation)) for value in get_args(part)]
    words = [value for value in (*values, *_truths(info)) if isinstance(value, (str, bool))]
    found = []
    for value in dict.fromkeys(words):
        try:
            config = MethodConfig.from_flat({**base, info.key: value})
        except ConfigError:
            continue
        try:
            plan.check(config, shape)
        except ConfigError as error:
            if error.key == info.key:
                found.append(_word(value))
    return found


def _truths(info: KeyInfo) -> tuple[bool, ...]:
    return (True, False) if info.annotation is bool else ()


def _default(info: KeyInfo) -> str:
    if info.default is None:
        return _UNSET[info.key]
    return f"{info.default:g}" if isinstance(info.default, float) else _word(info.default)


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _or(values: tuple[Any, ...]) -> str:
    return " | ".join(_word(value) for value in values)


def _by_block(table: Mapping[str, int]) -> str:
    return ", ".join(f"{block} {value}" for block, value in table.items())


def _published_norms() -> str:
    by_norms: dict[str, list[str]] = {}
    for method, norms in PUBLISHED_NORMS.items():
        by_norms.setdefault(norms, []).append(method)
    said = "; ".join(f"{norms} for {', '.join(methods)}" for norms, methods in by_norms.items())
    return f"as published on an AST ({said}), none elsewhere"


_UNSET = {
    "pooling": "mean on an AST, masked_mean elsewhere",
    "norms": _published_norms(),
    "backbone_mode": "eval, and train for full and partial",
    "layers.last": "the top layer",
    "adapter.reduction": _by_block(plan.DEFAULT_REDUCTION),
    "adapter.width": f"model width / adapter.reduction; tiny_external_attention {plan.EXTERNAL_UNITS} units",
    "adapter.ratio": "1 / adapter.reduction",
    "adapter.order": "before when parallel, after when sequential",
    "adapter.residual": "true when sequential, false when parallel",
    "adapter.kernel": _by_block(plan.DEFAULT_KERNEL),
    "adapter.dropout": "as published: convpass and the tiny blocks 0.1, others 0",
    "adapter.init": "zero for bottleneck and convpass, published for the others",
    "lora.rank": f"{plan.DEFAULT_RANK}, or by lora.reduction",
    "lora.reduction": "set by lora.rank",
    "prefix.hidden": "the model width",
    "moa.kernel": _by_block({k: v for k, v in plan.DEFAULT_KERNEL.items() if k in ("conformer", "convpass")}),
}
"""What leaving out an option without a fixed default means."""
