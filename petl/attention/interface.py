"""Learned keys and values in front of a layer's own, through transformers' attention interface.

An attention module asks `ALL_ATTENTION_FUNCTIONS` for the function that its `config._attn_implementation` names.
An adapted module gets a stand-in for its `config` that names `attend_with_prefix`, which puts the prefix in front and
calls the function that the real configuration names: SDPA, flash and flex attention stay in use, and masks are made
as ever. The configuration object itself, which other models may share, is not touched.

B batch, H heads, N tokens, n prefixes, D model width, K head width.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface

from petl.attention.masks import extended_mask
from petl.attention.wavlm import install

if TYPE_CHECKING:
    from petl.families import Family
    from petl.methods.base import Undo

IMPLEMENTATION = "petl_prefix"


class Prefix(Protocol):
    """Gives the prefixes of one layer: batch size -> keys (B, n, D), values (B, n, D)."""

    def __call__(self, batch: int) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class AddPrefix:
    """Puts `prefix` in front of the keys and values of the attention module at `path`; `module` is what trains."""

    path: str
    name: str
    module: nn.Module | None
    prefix: Prefix
    family: Family

    def attach(self, backbone: nn.Module) -> Undo:
        host: Any = backbone.get_submodule(self.path)
        if self.family.attention == "wavlm":
            return install(host, self.prefix)
        config = host.config
        eager = sys.modules[type(host).__module__].eager_attention_forward
        host.config = PrefixedConfig(config, self.prefix, eager)
        return _Restore(host, config).undo


class PrefixedConfig:
    """An attention module's configuration, but for the name of the implementation."""

    _attn_implementation = IMPLEMENTATION

    def __init__(self, config: Any, prefix: Prefix, eager: Callable[..., Any]) -> None:
        self.config, self.prefix, self.eager = config, prefix, eager

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "config":  # while being copied there is nothing to ask yet
            raise AttributeError(name)
        return getattr(self.config, name)


class _Restore:
    def __init__(self, host: Any, config: Any) -> None:
        self.host, self.config = host, config

    def undo(self) -> None:
        self.host.config = self.config


class _WithOwnConfig:
    """The attention module as an attention function expects it: its configuration names that function."""

    def __init__(self, module: nn.Module, config: Any) -> None:
        self.module, self.config = module, config

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)


def attend_with_prefix(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **options: Any
) -> tuple[Tensor, Tensor | None]:
    """Attention of query (B, H, N, K) to prefix, key and value (B, H, N, K); returns (B, N, H, K) and weights.

    Weights, where the implementation gives any, have n columns more than there are tokens, the prefix first.
    """
    settings: PrefixedConfig = module.config
    keys_BnD, values_BnD = settings.prefix(key.shape[0])
    key = torch.cat([_by_head(keys_BnD, key), key], dim=2)
    value = torch.cat([_by_head(values_BnD, value), value], dim=2)
    mask = extended_mask(attention_mask, keys_BnD.shape[1])
    name = settings.config._attn_implementation
    if name is None or name == "eager":
        return settings.eager(module, query, key, value, mask, **options)
    if name not in ("sdpa", "flex_attention"):
        module = _WithOwnConfig(module, settings.config)  # flash attention looks its own name up there
    return ALL_ATTENTION_FUNCTIONS[name](module, query, key, value, mask, **options)


def _by_head(prefix_BnD: Tensor, like_BHNK: Tensor) -> Tensor:
    """(B, n, D) -> (B, H, n, K), heads cut as the projections' outputs are."""
    heads = prefix_BnD.unflatten(-1, (like_BHNK.shape[1], like_BHNK.shape[3]))
    return heads.transpose(1, 2).to(like_BHNK.dtype)


AttentionInterface.register(IMPLEMENTATION, attend_with_prefix)
