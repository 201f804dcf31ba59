"""Where adapters join the sub-layers, against the formulas written out with plain matrix products in float64.

Names as in the formulas: X the layer's input, u = LN1(X), a = MHSA(·), X̂ the state between the sub-layers,
v = LN2(X̂), f = FFN(·); in a post-norm layer the norms follow the sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from petl import attach
from petl.layout import Layout
from tests.petl.models import HIDDEN, MODELS, TinyModel, trained

HEADS = 4
F = Callable[[Tensor], Tensor]


class Reference:
    """One transformer layer of any family from its tensors; `adapters[site]` are the functions A of that site."""

    def __init__(self, backbone: Any, family: Any, index: int, pre_norm: bool) -> None:
        self.state = {n: p.detach().double() for n, p in backbone.state_dict().items()}
        self.family, self.index, self.pre_norm = family, index, pre_norm

    def _linear(self, target: str, x: Tensor) -> Tensor:
        path = self.family.projection(self.index, target)
        y = x @ self.state[f"{path}.weight"].T
        bias = self.state.get(f"{path}.bias")
        return y if bias is None else y + bias

    def norm(self, site: str, x: Tensor) -> Tensor:
        path = self.family.block(self.index, site).norm
        centred = x - x.mean(-1, keepdim=True)
        eps = 1e-12 if self.family.special else 1e-5
        scaled = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()
        return scaled * self.state[f"{path}.weight"] + self.state[f"{path}.bias"]

    def attention(self, x: Tensor) -> Tensor:
        out = []
        width = HIDDEN // HEADS
        q, k, v = (self._linear(name, x) for name in "qkv")
        for head in range(HEADS):
            part = slice(head * width, (head + 1) * width)
            scores = q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(width)
            weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
            out.append(weights @ v[..., part])
        return self._linear("o", torch.cat(out, -1))

    def ffn(self, x: Tensor) -> Tensor:
        h = self._linear("fc1", x)
        return self._linear("fc2", 0.5 * h * (1 + torch.erf(h / math.sqrt(2))))

    def layer(self, x: Tensor, attention: Callable[[Tensor, F], Tensor], ffn: Callable[[Tensor, F], Tensor]) -> Tensor:
        """The layer with each sub-layer F at input u replaced by `attention(u, F)` and `ffn(u, F)`."""
        if self.pre_norm:
            x = x + attention(self.norm("attention", x), self.attention)
            return x + ffn(self.norm("ffn", x), self.ffn)
        x = self.norm("attention", x + attention(x, self.attention))
        return self.norm("ffn", x + ffn(x, self.ffn))


def plain(u: Tensor, sub: F) -> Tensor:
    return sub(u)


# What stands in the place of F(u), given the adapter A (and a second one, P, for hydra).
FORMULAS: list[tuple[dict[str, Any], Callable[[Tensor, F, F, F], Tensor]]] = [
    ({"placement": "parallel"}, lambda u, sub, a, p: sub(u) + a(u)),
    ({"placement": "parallel", "residual": True}, lambda u, sub, a, p: sub(u) + a(u) + u),
    ({"placement": "parallel", "order": "before"}, lambda u, sub, a, p: sub(u) + a(u)),
    ({"placement": "parallel", "order": "after"}, lambda u, sub, a, p: sub(u) + a(sub(u))),
    ({"placement": "sequential"}, lambda u, sub, a, p: a(sub(u)) + sub(u)),
    ({"placement": "sequential", "order": "after"}, lambda u, sub, a, p: sub(u) + a(sub(u))),
    ({"placement": "sequential", "residual": False}, lambda u, sub, a, p: a(sub(u))),
    ({"placement": "sequential", "order": "before"}, lambda u, sub, a, p: sub(a(u) + u) + a(u)),
    ({"placement": "sequential", "order": "before", "residual": False}, lambda u, sub, a, p: sub(a(u)) + a(u)),
    ({"placement": "hydra"}, lambda u, sub, a, p: sub(u) + a(sub(u)) + p(u)),
]


def _named(value: Any) -> str | None:
    return "-".join(map(str, value.values())) if isinstance(value, dict) else ""


PLAIN = [m for m in MODELS if not m.name.startswith("wavlm")]  # whose attention has a bias by distance


def _moved(model: TinyModel, options: dict[str, Any]) -> Any:
    flat = {"method": "adapter", "adapter.width": 4, "norms": "none", "layers.first": 1, "layers.last": 1}
    backbone = model.build().double()
    return trained(attach(backbone, {**flat, **options}, seed=0)).eval()


def _through(adapted: Any, index: int, x: Tensor) -> Tensor:
    out = adapted.backbone.get_submodule(adapted.family.layer(index))(x, None)
    return out[0] if isinstance(out, tuple) else out


def _function(module: Any) -> F:
    return lambda x: module(x, Layout.sequence(x.shape[1]))


@pytest.mark.parametrize("model", PLAIN, ids=str)
@pytest.mark.parametrize("location", ["attention", "ffn"])
@pytest.mark.parametrize(
    ("options", "formula"), FORMULAS, ids=lambda v: "-".join(map(str, v.values())) if v and isinstance(v, dict) else ""
)
def test_the_formula_of_every_placement(
    model: TinyModel, location: str, options: dict[str, Any], formula: Callable[..., Tensor]
) -> None:
    flat = {"adapter.location": location, **{f"adapter.{key}": value for key, value in options.items()}}
    adapted = _moved(model, flat)
    reference = Reference(model.build(), adapted.family, 1, adapted.shape.pre_norm)
    exit_path = adapted.family.block(1, location).exit
    module = adapted.added.get_submodule(f"{exit_path}.adapter")
    a = p = _function(module)
    if options["placement"] == "hydra":
        a, p = _function(module.sequential), _function(module.parallel)

    def changed(u: Tensor, sub: F) -> Tensor:
        return formula(u, sub, a, p)

    adapted(model.inputs().double())  # a forward pass, from which the layer takes the layout
    x = torch.randn(2, adapted.layout.body + adapted.layout.special, HIDDEN).double().requires_grad_()
    parts = {"attention": plain, "ffn": plain, location: changed}
    wanted = reference.layer(x, parts["attention"], parts["ffn"])
    found = _through(adapted, 1, x)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    inputs = [x, *adapted.trainable().values()]
    ours, theirs = (torch.autograd.grad(y.sin().sum(), inputs) for y in (found, wanted))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("model", PLAIN, ids=str)
def test_the_layer_output(model: TinyModel) -> None:
    """SURE's output adapter X'' = X' + A(X'), behind the last norm of a post-norm layer; and L(X) + A(X)."""
    for placement in ("sequential", "parallel"):
        flat = {"adapter.location": "layer", "adapter.placement": placement}
        adapted = _moved(model, flat)
        reference = Reference(model.build(), adapted.family, 1, adapted.shape.pre_norm)
        a = _function(adapted.added.get_submodule(f"{adapted.family.layer(1)}.adapter"))
        adapted(model.inputs().double())
        x = torch.randn(2, adapted.layout.body + adapted.layout.special, HIDDEN).double()
        y = reference.layer(x, plain, plain)
        wanted = y + a(y if placement == "sequential" else x)
        torch.testing.assert_close(_through(adapted, 1, x), wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("model", PLAIN, ids=str)
def test_mixed_is_sequential_and_parallel(model: TinyModel) -> None:
    """AAT: x += a + A_s(a) with a = MHSA(LN1 x), then x += MLP(v) + A_m(v) with v = LN2 x."""
    adapted = _moved(model, {"adapter.location": "both", "adapter.placement": "mixed"})
    reference = Reference(model.build(), adapted.family, 1, adapted.shape.pre_norm)
    spatial, mlp = (
        _function(adapted.added.get_submodule(f"{adapted.family.block(1, site).exit}.adapter"))
        for site in ("attention", "ffn")
    )
    adapted(model.inputs().double())
    x = torch.randn(2, adapted.layout.body + adapted.layout.special, HIDDEN).double()
    wanted = reference.layer(x, lambda u, sub: sub(u) + spatial(sub(u)), lambda v, sub: sub(v) + mlp(v))
    torch.testing.assert_close(_through(adapted, 1, x), wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("location", ["attention", "ffn"])
def test_two_pairs_of_the_eight_published_cases_coincide(location: str) -> None:
    """Parallel-after and sequential-after are one function: six of eight nominal cases are distinct."""
    model = MODELS[0]
    outputs = {}
    for placement, order, residual in (
        ("parallel", "before", None),
        ("parallel", "after", None),
        ("sequential", "before", False),
        ("sequential", "after", True),
    ):
        flat = {"adapter.location": location, "adapter.placement": placement, "adapter.order": order}
        adapted = _moved(model, flat if residual is None else {**flat, "adapter.residual": residual})
        outputs[placement, order] = adapted(model.inputs().double()).last_hidden_state
    assert torch.equal(outputs["parallel", "after"], outputs["sequential", "after"])
    distinct = [outputs[key] for key in outputs if key != ("sequential", "after")]
    assert not any(torch.equal(one, other) for i, one in enumerate(distinct) for other in distinct[:i])
