"""The methods against their equations, written out with loops in float64: forward and gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from petl import Adapted, attach
from petl.config import MoaOptions
from petl.layout import Layout, Tokens
from petl.methods.blocks.bottleneck import Bottleneck
from petl.methods.dense_moa import DenseMoa
from petl.methods.lora import Lora
from petl.methods.soft_moa import SoftMoa
from tests.petl.models import HIDDEN, inputs, tiny_backbone, trained

B, N, D, R, E, S = 2, 7, 12, 5, 3, 2
PLAIN = Layout.sequence(N)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _mixture(
    kind: Callable[..., nn.Module], hidden: int = D, experts: int = E, slots: int = S, **options: Any
) -> nn.Module:
    """A mixture of bottlenecks of width R, or of the width that a `reduction` among the options gives."""
    options = {"reduction": D / R, **options}
    return kind(MoaOptions(experts=experts, slots=slots, **options), hidden, Tokens(0, 0), _generator())


def _double(module: nn.Module) -> nn.Module:
    """In float64, with every tensor away from its zeros."""
    module.double()
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.5 * torch.randn(p.shape, generator=_generator(), dtype=torch.float64))
    return module


def _same(module: nn.Module, by_hand: Callable[[nn.Module, Tensor], Tensor], x: Tensor) -> None:
    """Equal outputs, and equal gradients for the input and every parameter."""
    results = []
    takes_layout = not isinstance(module, Lora)
    for function in (lambda x: module(x, PLAIN) if takes_layout else module(x), lambda x: by_hand(module, x)):
        x_leaf = x.clone().requires_grad_(True)
        module.zero_grad()
        y = function(x_leaf)
        (y * torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view_as(y)).sum().backward()
        grads = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
        results.append((y.detach(), x_leaf.grad, grads))
    (y1, dx1, grads1), (y2, dx2, grads2) = results
    torch.testing.assert_close(y1, y2, rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(dx1, dx2, rtol=1e-9, atol=1e-10)
    assert grads1.keys() == grads2.keys() == dict(module.named_parameters()).keys()
    for name in grads1:
        torch.testing.assert_close(grads1[name], grads2[name], rtol=1e-9, atol=1e-10, msg=name)


def _x() -> Tensor:
    return torch.randn(B, N, D, generator=_generator(), dtype=torch.float64)


def _sum(terms: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(terms)).sum(0)


def _gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x / 2**0.5))


@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_bottleneck(activation: str) -> None:
    def by_hand(m: Any, x: Tensor) -> Tensor:
        hidden = x @ m.down.weight.T + m.down.bias
        hidden = _gelu(hidden) if activation == "gelu" else hidden.clamp(min=0)
        return hidden @ m.up.weight.T + m.up.bias

    _same(_double(Bottleneck(D, R, _generator(), activation=activation)), by_hand, _x())


@pytest.mark.parametrize("alpha", [16.0, 1.0])
def test_lora(alpha: float) -> None:
    def by_hand(m: Any, x: Tensor) -> Tensor:
        return torch.einsum("oi,bni->bno", alpha / R * (m.lora_B.weight @ m.lora_A.weight), x)

    module = _double(Lora(D, 9, R, alpha, 0.0, _generator()))
    _same(module, by_hand, _x())
    torch.testing.assert_close(_x() @ cast(Lora, module).delta().T, module(_x()))


def _expert(experts: Any, i: int, x: Tensor) -> Tensor:
    """A_i(x), with the tensors of expert i alone."""
    hidden = _gelu(x @ experts.down.weight[i].T + experts.down.bias.view(experts.experts, -1)[i])
    return hidden @ experts.up.weight[i] + experts.up.bias.view(experts.experts, -1)[i]


def test_dense_moa() -> None:
    def by_hand(m: Any, x: Tensor) -> Tensor:
        out = []
        for b in range(B):
            for n in range(N):
                scores = [x[b, n] @ m.router.weight[i] + m.router.bias[i] for i in range(E)]
                top = torch.stack(scores).logsumexp(0)
                out.append(_sum(torch.exp(scores[i] - top) * _expert(m.experts, i, x[b, n]) for i in range(E)))
        return torch.stack(out).view(B, N, D)

    _same(_double(_mixture(DenseMoa)), by_hand, _x())


@pytest.mark.parametrize("normalize", ["none", "soft_moe", "published"])
def test_soft_moa(normalize: str) -> None:
    def by_hand(m: Any, x: Tensor) -> Tensor:
        phi, routed = m.phi, x
        if normalize != "none":
            routed = torch.stack([torch.stack([t / (t.square().sum().sqrt() + 1e-6) for t in row]) for row in x])
            axis = {"soft_moe": 0, "published": 1}[normalize]
            phi = m.scale * phi / (phi.square().sum(axis, keepdim=True).sqrt() + 1e-6)
        slotted = routed if normalize == "published" else x
        out = []
        for b in range(B):
            logits = torch.stack(
                [
                    torch.stack([torch.stack([routed[b, t] @ phi[:, i, j] for j in range(S)]) for i in range(E)])
                    for t in range(N)
                ]
            )  # (N, E, S)
            filled = {}
            for i in range(E):
                for j in range(S):
                    weights = logits[:, i, j].exp() / logits[:, i, j].exp().sum()
                    slot = _sum(weights[t] * slotted[b, t] for t in range(N))
                    filled[i, j] = _expert(m.experts, i, slot)
            for t in range(N):
                total = logits[t].exp().sum()
                out.append(_sum(logits[t, i, j].exp() / total * filled[i, j] for i in range(E) for j in range(S)))
        return torch.stack(out).view(B, N, D)

    _same(_double(_mixture(SoftMoa, normalize=normalize)), by_hand, _x())


def test_soft_moe_normalisation_bounds_the_logits_and_published_shrinks_the_slots() -> None:
    x = 100 * _x().float()
    modules: dict[str, Any] = {n: _mixture(SoftMoa, normalize=n) for n in ("none", "soft_moe", "published")}
    seen: dict[str, Tensor] = {}
    for name, module in modules.items():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module.experts, "each", partial(seen.setdefault, name))
            module(x, PLAIN)
    assert seen["published"].norm(dim=-1).max() <= 1.001
    assert seen["soft_moe"].norm(dim=-1).mean() > 10


def test_phi_is_drawn_with_the_published_deviation() -> None:
    module: Any = _mixture(SoftMoa, 768, 7, 1, reduction=128.0)
    assert module.phi.std().item() == pytest.approx(0.0509, rel=0.03)


def test_soft_moa_equals_the_mean_of_tokens_where_logits_are_flat() -> None:
    module: Any = _mixture(SoftMoa, experts=1, slots=1)
    with torch.no_grad():
        module.phi.zero_()
        module.experts.up.weight.normal_(generator=_generator())
    x = _x().float()
    expected = _expert(module.experts, 0, x.mean(1)).unsqueeze(1).expand(B, N, D)
    torch.testing.assert_close(module(x, PLAIN), expected)


# Placement: one layer of the adapted model against the layer's equation.

Module = Callable[[Tensor], Tensor]
Rule = Callable[[Module, Tensor], Tensor]
"""(sub-layer F, its input u) -> what is added to the residual stream."""
TOKENS = 9
LAYOUT = Layout(2, 0, TOKENS - 2, (1, TOKENS - 2))


def _layer_by_hand(adapted: Adapted, x: Tensor, attention: Rule | None = None, ffn: Rule | None = None) -> Tensor:
    """X̂ = X + attention(MHSA, u), X' = X̂ + ffn(FFN, v), on modules without hooks."""
    layer: Any = adapted.backbone.layers[1]

    def attend(u: Tensor) -> Tensor:
        return layer.attention.forward(u)[0]

    u = layer.layernorm_before(x)
    x = x + (attention(attend, u) if attention else attend(u))
    v = layer.layernorm_after(x)
    return x + (ffn(layer.mlp.forward, v) if ffn else layer.mlp.forward(v))


def _adapted(flat: dict[str, Any]) -> tuple[Adapted, Tensor]:
    adapted = trained(attach(tiny_backbone(), flat, seed=0))
    adapted._tokens.current = LAYOUT  # a forward pass of the whole model would set it
    return adapted, torch.randn(2, TOKENS, HIDDEN, generator=_generator())


def _module(adapted: Adapted, path: str) -> Module:
    module = adapted.added.get_submodule(f"layers.1.{path}")
    return lambda x: module(x, LAYOUT)


def _close(adapted: Adapted, x: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(adapted.backbone.layers[1](x), expected, rtol=1e-5, atol=1e-5)


PLACEMENTS: dict[tuple[str, str | None, bool | None], Callable[[Module], Rule]] = {
    ("parallel", None, None): lambda A: lambda F, u: F(u) + A(u),
    ("parallel", None, False): lambda A: lambda F, u: F(u) + A(u),
    ("parallel", "before", True): lambda A: lambda F, u: F(u) + A(u) + u,
    ("parallel", "after", None): lambda A: lambda F, u: F(u) + A(F(u)),
    ("sequential", None, None): lambda A: lambda F, u: F(u) + A(F(u)),
    ("sequential", None, False): lambda A: lambda F, u: A(F(u)),
    ("sequential", "after", True): lambda A: lambda F, u: F(u) + A(F(u)),
    ("sequential", "before", None): lambda A: lambda F, u: F(A(u) + u) + A(u),
    ("sequential", "before", False): lambda A: lambda F, u: F(A(u)) + A(u),
}


@pytest.mark.parametrize(("placement", "order", "residual"), PLACEMENTS, ids=str)
@pytest.mark.parametrize("location", ["ffn", "attention", "both"])
def test_adapter_placements(placement: str, order: str | None, residual: bool | None, location: str) -> None:
    flat = {
        "method": "adapter",
        "adapter.width": 4,
        "adapter.location": location,
        "adapter.placement": placement,
        "adapter.order": order,
        "adapter.residual": residual,
    }
    adapted, x = _adapted({key: value for key, value in flat.items() if value is not None})
    rule = PLACEMENTS[placement, order, residual]
    at = rule(_module(adapted, "attention.adapter")) if location != "ffn" else None
    fa = rule(_module(adapted, "mlp.adapter")) if location != "attention" else None
    _close(adapted, x, _layer_by_hand(adapted, x, at, fa))


def test_adapters_of_a_hydra() -> None:
    flat = {"method": "adapter", "adapter.width": 4, "adapter.location": "both", "adapter.placement": "hydra"}
    adapted, x = _adapted(flat)

    def rule(site: str) -> Rule:
        s, p = _module(adapted, f"{site}.adapter.sequential"), _module(adapted, f"{site}.adapter.parallel")
        return lambda F, u: F(u) + s(F(u)) + p(u)

    _close(adapted, x, _layer_by_hand(adapted, x, rule("attention"), rule("mlp")))


def test_mixed_adapters_of_aat() -> None:
    """Sequential with a skip at the attention, parallel without one at the feed-forward."""
    flat = {"method": "adapter", "adapter.width": 4, "adapter.location": "both", "adapter.placement": "mixed"}
    adapted, x = _adapted(flat)
    S, M = _module(adapted, "attention.adapter"), _module(adapted, "mlp.adapter")
    expected = _layer_by_hand(adapted, x, lambda F, u: F(u) + S(F(u)), lambda F, v: F(v) + M(v))
    _close(adapted, x, expected)


def test_residual_defaults_to_sequential_only() -> None:
    """The published default deletes the sub-layer at the start; ours keeps it."""
    for placement, residual in (("parallel", False), ("sequential", True)):
        flat = {"method": "adapter", "adapter.width": 4, "adapter.placement": placement}
        one, _ = _adapted(flat)
        two, _ = _adapted({**flat, "adapter.residual": residual})
        assert torch.equal(one(inputs()).last_hidden_state, two(inputs()).last_hidden_state)


def test_adapter_after_the_whole_layer() -> None:
    adapted, x = _adapted(
        {
            "method": "adapter",
            "adapter.width": 4,
            "adapter.location": "layer",
            "adapter.placement": "sequential",
        }
    )
    out = _layer_by_hand(adapted, x)
    _close(adapted, x, out + _module(adapted, "adapter")(out))


def test_adapter_beside_the_whole_layer() -> None:
    adapted, x = _adapted({"method": "adapter", "adapter.width": 4, "adapter.location": "layer"})
    _close(adapted, x, _layer_by_hand(adapted, x) + _module(adapted, "adapter")(x))


@pytest.mark.parametrize("method", ["dense_moa", "soft_moa"])
@pytest.mark.parametrize(
    ("location", "legacy"), [("attention", False), ("attention", True), ("ffn", False), ("both", False)]
)
def test_mixture_is_added_once_unless_legacy(method: str, location: str, legacy: bool) -> None:
    flat = {"method": method, "moa.experts": 2, "moa.reduction": 8, "moa.location": location}
    adapted, x = _adapted({**flat, "moa.legacy_double_add": True} if legacy else flat)
    kept: dict[str, Tensor] = {}

    def at_attention(F: Module, u: Tensor) -> Tensor:
        kept["moa"] = _module(adapted, f"attention.{method}")(u)
        return F(u) + kept["moa"]

    fa = (lambda F, v: F(v) + _module(adapted, f"mlp.{method}")(v)) if location != "attention" else None
    expected = _layer_by_hand(adapted, x, at_attention if location != "ffn" else None, fa)
    if legacy:  # the published code's bug, where the attention is the only site
        expected = expected + kept["moa"]
    _close(adapted, x, expected)


def test_lora_changes_exactly_its_targets() -> None:
    """Adding the low-rank update to the weights by hand gives the same model."""
    flat = {"method": "lora", "lora.rank": 3, "lora.targets": "q,o,fc1,fc2", "lora.alpha": 5.0, "norms": "none"}
    adapted, _ = _adapted(flat)
    merged = tiny_backbone()
    with torch.no_grad():
        for i in range(len(merged.layers)):
            for path in ("attention.q_proj", "attention.o_proj", "mlp.fc1", "mlp.fc2"):
                added: Any = adapted.added.get_submodule(f"layers.{i}.{path}")
                weight = merged.layers[i].get_submodule(path).weight
                weight += 5.0 / 3 * added.lora_B.weight @ added.lora_A.weight
    torch.testing.assert_close(
        adapted(inputs()).last_hidden_state, merged(inputs()).last_hidden_state, rtol=1e-5, atol=1e-5
    )


def test_published_scale_divides_alpha_by_the_reduction() -> None:
    flat = {"method": "lora", "lora.reduction": 8, "lora.alpha": 6.0}
    ours: Any = attach(tiny_backbone(), flat).added.get_submodule("layers.0.attention.q_proj")
    assert ours.scaling == 6.0 / 4
    published: Any = attach(tiny_backbone(), {**flat, "lora.scaling": "alpha/RR"}).added
    assert published.get_submodule("layers.0.attention.q_proj").scaling == 6.0 / 8


def test_methods_on_one_module_run_in_the_order_written() -> None:
    """A sequential adapter sees what came before it, here the mixture's output or not."""
    options = {"adapter.width": 4, "adapter.location": "attention", "adapter.placement": "sequential"}
    moa = {"moa.experts": 2, "moa.reduction": 8}
    for method in ("adapter+soft_moa", "soft_moa+adapter"):
        adapted, x = _adapted({"method": method, **options, **moa})
        A, M = _module(adapted, "attention.adapter"), _module(adapted, "attention.soft_moa")

        def rule(F: Module, u: Tensor, A: Module = A, M: Module = M, method: str = method) -> Tensor:
            y = F(u)
            if method.startswith("soft"):
                y = y + M(u)
                return y + A(y)
            return y + A(y) + M(u)

        _close(adapted, x, _layer_by_hand(adapted, x, rule))


def test_layers_outside_the_range_are_untouched() -> None:
    adapted = trained(
        attach(tiny_backbone(), {"method": "adapter", "adapter.width": 4, "layers.first": 2, "norms": "site"})
    )
    mine = adapted(inputs(), output_hidden_states=True).hidden_states
    plain = tiny_backbone()(inputs(), output_hidden_states=True).hidden_states
    assert [torch.equal(a, b) for a, b in zip(mine, plain, strict=True)] == [True, True, True, False]
