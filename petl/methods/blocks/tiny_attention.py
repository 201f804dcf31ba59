"""Tiny attention: an attention of one head of one dimension (arXiv 2211.01979, as an early release of SURE had it).

(a, b, c) = W_1 LayerNorm(x) + b_1, three numbers per token; q = w_q a + b_q, k = w_k b + b_k, v = w_v c + b_v;
o = w_o softmax(q kᵀ) v + b_o with dropout (0.1) on the weights of the attention; A(x) = W_2 o + b_2. Padded tokens
are not attended to. W_1, W_2 and the output start as torch draws a linear map, W_2 and b_2 times 0.01; w_q, w_k, w_v
as it draws the joint projection of an attention; the biases within at zero. B batch, N tokens, D model width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from petl.layout import Layout
from petl.methods.base import kaiming_uniform
from petl.methods.blocks.initial import torch_linear, xavier_uniform, zeroed

DROPOUT = 0.1
LAST_SCALE = 0.01


class TinyAttention(nn.Module):
    """x_BND -> A(x)_BND, without a skip of its own."""

    def __init__(
        self, hidden: int, generator: torch.Generator, *, dropout: float = DROPOUT, zero: bool = False
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.down = torch_linear(hidden, 3, generator)
        self.qkv = _Scale(xavier_uniform((3,), 4, generator))
        self.out = _Scale(kaiming_uniform((1,), 1, generator))
        self.up = torch_linear(1, hidden, generator)
        self.dropout = dropout
        with torch.no_grad():
            for parameter in self.up.parameters():
                parameter.mul_(LAST_SCALE)
        if zero:
            zeroed(self.up)

    def forward(self, x_BND: Tensor, layout: Layout) -> Tensor:
        qkv_BN3 = self.qkv(self.down(self.norm(x_BND)))
        q_B1N1, k_B1N1, v_B1N1 = (part.unsqueeze(1) for part in qkv_BN3.split(1, dim=-1))
        mask_BN = layout.mask(x_BND)
        dropout = self.dropout if self.training else 0.0
        seen = None if mask_BN is None else mask_BN[:, None, None, :]
        out_B1N1 = functional.scaled_dot_product_attention(q_B1N1, k_B1N1, v_B1N1, attn_mask=seen, dropout_p=dropout)
        return self.up(self.out(out_B1N1.squeeze(1)))


class _Scale(nn.Module):
    """Linear maps of one number to one number, side by side: w x + b."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros_like(weight))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight + self.bias
