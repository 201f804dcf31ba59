"""WavLM's attention with its projections called as modules.

transformers' WavLM hands the weights of `q_proj`, `k_proj`, `v_proj` and `out_proj` to torch's
`multi_head_attention_forward`, so hooks on these modules (LoRA) never run, and there is no place for a prefix. While a
method needs one of these, the attention module has `ProjectedAttention` in the place of its
`torch_multi_head_self_attention`: the same operations in the same order, so the numbers are the same to the bit when
nothing is added.

B batch, H heads, N tokens, n prefixes, D model width, K head width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from petl.attention.interface import Prefix
    from petl.methods.base import Attachment, SiteMap, Undo

_METHOD = "torch_multi_head_self_attention"


class ProjectedAttention:
    """Stands in for `torch_multi_head_self_attention` of one attention module."""

    def __init__(self, host: Any, prefix: Prefix | None = None) -> None:
        self.host, self.prefix = host, prefix

    def __call__(
        self, hidden_states: Tensor, attention_mask: Tensor | None, gated_position_bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(B, N, D), padding mask (B, N) or None, bias (B·H, N, N) -> (B, N, D) and weights (B, H, N, n + N).

        The weights are the mean over heads, repeated for each head, as in transformers. A prefix has no position
        relative to the frames: its bias is 0.
        """
        host, heads = self.host, self.host.num_heads
        x_NBD = hidden_states.transpose(0, 1)
        tokens, batch, width = x_NBD.shape
        q_NBD, k_NBD, v_NBD = host.q_proj(x_NBD), host.k_proj(x_NBD), host.v_proj(x_NBD)
        bias = gated_position_bias
        padded = None if attention_mask is None else attention_mask.ne(1)
        if self.prefix is not None:
            keys_BnD, values_BnD = self.prefix(batch)
            added = keys_BnD.shape[1]
            k_NBD = torch.cat([keys_BnD.transpose(0, 1).to(k_NBD.dtype), k_NBD])
            v_NBD = torch.cat([values_BnD.transpose(0, 1).to(v_NBD.dtype), v_NBD])
            bias = functional.pad(bias, (added, 0))
            padded = None if padded is None else functional.pad(padded, (added, 0), value=False)

        q, k, v = (t.view(t.shape[0], batch * heads, -1).transpose(0, 1) for t in (q_NBD, k_NBD, v_NBD))
        keys = k.shape[1]
        if padded is not None:
            minus = torch.zeros_like(padded, dtype=x_NBD.dtype).masked_fill_(padded, float("-inf"))
            minus = minus.view(batch, 1, 1, keys).expand(-1, heads, -1, -1).reshape(batch * heads, 1, keys)
            bias = bias + minus
        scaled = q * math.sqrt(1.0 / float(q.shape[-1]))
        weights = functional.softmax(torch.baddbmm(bias, scaled, k.transpose(-2, -1)), dim=-1)
        if host.training and host.dropout > 0.0:
            weights = functional.dropout(weights, p=host.dropout)
        mixed = torch.bmm(weights, v).transpose(0, 1).contiguous().view(tokens * batch, width)
        out_NBD = host.out_proj(mixed).view(tokens, batch, -1)
        shown = weights.view(batch, heads, tokens, keys).mean(dim=1)
        return out_NBD.transpose(0, 1), shown[:, None].broadcast_to(batch, heads, tokens, keys)


@dataclass(frozen=True)
class CallProjections:
    """Makes the attention module at `path` call its projections, so that hooks on them run."""

    path: str
    name: str = ""
    module: nn.Module | None = None

    def attach(self, backbone: nn.Module) -> Undo:
        return install(backbone.get_submodule(self.path), None)


def projection_calls(sites: SiteMap, layer: int) -> list[Attachment]:
    """What a method with hooks on q, k, v or o of this layer must attach beside them (nothing on most families)."""
    if sites.family.attention != "wavlm":
        return []
    return [CallProjections(sites.family.projection(layer, "q").rpartition(".")[0])]


def install(host: Any, prefix: Prefix | None) -> Undo:
    """Put a `ProjectedAttention` on `host`; what is there already keeps its prefix. Returns what undoes it."""
    before: ProjectedAttention | None = host.__dict__.get(_METHOD)
    if prefix is None and before is not None:
        prefix = before.prefix
    setattr(host, _METHOD, ProjectedAttention(host, prefix))
    return _Reinstate(host, before).undo


class _Reinstate:
    def __init__(self, host: Any, before: ProjectedAttention | None) -> None:
        self.host, self.before = host, before

    def undo(self) -> None:
        if self.before is None:
            self.host.__dict__.pop(_METHOD, None)
        else:
            setattr(self.host, _METHOD, self.before)
