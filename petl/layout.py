"""What the tokens of a forward pass are, for blocks that look at more than one token at a time.

A sequence is some tokens in front (CLS, distillation token, prompts) and a body: the patches of a spectrogram, in
rows of equal frequency, or the frames of a waveform. `Tokens` is one object per adapted model; the backbone's
forward pass sets its `layout`, and blocks read it.

B batch, N tokens, L tokens in front, T tokens of the body, D model width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from petl.families import Family
from petl.shape import BackboneShape


@dataclass(frozen=True)
class Layout:
    """The tokens of one forward pass.

    `special` and `prompts` are what the *output* of the backbone has in front of its body (in the middle of the
    network it may be fewer: count what is in front with `lead`). `body` is the number of patches or frames, `grid`
    its (rows of frequency, columns of time), (1, frames) for a waveform. `mask_BT` is False where the body is
    padding; None where nothing is.
    """

    special: int
    prompts: int
    body: int
    grid: tuple[int, int]
    mask_BT: Tensor | None = None

    def lead(self, x_BND: Tensor) -> int:
        """How many tokens stand in front of the body of x."""
        return x_BND.shape[1] - self.body

    def split(self, x_BND: Tensor) -> tuple[Tensor, Tensor]:
        """x as (tokens in front (B, L, D), body (B, T, D))."""
        lead = self.lead(x_BND)
        return x_BND[:, :lead], x_BND[:, lead:]

    def mask(self, x_BND: Tensor) -> Tensor | None:
        """`mask_BT` for all tokens of x, those in front included: (B, N) or None."""
        if self.mask_BT is None:
            return None
        front = self.mask_BT.new_ones(x_BND.shape[0], self.lead(x_BND))
        return torch.cat([front, self.mask_BT], dim=1)

    @classmethod
    def sequence(cls, length: int) -> Layout:
        """A plain sequence: no tokens in front, nothing padded."""
        return cls(0, 0, length, (1, length))


def masked_mean(x_BTD: Tensor, mask_BT: Tensor | None) -> Tensor:
    """Mean over the tokens that are no padding: (B, D); over all of them where nothing is masked."""
    if mask_BT is None:
        return x_BTD.mean(dim=1)
    # Not a product: padding may hold anything.
    kept_BTD = torch.where(mask_BT[:, :, None], x_BTD, x_BTD.new_zeros(()))
    return kept_BTD.sum(dim=1) / mask_BT.sum(dim=1, keepdim=True).clamp(min=1)


class Tokens:
    """The layout of the forward pass that is running (or ran last).

    `recomputing` is true while a checkpointed layer runs again during the backward pass: whatever a forward pass
    does besides computing (running statistics) has been done then. `counted` is false while a batch runs that must
    leave no trace: that of a worker which has no clips in a step, but has to take part in it. `together` is false
    where workers may skip different layers, so that no statistics can be summed over them. `inputs_change`: a method
    changes what a block sees, so that others have to remember what it was called with.
    """

    def __init__(self, special: int, prompts: int) -> None:
        self.special, self.prompts = special, prompts
        self.current: Layout | None = None
        self.recomputing = False
        self.counted = True
        self.together = True
        self.inputs_change = False
        self._holders: list[Any] = []

    @property
    def layout(self) -> Layout:
        if self.current is None:
            raise RuntimeError("no forward pass has run yet, so there is no layout of tokens")
        return self.current

    def hold(self, holder: Any) -> None:
        """Have `holder.forget()` called wherever what it keeps between two hooks may have been left behind."""
        self._holders.append(holder)

    def forget(self) -> None:
        """Let go of tensors of a forward pass that did not come to its end."""
        for holder in self._holders:
            holder.forget()

    def watch(self, backbone: nn.Module, family: Family, shape: BackboneShape) -> Callable[[], None]:
        """Follow the backbone's forward passes; returns the function that ends it."""
        if family.layout == "grid":
            hook: Any = _GridWatcher(self, shape)
        else:
            hook = _FrameWatcher(self)
            if not shape.samples:  # all inputs are of one length, and LayerDrop may skip the watched layer
                frames = shape.tokens()
                self.current = Layout(self.special, self.prompts, frames, (1, frames))
        host = backbone.get_submodule(family.watched)
        # In front of all other hooks: prompts may make this module's input longer.
        return host.register_forward_pre_hook(hook, prepend=True, with_kwargs=True).remove


class _GridWatcher:
    """Before an AST's forward pass: the grid follows from the length of input_values (B, frames, mel bins)."""

    def __init__(self, tokens: Tokens, shape: BackboneShape) -> None:
        self.tokens, self.shape = tokens, shape

    def __call__(self, host: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        values = args[0] if args else kwargs.get("input_values")
        if values is None or values.ndim != 3:
            return  # transformers says what is wrong
        self.tokens.forget()
        rows, columns = self.shape.grid(values.shape[1])
        mask_BN = kwargs.get("attention_mask", args[1] if len(args) > 1 else None)  # of all tokens, special ones first
        mask_BT = None if mask_BN is None else mask_BN[:, -rows * columns :].bool()
        self.tokens.current = Layout(self.tokens.special, self.tokens.prompts, rows * columns, (rows, columns), mask_BT)


class _FrameWatcher:
    """Before a frame encoder: its first input is (B, T, D), its attention_mask (B, T), true for real frames."""

    def __init__(self, tokens: Tokens) -> None:
        self.tokens = tokens

    def __call__(self, host: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.tokens.forget()
        hidden_BTD = args[0] if args else kwargs["hidden_states"]
        frames = hidden_BTD.shape[1]
        mask = kwargs.get("attention_mask", args[1] if len(args) > 1 else None)
        mask_BT = None if mask is None else mask.bool()
        self.tokens.current = Layout(self.tokens.special, self.tokens.prompts, frames, (1, frames), mask_BT)
