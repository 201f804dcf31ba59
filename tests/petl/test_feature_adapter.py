"""Adapters in convolutional front ends: maths, start, padding, counts."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from petl import BackboneShape, ConfigError, MethodConfig, attach, trainable_parameters
from tests.petl.models import drawn, tiny_backbone, trained
from tests.petl.test_families import CLASSES, LAYERED, WAVEFORM
from tests.petl.test_families import TINY as SIZES

WHISPER = next(changed for family, changed in SIZES if family == "whisper")
KINDS = {
    "layer": ("wav2vec2", {**WAVEFORM, **LAYERED}),
    "layer, no bias": ("wavlm", {**WAVEFORM, "num_buckets": 12, "feat_extract_norm": "layer"}),
    "group": ("hubert", WAVEFORM),
    "group, bias": ("unispeech-sat", {**WAVEFORM, "conv_bias": True}),
    "data2vec": ("data2vec-audio", {**WAVEFORM, "num_conv_pos_embeddings": 2, "conv_pos_kernel_size": 5}),
    "whisper": ("whisper", WHISPER),
}
FLAT: dict[str, Any] = {"method": "feature_adapter", "feature_adapter.width": 3}
FIRST: dict[str, Any] = {**FLAT, "feature_adapter.published_first": True}


def _backbone(kind: str) -> Any:
    family, changed = KINDS[kind]
    return drawn(CLASSES[family](CLASSES[family].config_class(**changed)), 0)


def _values(kind: str, samples: int = 200) -> Tensor:
    size = (2, 8, 40) if kind == "whisper" else (2, samples)
    return torch.randn(size, generator=torch.Generator().manual_seed(1))


def _convs(backbone: Any) -> list[nn.Conv1d]:
    if hasattr(backbone, "conv1"):
        return [backbone.conv1, backbone.conv2]
    return [layer.conv for layer in backbone.feature_extractor.conv_layers]


@pytest.mark.parametrize("flat", [FLAT, FIRST], ids=["narrow", "published_first"])
@pytest.mark.parametrize("kind", KINDS)
def test_starts_as_the_backbone_and_counts(kind: str, flat: dict[str, Any]) -> None:
    backbone = _backbone(kind)
    plain = backbone.requires_grad_(False)(_values(kind)).last_hidden_state  # trained or not, WavLM rounds differently
    shape = BackboneShape.from_config(backbone.config.to_dict())
    adapted = attach(backbone, flat, seed=0)
    assert torch.equal(adapted(_values(kind)).last_hidden_state, plain)
    tensors = adapted.trainable()
    assert sum(p.numel() for p in tensors.values()) == trainable_parameters(MethodConfig.from_flat(flat), shape)
    trained(adapted)
    out = adapted(_values(kind)).last_hidden_state
    assert not torch.allclose(out, plain)
    out.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in tensors.values())
    assert torch.equal(adapted.detach()(_values(kind)).last_hidden_state, plain)


@pytest.mark.parametrize("kind", KINDS)
def test_the_formula(kind: str) -> None:
    """The front end, layer by layer and by hand, with the adapters' tensors."""
    backbone = _backbone(kind).double()
    x = _values(kind).double()
    adapted = trained(attach(backbone, FIRST, seed=0))
    state = {name: p.detach() for name, p in adapted.trainable().items()}
    prefix = "conv" if kind == "whisper" else "feature_extractor.conv_layers."
    h = x if kind == "whisper" else x[:, None]
    for index, conv in enumerate(_convs(backbone)):
        own = f"conv{index + 1}" if kind == "whisper" else f"{prefix}{index}"
        if "group" in kind:
            names = f"{own}.adapter"
            h = functional.conv1d(h, conv.weight, conv.bias, conv.stride)
            if index == 0:
                norm = backbone.feature_extractor.conv_layers[0].layer_norm
                h = functional.group_norm(h, norm.num_groups, norm.weight, norm.bias, norm.eps)
            h = functional.gelu(h)
            down = functional.conv1d(h, state[f"{names}.down.weight"], state[f"{names}.down.bias"])
            assert state[f"{names}.down.weight"].shape == (conv.out_channels if index == 0 else 3, conv.out_channels, 1)
            h = h + functional.conv1d(functional.gelu(down), state[f"{names}.up.weight"], state[f"{names}.up.bias"])
        else:
            names = f"{own}.adapter" if kind == "whisper" else f"{own}.conv.adapter"
            bias = state.get(f"{names}.down.bias")
            assert (bias is None) == (conv.bias is None)
            down = functional.conv1d(h, state[f"{names}.down.weight"], bias, conv.stride, conv.padding)
            up = functional.conv1d(functional.gelu(down), state[f"{names}.up.weight"], state[f"{names}.up.bias"])
            h = functional.conv1d(h, conv.weight, conv.bias, conv.stride, conv.padding) + up
            if kind != "whisper":
                norm = backbone.feature_extractor.conv_layers[index].layer_norm
                h = functional.layer_norm(h.transpose(1, 2), norm.normalized_shape, norm.weight, norm.bias, norm.eps)
                h = h.transpose(1, 2)
            h = functional.gelu(h)
    seen: list[Tensor] = []
    target = backbone.layers[0] if kind == "whisper" else backbone.feature_projection
    target.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    adapted(x)
    expected = h.transpose(1, 2) + (backbone.embed_positions.weight if kind == "whisper" else 0)
    torch.testing.assert_close(seen[0], expected, rtol=1e-10, atol=1e-10)


def test_frames_of_real_audio_see_no_padding() -> None:
    backbone = _backbone("layer")
    adapted = trained(attach(backbone, FLAT, seed=0))
    short = _values("layer", 90)[:1]
    mask = torch.zeros(2, 200, dtype=torch.long)
    mask[0, :90], mask[1] = 1, 1
    batch = torch.cat([functional.pad(short, (0, 110)), _values("layer")[1:]])
    alone = adapted(short, attention_mask=mask[:1, :90]).last_hidden_state
    together = adapted(batch, attention_mask=mask).last_hidden_state[:1, : alone.shape[1]]
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_draws_come_from_the_seed() -> None:
    one, two, other = (attach(_backbone("layer"), FLAT, seed=seed).adapter_state() for seed in (5, 5, 6))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_copies_use_their_own_tensors() -> None:
    adapted = trained(attach(_backbone("group"), FLAT, seed=0))
    twin = copy.deepcopy(adapted)
    before = twin(_values("group")).last_hidden_state
    with torch.no_grad():
        for p in adapted.trainable().values():
            p.zero_()
    assert torch.equal(twin(_values("group")).last_hidden_state, before)


def test_an_ast_has_no_such_front_end() -> None:
    with pytest.raises(ConfigError, match="needs a convolutional front end"):
        attach(tiny_backbone(), {"method": "feature_adapter"}, seed=0)


def test_published_size() -> None:
    """XLSR: Down of every layer has its kernel, 8 channels, and the first is as wide as the layer."""
    shape = BackboneShape.from_config(
        {
            "model_type": "wav2vec2",
            "hidden_size": 1024,
            "num_hidden_layers": 24,
            "feat_extract_norm": "layer",
            "conv_bias": True,
            "do_stable_layer_norm": True,
        }
    )
    first = (1 * 512 * 10 + 512) + (512 * 512 + 512)
    others = sum((512 * 8 * kernel + 8) + (8 * 512 + 512) for kernel in (3, 3, 3, 3, 2, 2))
    method = MethodConfig.from_flat({"method": "feature_adapter", "feature_adapter.published_first": True})
    assert trainable_parameters(method, shape) == first + others
