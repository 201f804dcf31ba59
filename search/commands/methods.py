"""`petl-search methods`: what can be searched over (torch-free)."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from petl.config import METHODS, MethodConfig, method_keys
from petl.counts import BackboneShape, trainable_parameters
from petl.hub import read_config


def list_methods(backbone: str, classes: int, out: Console) -> None:
    """Print methods, their size on `backbone` with their default options, and every option."""
    shape = BackboneShape.from_config(read_config(backbone))
    table = Table(
        title=f"methods on {backbone} (width {shape.hidden}, {shape.layers} layers), head of {classes} classes"
    )
    for column in ("method", "trains", "parameters"):
        table.add_column(column, justify="right" if column == "parameters" else "left")
    for name, what in METHODS.items():
        count = trainable_parameters(MethodConfig.from_flat({"method": name}), shape, classes)
        table.add_row(name, what, f"{count:,}")
    out.print(table)
    options = Table(title="options (dotted keys of spaces, --set, MLflow and Python)")
    for column in ("key", "values", "default", "methods"):
        options.add_column(column)
    for info in method_keys():
        if info.key != "method":
            default = _UNSET.get(info.key, "-") if info.default is None else str(info.default)
            options.add_row(info.key, info.describe(), default, ", ".join(info.methods) or "all")
    out.print(options)


_UNSET = {
    "norms": "by method",
    "layers.last": "the top",
    "adapter.reduction": "64",
    "adapter.residual": "if sequential",
    "lora.rank": "12",
}
"""What leaving out an option without a fixed default means."""
