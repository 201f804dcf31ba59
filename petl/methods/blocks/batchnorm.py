"""BatchNorm of tokens that knows padding, several workers and checkpointed layers.

In training every channel is normalised with mean and variance over all tokens of the batch that are no padding,
tokens in front included. Where torch.distributed runs with several workers, the batch is that of all of them, so a
batch gives the same however it is shared out; every worker has to call it equally often, so where
workers may skip layers (LayerDrop) each keeps to its own share. With fewer than two values
a channel has no variance; the running statistics are used then. B batch, N tokens, C channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn

from petl.layout import Layout, Tokens

MOMENTUM, EPS = 0.1, 1e-5


class TokenBatchNorm(nn.Module):
    """(B, N, C) -> (B, N, C), with `running_mean` and `running_var` (unbiased) of momentum 0.1 for evaluation."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, tokens: Tokens) -> None:
        super().__init__()
        self.tokens = tokens
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x_BNC: Tensor, layout: Layout) -> Tensor:
        # Half precision is too short for sums over a batch of tokens.
        wide_BNC = x_BNC.float() if x_BNC.dtype in (torch.float16, torch.bfloat16) else x_BNC
        mean_C, var_C = self.running_mean.to(wide_BNC.dtype), self.running_var.to(wide_BNC.dtype)
        if self.training:
            mean_C, var_C = self._of_batch(wide_BNC, layout.mask(x_BNC), mean_C, var_C)
        y_BNC = (wide_BNC - mean_C) * (torch.rsqrt(var_C + EPS) * self.weight) + self.bias
        return y_BNC.to(x_BNC.dtype)

    def _of_batch(
        self, x_BNC: Tensor, mask_BN: Tensor | None, running_mean_C: Tensor, running_var_C: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mean and (biased) variance of the batch; the running ones follow, and stand in where there is too little."""
        count = x_BNC.new_ones(x_BNC.shape[:2]).sum() if mask_BN is None else mask_BN.sum().to(x_BNC.dtype)
        weight = 1.0 if self.tokens.counted else 0.0
        over_workers = _over_workers if self.tokens.together else _alone
        sums = over_workers(torch.cat([_kept(x_BNC, mask_BN).sum(dim=(0, 1)), count.view(1)]) * weight)
        total_C, count = sums[:-1], sums[-1].detach()
        mean_C = total_C / count.clamp(min=1)
        squares_C = over_workers(_kept(x_BNC - mean_C, mask_BN).square().sum(dim=(0, 1)) * weight)
        enough = count >= 2
        if not self.tokens.recomputing:
            with torch.no_grad():
                unbiased_C = squares_C / (count - 1).clamp(min=1)
                self._follow(self.running_mean, running_mean_C, mean_C, enough)
                self._follow(self.running_var, running_var_C, unbiased_C, enough)
        var_C = squares_C / count.clamp(min=1)
        return torch.where(enough, mean_C, running_mean_C), torch.where(enough, var_C, running_var_C)

    def _follow(self, buffer_C: Tensor, old_C: Tensor, new_C: Tensor, enough: Tensor) -> None:
        buffer_C.copy_(torch.where(enough, torch.lerp(old_C, new_C, MOMENTUM), old_C))


def _kept(x_BNC: Tensor, mask_BN: Tensor | None) -> Tensor:
    """x with zeros where there is padding."""
    return x_BNC if mask_BN is None else x_BNC.masked_fill(~mask_BN.unsqueeze(-1), 0)


def _over_workers(x: Tensor) -> Tensor:
    """The sum of x over all workers; x itself where there is one."""
    if not distributed.is_available() or not distributed.is_initialized() or distributed.get_world_size() == 1:
        return x
    return _Sum.apply(x)


def _alone(x: Tensor) -> Tensor:
    return x


class _Sum(torch.autograd.Function):
    """A sum over workers; what reaches one worker's part in the backward pass is summed likewise."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        total = grad.clone()
        distributed.all_reduce(total)
        return total
