"""Gradient checkpointing of transformer layers that works on frozen layers in evaluation mode, too.

transformers' own switch is off for modules in evaluation mode, where a frozen backbone stays. Here each layer's
`forward` is wrapped; the layout of the tokens that held during the forward pass is put back for the second one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from petl.layout import Tokens


class _Checkpointed:
    """Stands in for a layer's `forward`."""

    def __init__(self, layer: nn.Module, tokens: Tokens) -> None:
        self.layer, self.tokens = layer, tokens
        self.before = layer.__dict__.get("forward")  # another wrapper of this one layer, if it has one

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return self._plain(*args, **kwargs)
        # A compiled graph is computed again from its own trace; no Python runs a second time.
        run = self._plain if torch.compiler.is_compiling() else _Run(self)
        return checkpoint(run, *args, use_reentrant=False, **kwargs)

    def _plain(self, *args: Any, **kwargs: Any) -> Any:
        if self.before is not None:
            return self.before(*args, **kwargs)
        return type(self.layer).forward(self.layer, *args, **kwargs)


class _Run:
    """One call of a layer: the first time with the tokens as they are, again with the tokens as they were."""

    def __init__(self, wrapped: _Checkpointed) -> None:
        self.wrapped = wrapped
        self.layout = wrapped.tokens.current
        self.ran = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self.ran:
            self.ran = True
            return self.wrapped._plain(*args, **kwargs)
        tokens = self.wrapped.tokens
        before = tokens.current, tokens.recomputing
        tokens.current, tokens.recomputing = self.layout, True
        try:
            return self.wrapped._plain(*args, **kwargs)
        finally:
            tokens.current, tokens.recomputing = before
            tokens.forget()  # the second pass ends as soon as it has what the backward pass needs


def checkpoint_layers(layers: Iterable[nn.Module], tokens: Tokens, on: bool) -> None:
    """Turn checkpointing of these layers on or off."""
    for layer in layers:
        wrapped = layer.__dict__.get("forward")
        if on and not isinstance(wrapped, _Checkpointed):
            layer.forward = _Checkpointed(layer, tokens)
        elif not on and isinstance(wrapped, _Checkpointed):
            del layer.forward
            if wrapped.before is not None:
                layer.forward = wrapped.before
