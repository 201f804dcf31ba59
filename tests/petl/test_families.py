"""Every family's table against transformers' own models: paths, sizes and parameter counts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import nn
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from petl import BackboneShape, MethodConfig, UserError, attach, trainable_parameters
from petl.config import ConfigError
from petl.counts import backbone_parameters
from petl.families import FAMILIES, family_of

CLASSES = {name: getattr(transformers, f.model, WhisperEncoder) for name, f in FAMILIES.items()}

LARGE: dict[str, Any] = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
STABLE: dict[str, Any] = {**LARGE, "do_stable_layer_norm": True, "feat_extract_norm": "layer"}
PUBLISHED: list[tuple[str, str, dict[str, Any], int | None]] = [
    # name, family, what differs from the family's defaults, the encoder's size where it is known from elsewhere
    ("wav2vec2-base", "wav2vec2", {}, 94_371_712),
    ("wav2vec2-large-xlsr-53", "wav2vec2", {**STABLE, "conv_bias": True, "mask_time_prob": 0.075}, 315_438_720),
    ("mms-300m-adapters", "wav2vec2", {**STABLE, "conv_bias": True, "adapter_attn_dim": 16}, None),
    ("hubert-base", "hubert", {}, 94_371_712),
    ("hubert-large", "hubert", {**STABLE, "conv_bias": True}, 315_438_720),
    ("mhubert-147", "hubert", {"conv_pos_batch_norm": True, "feat_proj_layer_norm": True}, None),
    ("wavlm-base", "wavlm", {}, 94_381_936),
    ("wavlm-large", "wavlm", STABLE, 315_453_120),
    ("data2vec-audio-base", "data2vec-audio", {}, None),
    ("data2vec-audio-large", "data2vec-audio", LARGE, None),
    ("unispeech-sat-base", "unispeech-sat", {"mask_time_prob": 0.0}, 94_371_712),
    ("unispeech-sat-large", "unispeech-sat", STABLE, None),
    ("whisper-tiny", "whisper", {}, None),
    (
        "whisper-small",
        "whisper",
        {"d_model": 768, "encoder_layers": 12, "encoder_attention_heads": 12, "encoder_ffn_dim": 3072},
        None,
    ),
    (
        "whisper-large-v3",
        "whisper",
        {
            "d_model": 1280,
            "encoder_layers": 32,
            "encoder_attention_heads": 20,
            "encoder_ffn_dim": 5120,
            "num_mel_bins": 128,
        },
        None,
    ),
    ("ast-base", "audio-spectrogram-transformer", {}, 86_187_264),
    ("ast-no-qkv-bias", "audio-spectrogram-transformer", {"qkv_bias": False, "num_hidden_layers": 2}, None),
    ("ssast-base", "audio-spectrogram-transformer", {"frequency_stride": 16, "time_stride": 16}, None),
]

WAVEFORM: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "conv_dim": (16, 24, 32),
    "conv_kernel": (10, 3, 2),
    "conv_stride": (5, 2, 2),
    "num_conv_pos_embeddings": 6,
    "num_conv_pos_embedding_groups": 4,
}
LAYERED = {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}
TINY: list[tuple[str, dict[str, Any]]] = [
    ("wav2vec2", WAVEFORM),
    ("wav2vec2", {**WAVEFORM, **LAYERED}),
    ("wav2vec2", {**WAVEFORM, **LAYERED, "mask_time_prob": 0.0, "adapter_attn_dim": 6}),
    ("wav2vec2", {**WAVEFORM, "mask_time_prob": 0.0, "mask_feature_prob": 0.1}),
    ("hubert", WAVEFORM),
    ("hubert", {**WAVEFORM, **LAYERED}),
    ("hubert", {**WAVEFORM, "conv_pos_batch_norm": True, "feat_proj_layer_norm": False}),
    ("wavlm", {**WAVEFORM, "num_buckets": 12}),
    ("wavlm", {**WAVEFORM, **LAYERED, "num_buckets": 12}),
    ("data2vec-audio", {**WAVEFORM, "num_conv_pos_embeddings": 2, "conv_pos_kernel_size": 5}),
    ("unispeech-sat", WAVEFORM),
    ("unispeech-sat", {**WAVEFORM, **LAYERED, "apply_spec_augment": False}),
    (
        "whisper",
        {
            "d_model": 32,
            "encoder_layers": 3,
            "encoder_attention_heads": 4,
            "encoder_ffn_dim": 48,
            "num_mel_bins": 8,
            "max_source_positions": 20,
        },
    ),
    (
        "audio-spectrogram-transformer",
        {
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "intermediate_size": 48,
            "max_length": 40,
            "num_mel_bins": 24,
            "patch_size": 8,
            "time_stride": 4,
            "frequency_stride": 8,
        },
    ),
]


def _model(family: str, changed: dict[str, Any], device: str = "meta") -> nn.Module:
    cls = CLASSES[family]
    with torch.device(device), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return cls(cls.config_class(**changed))


def _shape(model: Any) -> BackboneShape:
    return BackboneShape.from_config(model.config.to_dict())


def _size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def _name(value: Any) -> str:
    return value if isinstance(value, str) else "-".join(str(v) for v in value.values() if isinstance(v, (str, bool)))


@pytest.mark.parametrize(("name", "family", "changed", "known"), PUBLISHED, ids=[row[0] for row in PUBLISHED])
def test_size_of_published_models(name: str, family: str, changed: dict[str, Any], known: int | None) -> None:
    model = _model(family, changed)
    assert backbone_parameters(_shape(model)) == _size(model)
    if known is not None:
        assert _size(model) == known


@pytest.mark.parametrize(("name", "family", "changed", "known"), PUBLISHED, ids=[row[0] for row in PUBLISHED])
def test_tuned_parameters_of_published_models(name: str, family: str, changed: dict[str, Any], known: None) -> None:
    """BitFit, partial and full fine-tuning count what `attach` really trains."""
    model = _model(family, changed)
    shape = _shape(model)
    for flat in (
        {"method": "bitfit"},
        {"method": "bitfit", "layers.first": 1},
        {"method": "partial", "partial.last": 2},
        {"method": "partial", "partial.last": shape.layers},
        {"method": "partial+bitfit", "partial.last": 1},
        {"method": "full"},
        {"method": "full", "backbone_mode": "eval"},
        {"method": "linear", "norms": "final"},
    ):
        method = MethodConfig.from_flat(flat)
        adapted = attach(model, method, seed=0)
        assert trainable_parameters(method, shape) == sum(p.numel() for p in adapted.trainable().values()), flat
        adapted.detach()


@pytest.mark.parametrize(("family", "changed"), TINY, ids=_name)
def test_every_path_of_the_table_is_there(family: str, changed: dict[str, Any]) -> None:
    model = _model(family, changed)
    shape, table = _shape(model), family_of(family)
    assert backbone_parameters(shape) == _size(model)
    layers = model.get_submodule(table.layers)
    assert isinstance(layers, nn.ModuleList) and len(layers) == shape.layers
    d, f = shape.hidden, shape.ffn
    for layer in range(shape.layers):
        for target, (inputs, outputs) in {"fc1": (d, f), "fc2": (f, d)}.items():
            host = model.get_submodule(table.projection(layer, target))
            assert isinstance(host, nn.Linear) and (host.in_features, host.out_features) == (inputs, outputs)
        for target in "qkvo":
            host = model.get_submodule(table.projection(layer, target))
            assert isinstance(host, nn.Linear) and (host.in_features, host.out_features) == (d, d)
            bias = {"o": True, "k": shape.key_bias and shape.qkv_bias}.get(target, shape.qkv_bias)
            assert (host.bias is not None) == bias
        for site in ("attention", "ffn"):
            block = table.block(layer, site)
            assert isinstance(model.get_submodule(block.norm), nn.LayerNorm)
            assert model.get_submodule(block.entry) and model.get_submodule(block.exit)
    assert isinstance(model.get_submodule(table.last_norm(shape)), nn.LayerNorm)
    model.get_submodule(table.watched)
    for name in table.fixed:
        assert not model.get_parameter(name).requires_grad
    convs = _convs(model, table.convs)
    assert len(convs) == len(shape.convs)
    for conv, wanted in zip(convs, shape.convs, strict=True):
        assert (conv.in_channels, conv.out_channels, *conv.kernel_size, *conv.stride, *conv.padding) == (
            (wanted.inputs, wanted.outputs, wanted.kernel, wanted.stride, wanted.padding)
        )
        assert (conv.bias is not None) == wanted.bias
    if table.feature_encoder is not None:
        model.get_submodule(table.feature_encoder)


def _convs(model: nn.Module, paths: str | tuple[str, ...]) -> list[Any]:
    if isinstance(paths, str):
        return [layer.conv for layer in model.get_submodule(paths)]  # type: ignore[union-attr]
    return [model.get_submodule(path) for path in paths]


@pytest.mark.parametrize(("family", "changed"), TINY, ids=_name)
def test_what_the_table_says_of_the_forward_pass(family: str, changed: dict[str, Any]) -> None:
    """Length of the output; norms in front of or behind the sub-layers; where blocks begin and end."""
    model = _model(family, changed, device="cpu").eval()
    shape, table = _shape(model), family_of(family)
    length = {"audio-spectrogram-transformer": 40, "whisper": 40}.get(family, 400)
    size = {"audio-spectrogram-transformer": (2, 40, 24), "whisper": (2, 8, 40)}.get(family, (2, length))
    values = torch.randn(size, generator=torch.Generator().manual_seed(0))
    order: list[str] = []
    watched = {table.block(0, site).norm: f"{site} norm" for site in ("attention", "ffn")}
    watched |= {table.block(0, site).entry: site for site in ("attention", "ffn")}
    for path, label in watched.items():
        model.get_submodule(path).register_forward_pre_hook(lambda *_, label=label: order.append(label))
    out = model(values).last_hidden_state
    assert out.shape == (2, shape.tokens(length), shape.hidden)
    before = ["attention norm", "attention", "ffn norm", "ffn"]
    assert order == (before if shape.pre_norm else ["attention", "attention norm", "ffn", "ffn norm"])

    found: list[Any] = []
    model.get_submodule(table.last_norm(shape)).register_forward_hook(lambda m, a, o: found.append(o))
    assert torch.equal(model(values).last_hidden_state, found[-1])


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "wav2vec2", "add_adapter": True}, "add_adapter = true.*without it"),
        ({"model_type": "bert"}, "of type 'bert'.*supported: .*wav2vec2.*A new family is one module of petl/families"),
        ({}, "of type 'None'"),
        ({"model_type": "wav2vec2", "conv_dim": [512]}, "1 entries in conv_dim, 7 in conv_kernel"),
        ({"model_type": "wav2vec2", "conv_kernel": 3}, "conv_kernel = 3; a list"),
        ({"model_type": "hubert", "feat_extract_norm": "batch"}, "feat_extract_norm = 'batch'; allowed"),
        ({"model_type": "wavlm", "mask_time_prob": "much"}, "mask_time_prob = 'much'"),
        ({"model_type": "whisper", "d_model": 0}, "d_model = 0"),
    ],
)
def test_configurations_that_cannot_be_used(config: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        BackboneShape.from_config(config)


def test_deit_is_read_as_an_ast() -> None:
    shape = BackboneShape.from_config({"model_type": "deit", "hidden_size": 192, "patch_size": 16, "image_size": 384})
    assert (shape.family, shape.hidden, shape.grid()) == ("audio-spectrogram-transformer", 192, (12, 101))


def test_methods_that_a_family_lacks() -> None:
    ast = BackboneShape()
    for flat, said in (
        ({"method": "feature_adapter"}, "needs a convolutional front end"),
        ({"method": "full", "full.feature_encoder": False}, "no convolutional feature encoder"),
    ):
        with pytest.raises(ConfigError, match=said):
            trainable_parameters(MethodConfig.from_flat(flat), ast)
    with pytest.raises(ConfigError, match="needs a CLS token"):
        trainable_parameters(MethodConfig(pooling="cls"), BackboneShape.from_config({"model_type": "whisper"}))
