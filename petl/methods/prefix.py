"""Prefix tuning: learned keys and values in front of every adapted layer's own (arXiv 2101.00190).

They stand behind the projections and before the cut into heads, as in the code of arXiv 2312.03694; queries are
left alone, so no token is added. `table: layers` has keys and values (n, D) of each layer, U(-v, v) as prompts have.
`table: embedding` is one table for all layers, as in P-tuning v2 (arXiv 2110.07602) and SURE (arXiv 2303.03267):
N(0, 1), the keys and then the values of each layer side by side; with `reparam` a tanh MLP computes it from an
embedding (n, D).

B batch, n prefixes, D model width, L adapted layers, W width of the MLP.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from petl import plan
from petl.attention import AddPrefix, Prefix
from petl.config import MethodConfig
from petl.methods.base import Attachment, SiteMap, Undo, kaiming_uniform
from petl.methods.prompt import drawn_tokens


class LayerPrefix(nn.Module):
    """The keys and values of one layer: batch size -> keys (B, n, D), values (B, n, D)."""

    def __init__(self, keys_nD: Tensor, values_nD: Tensor, dropout: float) -> None:
        super().__init__()
        self.keys, self.values = nn.Parameter(keys_nD), nn.Parameter(values_nD)
        self.dropout = nn.Dropout(dropout)

    def forward(self, batch: int) -> tuple[Tensor, Tensor]:
        return _for_batch(self.keys, batch, self.dropout), _for_batch(self.values, batch, self.dropout)


class PrefixTable(nn.Module):
    """The keys and values of all layers, `table` (n, L·2·D)."""

    def __init__(self, pairs: int, layers: int, width: int, dropout: float, generator: torch.Generator) -> None:
        super().__init__()
        self.width = width
        self.table = nn.Parameter(torch.empty(pairs, layers * 2 * width).normal_(generator=generator))
        self.dropout = nn.Dropout(dropout)

    def forward(self, index: int, batch: int) -> tuple[Tensor, Tensor]:
        start = index * 2 * self.width
        pair_n2D = self.table[:, start : start + 2 * self.width]
        keys_nD, values_nD = pair_n2D.split(self.width, dim=1)
        return _for_batch(keys_nD, batch, self.dropout), _for_batch(values_nD, batch, self.dropout)


class ComputedTable(nn.Module):
    """The same, computed: `table` (n, D) -> `down` (W) -> tanh -> `up`, the rows L·2·D of one linear map by layer.

    A layer computes its own share, so nothing outlives a forward pass (the repeated `down` is a few thousandths of
    a layer's work), and the map behind the tanh is cut by layers, so that no gradient is as large as all of it.
    """

    def __init__(
        self, pairs: int, layers: int, width: int, hidden: int, dropout: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(pairs, width).normal_(generator=generator))
        self.down = _linear(width, hidden, generator)
        self.up = nn.ModuleList(_linear(hidden, 2 * width, generator) for _ in range(layers))
        self.dropout = nn.Dropout(dropout)
        self.width = width

    def forward(self, index: int, batch: int) -> tuple[Tensor, Tensor]:
        pair_n2D = self.up[index](torch.tanh(self.down(self.table)))
        keys_nD, values_nD = pair_n2D.split(self.width, dim=1)
        return _for_batch(keys_nD, batch, self.dropout), _for_batch(values_nD, batch, self.dropout)


class OfLayer:
    """One layer's share of a table."""

    def __init__(self, table: PrefixTable | ComputedTable, index: int) -> None:
        self.table, self.index = table, index

    def __call__(self, batch: int) -> tuple[Tensor, Tensor]:
        pair: tuple[Tensor, Tensor] = self.table(self.index, batch)
        return pair


@dataclass(frozen=True)
class Shared:
    """A module that several attachments use; it has no place of its own in the backbone."""

    path: str
    name: str
    module: nn.Module | None

    def attach(self, backbone: nn.Module) -> Undo:
        return self._nothing

    def _nothing(self) -> None:
        return None


def build(config: MethodConfig, sites: SiteMap, generator: torch.Generator) -> list[Attachment]:
    """Prefixes named `<attention>.prefix.keys` and `.values`, or one `prefix.table` for all adapted layers."""
    options, adapted = config.prefix, sites.adapted(config)
    pairs, dropout = plan.prefix_pairs(options), options.dropout
    if options.table == "layers":
        found: list[Attachment] = []
        for layer in adapted:
            keys, values = (drawn_tokens(pairs, sites.shape, generator) for _ in range(2))
            module = LayerPrefix(keys, values, dropout)
            found.append(_add(sites, layer, "prefix", module, module))
        return found
    table: PrefixTable | ComputedTable
    if options.reparam:
        hidden = options.hidden or sites.hidden
        table = ComputedTable(pairs, len(adapted), sites.hidden, hidden, dropout, generator)
    else:
        table = PrefixTable(pairs, len(adapted), sites.hidden, dropout, generator)
    shares = [_add(sites, layer, "", None, OfLayer(table, index)) for index, layer in enumerate(adapted)]
    return [Shared("", "prefix", table), *shares]


def _add(sites: SiteMap, layer: int, name: str, module: nn.Module | None, prefix: Prefix) -> AddPrefix:
    path = sites.family.projection(layer, "k").rpartition(".")[0]
    sites.linear(sites.family.projection(layer, "k"))
    return AddPrefix(path, name, module, prefix, sites.family)


def _for_batch(prefix_nD: Tensor, batch: int, dropout: nn.Dropout) -> Tensor:
    """Every clip drops its own elements."""
    dropped: Tensor = dropout(prefix_nD.expand(batch, -1, -1))
    return dropped


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A linear map with torch's own initial distribution, drawn from `generator`."""
    linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
    with torch.no_grad():
        linear.weight.copy_(kaiming_uniform((outputs, inputs), inputs, generator))
        linear.bias.copy_(kaiming_uniform((outputs,), inputs, generator))
    return linear
