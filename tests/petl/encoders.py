"""Encoders computed clip by clip, head by head and query by query: what adapted backbones are held against.

N tokens, D model width, n prefixes, T tokens of the body.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from petl.families import family_of
from petl.shape import BackboneShape

Edit = Callable[[int, Tensor], Tensor]
"""(layer, its input (N, D)) -> what the layer sees."""
Pairs = Callable[[int], tuple[Tensor, Tensor] | None]
"""layer -> learned keys and values (n, D), or None."""


class _Taken(Exception):
    pass


def first_input(backbone: Any, *args: Any, **kwargs: Any) -> Tensor:
    """(B, N, D): what the backbone gives its first layer."""
    seen: list[Tensor] = []

    def take(host: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append(args[0] if args else kwargs["hidden_states"])
        raise _Taken

    family = family_of(backbone.config.model_type)
    handle = backbone.get_submodule(family.layer(0)).register_forward_pre_hook(take, with_kwargs=True)
    try:
        backbone(*args, **kwargs)
    except _Taken:
        pass
    finally:
        handle.remove()
    return seen[0].detach()


class Encoder:
    """The layers of a plain backbone, for one clip at a time."""

    def __init__(self, backbone: Any) -> None:
        self.backbone = backbone
        self.shape = BackboneShape.from_config(backbone.config.to_dict())
        self.family = family_of(self.shape.family)

    def __call__(
        self,
        x_ND: Tensor,
        edit: Edit = lambda layer, x: x,
        pairs: Pairs = lambda layer: None,
        body: int | None = None,
        layers: Sequence[int] | None = None,
    ) -> Tensor:
        """Run (some of) the layers and the last LayerNorm; `body` is T, the frames that have a place in time."""
        for layer in range(self.shape.layers) if layers is None else layers:
            x_ND = self.layer(layer, edit(layer, x_ND), pairs(layer), x_ND.shape[0] if body is None else body)
        return self.backbone.get_submodule(self.family.final_norm)(x_ND) if self.shape.pre_norm else x_ND

    def layer(self, index: int, x_ND: Tensor, pair: tuple[Tensor, Tensor] | None, body: int) -> Tensor:
        layer: Any = self.backbone.get_submodule(self.family.layer(index))
        blocks = self.family.blocks
        first, second = (layer.get_submodule(blocks[site].norm) for site in ("attention", "ffn"))
        if self.shape.pre_norm:
            y_ND = x_ND + self.attention(layer, first(x_ND), pair, body)
            return y_ND + self.ffn(layer, second(y_ND))
        y_ND = first(x_ND + self.attention(layer, x_ND, pair, body))
        return second(y_ND + self.ffn(layer, y_ND))

    def ffn(self, layer: Any, x_ND: Tensor) -> Tensor:
        fc1, fc2 = (layer.get_submodule(self.family.projections[name]) for name in ("fc1", "fc2"))
        return fc2(functional.gelu(fc1(x_ND)))

    def attention(self, layer: Any, x_ND: Tensor, pair: tuple[Tensor, Tensor] | None, body: int) -> Tensor:
        q, k, v, o = (layer.get_submodule(self.family.projections[name]) for name in ("q", "k", "v", "o"))
        q_ND, k_ND, v_ND = q(x_ND), k(x_ND), v(x_ND)
        added = 0
        if pair is not None:
            added = pair[0].shape[0]
            k_ND, v_ND = torch.cat([pair[0], k_ND]), torch.cat([pair[1], v_ND])
        width = self.shape.hidden // self.shape.heads
        rows = []
        for i in range(x_ND.shape[0]):
            heads = []
            for h in range(self.shape.heads):
                part = slice(h * width, (h + 1) * width)
                scores = k_ND[:, part] @ q_ND[i, part] / width**0.5
                if self.family.attention == "wavlm":
                    scores = scores + self.position_bias(layer, x_ND, i, h, body, added)
                weights = scores.exp() / scores.exp().sum()
                heads.append(weights @ v_ND[:, part])
            rows.append(torch.cat(heads))
        return o(torch.stack(rows))

    def position_bias(self, layer: Any, x_ND: Tensor, i: int, h: int, body: int, added: int) -> Tensor:
        """Bias of query i in head h for all keys: a gate times that of the distance; 0 for what has no place."""
        attention, front = layer.attention, x_ND.shape[0] - body
        width = self.shape.hidden // self.shape.heads
        gates = attention.gru_rel_pos_linear(x_ND[i, h * width : (h + 1) * width])
        a, b = gates[:4].sum().sigmoid(), gates[4:].sum().sigmoid()
        gate = a * (b * attention.gru_rel_pos_const[0, h, 0, 0] - 1) + 2
        lowest: Any = self.backbone.get_submodule(self.family.layer(0))
        bias = x_ND.new_zeros(added + x_ND.shape[0])
        if i >= front:
            bias[added + front :] = lowest.attention.compute_bias(body, body)[h, i - front]
        return gate * bias
