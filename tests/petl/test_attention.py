"""Longer masks, and WavLM's attention with its projections called."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import create_block_mask, create_mask
from transformers import WavLMModel

from petl import attach
from petl.attention import CallProjections, extended_mask
from tests.petl.models import MODELS, SAMPLES, TinyModel, trained

WAVLM = [m for m in MODELS if m.kind == "WavLM"]
METHOD = "torch_multi_head_self_attention"
every_wavlm = pytest.mark.parametrize("model", WAVLM, ids=str)


@pytest.fixture
def seen_BQK() -> Tensor:
    """A mask that is no mere padding: (2, 1, 5, 5), every query sees something."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(2, 1, 5, 5, generator=generator) > 0.5
    mask[..., 0] = True
    mask[1, ..., 4] = False
    return mask


def by_definition(mask: Tensor, count: int, at: int, drop: int, queries: bool) -> Tensor:
    """Key by key and query by query, from the words of `extended_mask`."""
    old: list[int | None] = [*range(at), *[None] * count, *range(at + drop, mask.shape[-1])]
    asking = old if queries else [*range(mask.shape[-2])]
    out = torch.zeros(*mask.shape[:2], len(asking), len(old), dtype=torch.bool)
    for b in range(mask.shape[0]):
        for i, q in enumerate(asking):
            for j, k in enumerate(old):
                if k is None:
                    out[b, 0, i, j] = True
                else:
                    out[b, 0, i, j] = bool(mask[b, 0, :, k].any()) if q is None else bool(mask[b, 0, q, k])
    return out


PLACES = [(3, 0, 0, False), (2, 0, 0, True), (2, 2, 0, True), (3, 1, 1, True), (1, 1, 1, True)]


@pytest.mark.parametrize(("count", "at", "drop", "queries"), PLACES)
def test_masks_of_all_pairs(seen_BQK: Tensor, count: int, at: int, drop: int, queries: bool) -> None:
    wanted = by_definition(seen_BQK, count, at, drop, queries)
    found = extended_mask(seen_BQK, count, at=at, drop=drop, queries=queries)
    assert found.dtype == torch.bool and torch.equal(found, wanted)
    least = torch.finfo(torch.float64).min
    scores = torch.where(seen_BQK, torch.zeros((), dtype=torch.float64), least)
    added = extended_mask(scores, count, at=at, drop=drop, queries=queries)
    assert torch.equal(added, torch.where(wanted, torch.zeros((), dtype=torch.float64), least))


@pytest.mark.parametrize(("count", "at", "drop", "queries"), PLACES)
def test_masks_of_keys_alone(seen_BQK: Tensor, count: int, at: int, drop: int, queries: bool) -> None:
    keys = seen_BQK[:, :, :1]
    wanted = by_definition(keys, count, at, drop, False)
    assert torch.equal(extended_mask(keys, count, at=at, drop=drop, queries=queries), wanted)
    for dtype in (torch.bool, torch.long, torch.float32):
        padding = keys[:, 0, 0].to(dtype)
        found = extended_mask(padding, count, at=at, drop=drop, queries=queries)
        assert found.dtype == dtype and torch.equal(found, wanted[:, 0, 0].to(dtype))
    assert extended_mask(None, count, at=at, drop=drop, queries=queries) is None


@pytest.mark.parametrize(("count", "at", "drop", "queries"), PLACES)
def test_block_masks(seen_BQK: Tensor, count: int, at: int, drop: int, queries: bool) -> None:
    """As above, but that a new query sees what the first token does: all there is, for masks of padding."""
    padding = seen_BQK[:, :, :1].expand(-1, -1, 5, -1)
    mask = create_block_mask(lambda b, h, q, k: padding[b, 0, q, k], 2, None, 5, 5, device="cpu", BLOCK_SIZE=4)
    found = extended_mask(mask, count, at=at, drop=drop, queries=queries)
    wanted = by_definition(padding, count, at, drop, queries)
    assert found.seq_lengths == tuple(wanted.shape[-2:])
    assert found.BLOCK_SIZE == (4, 4) and found.shape == (2, 1, *wanted.shape[-2:])
    dense = create_mask(found.mask_mod, 2, 1, *wanted.shape[-2:], device="cpu")
    assert torch.equal(dense, wanted)


def projected(model: Any) -> list[Any]:
    """Put the wrapper on every layer; returns what undoes it."""
    return [CallProjections(f"encoder.layers.{i}.attention").attach(model) for i in range(len(model.encoder.layers))]


def run(model: Any, x: Tensor, mask: Tensor | None) -> tuple[Tensor, list[Tensor], tuple[Tensor, ...]]:
    torch.manual_seed(3)
    out = model(x, attention_mask=mask, output_attentions=True)
    names = [n for n, _ in model.named_parameters() if "attention" in n]
    gradients = torch.autograd.grad(
        out.last_hidden_state.float().square().sum(), [model.get_parameter(n) for n in names], allow_unused=True
    )
    return out.last_hidden_state, [g for g in gradients if g is not None], out.attentions


@every_wavlm
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("autocast", [False, True])
def test_wavlm_to_the_bit(model: TinyModel, padded: bool, training: bool, autocast: bool) -> None:
    """Outputs, attention weights and gradients are those of transformers' own, dropout included."""
    backbone: WavLMModel = model.build().train(training)
    backbone.config.mask_time_prob = 0.0  # drawn from numpy's generator
    x, mask = model.inputs(3), None
    if padded:
        mask = torch.ones(3, SAMPLES, dtype=torch.long)
        mask[1, 200:] = 0
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        before = run(backbone, x.clone(), mask)
        undo = projected(backbone)
        assert METHOD in vars(backbone.encoder.layers[0].attention)
        after = run(backbone, x.clone(), mask)
    assert torch.equal(before[0], after[0])
    assert len(before[2]) == len(after[2]) > 0 and all(map(torch.equal, before[2], after[2]))
    assert len(before[1]) == len(after[1]) and all(map(torch.equal, before[1], after[1]))
    for step in undo:
        step()
    assert not any(METHOD in vars(m) for m in backbone.modules())


@every_wavlm
@pytest.mark.parametrize("target", ["q", "k", "v", "o", "fc1"])
def test_lora_on_every_projection_of_wavlm(model: TinyModel, target: str) -> None:
    """The adapted output is that of a plain backbone with the update added to its weight."""
    adapted = trained(
        attach(model.build().double(), {"method": "lora", "lora.rank": 2, "lora.targets": target}, seed=0)
    )
    merged = model.build().double()
    x = model.inputs().double()
    assert not torch.allclose(adapted(x).last_hidden_state, merged(x).last_hidden_state)
    tensors = adapted.trainable()
    with torch.no_grad():
        for name in [n for n in tensors if n.endswith("lora_A.weight")]:
            path = name.removesuffix(".lora_A.weight")
            merged.get_submodule(path).weight += 8 * tensors[f"{path}.lora_B.weight"] @ tensors[name]  # type: ignore[operator]
    wanted = merged(x).last_hidden_state
    torch.testing.assert_close(adapted(x).last_hidden_state, wanted, rtol=1e-10, atol=1e-12)
    used = any(METHOD in vars(m) for m in adapted.backbone.modules())
    assert used == (target != "fc1")
    backbone = adapted.detach()
    assert not any(METHOD in vars(m) for m in backbone.modules())
    assert torch.equal(backbone(x).last_hidden_state, model.build().double()(x).last_hidden_state)


@every_wavlm
def test_lora_leaves_wavlm_as_it_is_at_the_start(model: TinyModel) -> None:
    adapted = attach(model.build(), {"method": "lora", "lora.rank": 2, "lora.targets": "q,k,v,o"}, seed=0).eval()
    frozen = model.build().requires_grad_(False)  # torch picks kernels by requires_grad: another last bit
    assert torch.equal(adapted(model.inputs()).last_hidden_state, frozen(model.inputs()).last_hidden_state)


@every_wavlm
def test_lora_and_prefix_share_the_wrapper(model: TinyModel) -> None:
    """In either order, and when both are taken off or copied."""
    options = {"lora.rank": 2, "lora.targets": "q,o", "prefix.length": 3, "layers.first": 1}
    one = trained(attach(model.build(), {"method": "lora+prefix", **options}, seed=0))
    two = attach(model.build(), {"method": "prefix+lora", **options}, seed=0)
    two.load_adapter_state(one.adapter_state())
    x = model.inputs()
    found = one(x).last_hidden_state
    assert torch.equal(found, two(x).last_hidden_state)
    for left_out in ("lora", "prefix"):
        flat = {k: v for k, v in options.items() if not k.startswith(left_out)}
        rest = attach(model.build(), {"method": "prefix" if left_out == "lora" else "lora", **flat}, seed=0)
        rest.load_adapter_state({n: t for n, t in one.adapter_state().items() if n in rest.stored()})
        assert not torch.allclose(rest(x).last_hidden_state, found)
    twin = copy.deepcopy(one)
    trained(twin)
    assert torch.equal(one(x).last_hidden_state, found) and not torch.equal(twin(x).last_hidden_state, found)
    plain = model.build()(x).last_hidden_state
    for adapted in (one, two, twin):
        backbone: nn.Module = adapted.detach()
        assert not any(METHOD in vars(m) for m in backbone.modules())
        assert torch.equal(backbone(x).last_hidden_state, plain)
