"""The blocks written from their formulas, with loops and matrix products: what the modules are held against.

Everything is for one clip, x (N, D) in float64; `Clip` says what its tokens are. None of petl's code is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

Linear = tuple[Tensor, Tensor | None]


@dataclass(frozen=True)
class Clip:
    """`lead` tokens in front, then `grid` rows x columns of which the `real` flags are no padding."""

    lead: int
    grid: tuple[int, int]
    real: tuple[bool, ...] = field(default=())

    @property
    def tokens(self) -> int:
        return self.lead + self.grid[0] * self.grid[1]

    def valid(self, n: int) -> bool:
        return n < self.lead or not self.real or self.real[n - self.lead]

    def all_valid(self) -> list[int]:
        return [n for n in range(self.tokens) if self.valid(n)]


def total(terms: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(terms)).sum(0)


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x / 2**0.5))


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def quick_gelu(x: Tensor) -> Tensor:
    return x * sigmoid(1.702 * x)


def silu(x: Tensor) -> Tensor:
    return x * sigmoid(x)


def relu(x: Tensor) -> Tensor:
    return x * (x > 0)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    y = x @ weight.T
    return y if bias is None else y + bias


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    variance = (x - mean).square().mean(-1, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt() * weight + bias


def conv(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int, axis: str, clip: Clip) -> Tensor:
    """Token by token and tap by tap; a tap that falls outside, or on padding, adds nothing."""
    kernel, left = weight.shape[-1], (weight.shape[-1] - 1) // 2
    inputs, outputs = x.shape[1] // groups, weight.shape[0] // groups
    rows, columns = clip.grid

    def source(n: int, down: int, right: int) -> int | None:
        if axis == "sequence":
            found = n + right if down == 0 and 0 <= n + right < clip.tokens else None
        elif n < clip.lead:
            found = n if down == right == 0 else None
        else:
            row, column = divmod(n - clip.lead, columns)
            row, column = row + down, column + right
            found = clip.lead + row * columns + column if 0 <= row < rows and 0 <= column < columns else None
        return found if found is not None and clip.valid(found) else None

    out = []
    for n in range(clip.tokens):
        y = x.new_zeros(weight.shape[0]) if bias is None else bias
        for i in range(kernel if weight.ndim == 4 else 1):
            for j in range(kernel):
                tap = weight[..., i, j] if weight.ndim == 4 else weight[..., j]
                here = source(n, i - left if weight.ndim == 4 else 0, j - left)
                if here is not None:
                    parts = [
                        tap[g * outputs : (g + 1) * outputs] @ x[here, g * inputs : (g + 1) * inputs]
                        for g in range(groups)
                    ]
                    y = y + torch.cat(parts)
        out.append(y)
    return torch.stack(out)


def conv_of(module: Any, x: Tensor, clip: Clip) -> Tensor:
    """`conv` with the tensors of a TokenConv."""
    return conv(x, module.weight, module.bias, module.groups, module.axis, clip)


def batch_norm(xs: list[Tensor], clips: list[Clip], module: Any) -> list[Tensor]:
    """Of a batch: statistics over all valid tokens in training, the running ones in evaluation."""
    mean, variance = module.running_mean, module.running_var
    if module.training:
        values = torch.stack([x[n] for x, clip in zip(xs, clips, strict=True) for n in clip.all_valid()])
        mean = values.mean(0)
        variance = (values - mean).square().mean(0)
    return [(x - mean) / (variance + 1e-5).sqrt() * module.weight + module.bias for x in xs]


def attention(q: Tensor, k: Tensor, v: Tensor, clip: Clip) -> Tensor:
    """q, k, v (N,): one head of one dimension."""
    out = []
    for n in range(clip.tokens):
        weights = {m: torch.exp(q[n] * k[m]) for m in clip.all_valid()}
        norm = total(weights.values())
        out.append(total(weights[m] / norm * v[m] for m in weights))
    return torch.stack(out)


# The blocks: lists of clips in, lists of clips out, since BatchNorm joins the clips of a batch.

Batch = list[Tensor]


def each(function: Callable[[Tensor, Clip], Tensor]) -> Callable[[Batch, list[Clip]], Batch]:
    return lambda xs, clips: [function(x, clip) for x, clip in zip(xs, clips, strict=True)]


def bottleneck(m: Any, xs: Batch, clips: list[Clip]) -> Batch:
    act = gelu if m.activation == "gelu" else relu
    return [linear(act(linear(x, m.down.weight, m.down.bias)), m.up.weight, m.up.bias) for x in xs]


def conformer(m: Any, xs: Batch, clips: list[Clip]) -> Batch:
    width = m.up.weight.shape[1]
    hidden = []
    for x, clip in zip(xs, clips, strict=True):
        if m.norm is not None:
            x = layer_norm(x, m.norm.weight, m.norm.bias)
        h = linear(x, m.down.weight, m.down.bias)
        hidden.append(conv_of(m.core.conv, h[:, :width] * sigmoid(h[:, width:]), clip))
    normed = batch_norm(hidden, clips, m.core.batch_norm)
    return [linear(silu(h), m.up.weight, m.up.bias) for h in normed]


def convpass(m: Any, xs: Batch, clips: list[Clip]) -> Batch:
    def one(x: Tensor, clip: Clip) -> Tensor:
        u = quick_gelu(linear(x, m.down.weight, m.down.bias))
        c = u if m.core.conv is None else conv_of(m.core.conv, u, clip)
        return linear(quick_gelu(c), m.up.weight, m.up.bias)

    return each(one)(xs, clips)


def conv_block(m: Any, xs: Batch, clips: list[Clip]) -> Batch:
    def one(x: Tensor, clip: Clip) -> Tensor:
        h = relu(conv_of(m.down, layer_norm(x, m.norm.weight, m.norm.bias), clip))
        if m.middle is not None:
            h = conv_of(m.middle, h, clip)
        h = conv_of(m.up, h, clip)
        if m.gate is None:
            return h
        frames = [n for n in clip.all_valid() if n >= clip.lead]
        mean = total(h[n] for n in frames) / len(frames)
        return h * sigmoid(m.gate.excite.weight @ relu(m.gate.squeeze.weight @ mean))

    return each(one)(xs, clips)


def tiny_attention(m: Any, xs: Batch, clips: list[Clip]) -> Batch:
    def one(x: Tensor, clip: Clip) -> Tensor:
        abc = linear(layer_norm(x, m.norm.weight, m.norm.bias), m.down.weight, m.down.bias)
        q, k, v = ((abc * m.qkv.weight + m.qkv.bias)[:, i] for i in range(3))
        o = attention(q, k, v, clip) * m.out.weight + m.out.bias
        return torch.outer(o, m.up.weight[:, 0]) + m.up.bias

    return each(one)(xs, clips)


def tiny_external_attention(m: Any, xs: Batch, clips: list[Clip]) -> Batch:
    def one(x: Tensor, clip: Clip) -> Tensor:
        scores = torch.exp(layer_norm(x, m.norm.weight, m.norm.bias) @ m.keys.weight.T)
        weights = scores / total(scores[n] for n in clip.all_valid())
        return weights / weights.sum(-1, keepdim=True) @ m.values.weight.T

    return each(one)(xs, clips)


def tiny_conformer(m: Any, xs: Batch, clips: list[Clip]) -> Batch:
    zs = [silu(linear(layer_norm(x, m.norm.weight, m.norm.bias), m.down.weight, m.down.bias)) for x in xs]
    zs = [z + h for z, h in zip(zs, conv_block(m.conv, zs, clips), strict=True)]
    zs = [z + h for z, h in zip(zs, tiny_attention(m.attention, zs, clips), strict=True)]
    return [silu(linear(layer_norm(z, m.last_norm.weight, m.last_norm.bias), m.up.weight, m.up.bias)) for z in zs]


BLOCKS: dict[str, Callable[[Any, Batch, list[Clip]], Batch]] = {
    "bottleneck": bottleneck,
    "conformer": conformer,
    "convpass": convpass,
    "conv": conv_block,
    "tiny_attention": tiny_attention,
    "tiny_external_attention": tiny_external_attention,
    "tiny_conformer": tiny_conformer,
}


def moved(module: nn.Module, seed: int = 5) -> Any:
    """In float64, every tensor away from its initial value, running variances positive."""
    generator = torch.Generator().manual_seed(seed)
    module.double()
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            tensor.add_(0.4 * torch.rand(tensor.shape, generator=generator, dtype=torch.float64) - 0.1)
    return module


def compare(module: nn.Module, mine: Callable[[Tensor], Tensor], theirs: Callable[[Tensor], Tensor], x: Tensor) -> None:
    """Equal outputs, and equal gradients of the input and of every parameter."""
    results = []
    for function in (mine, theirs):
        leaf = x.clone().requires_grad_(True)
        module.zero_grad()
        y = function(leaf)
        (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)).sum().backward()
        assert leaf.grad is not None
        grads = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
        results.append((y.detach(), leaf.grad, grads))
    (y1, dx1, grads1), (y2, dx2, grads2) = results
    torch.testing.assert_close(y1, y2, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(dx1, dx2, rtol=1e-8, atol=1e-9)
    assert grads1.keys() == grads2.keys() == dict(module.named_parameters()).keys()
    for name in grads1:
        torch.testing.assert_close(grads1[name], grads2[name], rtol=1e-8, atol=1e-9, msg=name)
