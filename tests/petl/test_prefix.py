"""Prefix tuning: learned keys and values on every family, under every attention implementation."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from transformers import ASTConfig, ASTModel, Wav2Vec2Config, Wav2Vec2Model
from transformers.masking_utils import AttentionMaskInterface, flash_attention_mask
from transformers.modeling_utils import AttentionInterface

from petl import Adapted, MethodConfig, attach
from petl.errors import ConfigError
from tests.petl.encoders import Encoder, first_input
from tests.petl.models import HIDDEN, LAYERS, MODELS, SAMPLES, TinyModel, bits, inputs, tiny_backbone, trained

STABLE = next(m for m in MODELS if m.name == "wav2vec2-stable")
every_model = pytest.mark.parametrize("model", MODELS, ids=str)
WAYS: list[dict[str, Any]] = [
    {},
    {"prefix.split": True, "layers.first": 1},
    {"prefix.table": "embedding", "layers.last": 1},
    {"prefix.table": "embedding", "prefix.reparam": True, "prefix.hidden": 5},
]
every_way = pytest.mark.parametrize(
    "way", WAYS, ids=lambda way: "-".join(f"{k}={v}" for k, v in way.items()) or "layers"
)


def flat(length: int = 4, **options: Any) -> dict[str, Any]:
    return {"method": "prefix", "prefix.length": length, "norms": "none", **options}


def pairs_of(adapted: Adapted) -> Callable[[int], tuple[Tensor, Tensor] | None]:
    """Layer -> its keys and values (n, D), read from the trained tensors alone."""
    options, tensors = adapted.method.prefix, adapted.trainable()
    last = adapted.method.layers.last
    layers = list(range(adapted.method.layers.first, LAYERS if last is None else last + 1))

    def pair(layer: int) -> tuple[Tensor, Tensor] | None:
        if layer not in layers:
            return None
        index = layers.index(layer)
        if options.table == "layers":
            keys, values = (t for name, t in tensors.items() if f"layers.{layer}." in name)
            return keys, values
        if options.reparam:
            inner = torch.tanh(tensors["prefix.table"] @ tensors["prefix.down.weight"].T + tensors["prefix.down.bias"])
            rows = torch.cat([tensors[f"prefix.up.{i}.weight"] for i in range(len(layers))])
            table = inner @ rows.T + torch.cat([tensors[f"prefix.up.{i}.bias"] for i in range(len(layers))])
        else:
            table = tensors["prefix.table"]
        n = table.shape[0]
        wide = table.view(n, len(layers), 2, HIDDEN)
        return wide[:, index, 0], wide[:, index, 1]

    return pair


def agree(adapted: Adapted, plain: Any, *args: Any, tolerance: float = 1e-9, **kwargs: Any) -> None:
    """Outputs and gradients of the adapted model are those computed by hand."""
    found = adapted(*args, **kwargs).last_hidden_state
    hand, pairs = Encoder(plain), pairs_of(adapted)
    wanted = torch.stack([hand(x_ND, pairs=pairs) for x_ND in first_input(plain, *args, **kwargs)])
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(7), dtype=found.dtype)
    tensors = list(adapted.trainable().values())
    one = torch.autograd.grad((found * weights).sum(), tensors)
    two = torch.autograd.grad((wanted * weights).sum(), tensors)
    for name, a, b in zip(adapted.trainable(), one, two, strict=True):
        torch.testing.assert_close(a, b, rtol=10 * tolerance, atol=10 * tolerance, msg=name)
        assert a.any(), name


@every_model
@every_way
def test_maths(model: TinyModel, way: Mapping[str, Any]) -> None:
    adapted = attach(model.build().double(), flat(**way), seed=0)
    agree(adapted, model.build().double(), model.inputs().double())


@every_way
def test_eager_attention(way: Mapping[str, Any]) -> None:
    for model, tolerance in ((MODELS[0], 1e-5), (STABLE, 1e-9)):  # an AST's eager softmax is in float32
        backbone = model.build().double()
        backbone.set_attn_implementation("eager")
        adapted = attach(backbone, flat(**way), seed=0)
        agree(adapted, model.build().double(), model.inputs().double(), tolerance=tolerance)
        shown = adapted(model.inputs().double(), output_attentions=True).attentions
        n = 2 if way.get("prefix.split") else 4
        widths = [a.shape[-1] - a.shape[-2] for a in shown]
        assert widths == [n if pairs_of(adapted)(layer) is not None else 0 for layer in range(LAYERS)]


def test_names_shapes_and_initial_values() -> None:
    layers = attach(tiny_backbone(), flat(300, **{"layers.first": 1}), seed=0).trainable()
    v = (6 / (3 * 16**2 + HIDDEN)) ** 0.5
    assert list(layers) == [f"layers.{i}.attention.prefix.{what}" for i in (1, 2) for what in ("keys", "values")]
    for p in layers.values():
        assert p.shape == (300, HIDDEN) and 0.99 * v < float(p.detach().abs().max()) <= v
    assert not torch.equal(*list(layers.values())[:2])

    table = attach(tiny_backbone(), flat(100, **{"prefix.table": "embedding"}), seed=0).trainable()
    assert list(table) == ["prefix.table"] and table["prefix.table"].shape == (100, LAYERS * 2 * HIDDEN)
    assert abs(float(table["prefix.table"].detach().std()) - 1) < 0.02

    options = {"prefix.table": "embedding", "prefix.reparam": True}
    computed = attach(tiny_backbone(), flat(100, **options), seed=0).trainable()
    assert computed["prefix.table"].shape == (100, HIDDEN)
    assert abs(float(computed["prefix.table"].detach().std()) - 1) < 0.05
    bound = HIDDEN**-0.5
    for name in ("prefix.down.weight", "prefix.up.0.weight", "prefix.up.2.bias"):
        assert 0.9 * bound < float(computed[name].detach().abs().max()) <= bound
    # The tensors depend on the seed alone.
    torch.manual_seed(1)
    again = attach(tiny_backbone(), flat(100, **options), seed=0).trainable()
    assert all(torch.equal(computed[name], again[name]) for name in computed)


def test_published_sizes() -> None:
    """PETL_AST: 24 split into 12 and 12; SURE: 30 from one table of 24 layers of width 1024, and computed."""
    large = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
    with torch.device("meta"):
        ast = ASTModel(ASTConfig())
        xlsr = Wav2Vec2Model(Wav2Vec2Config(**large, do_stable_layer_norm=True, feat_extract_norm="layer"))
    computed = 30 * 1024 + 1024 * 800 + 800 + 800 * 49_152 + 49_152
    for backbone, options, count in (
        (ast, flat(24, **{"prefix.split": True}), 221_184),
        (xlsr, flat(30, **{"prefix.table": "embedding"}), 1_474_560),
        (xlsr, flat(30, **{"prefix.table": "embedding", "prefix.reparam": True, "prefix.hidden": 800}), computed),
    ):
        adapted = attach(backbone, options, seed=0)
        assert sum(p.numel() for p in adapted.trainable().values()) == count
        adapted.detach()


def test_an_odd_length_does_not_split() -> None:
    with pytest.raises(ConfigError, match=r"prefix\.length is 5"):
        MethodConfig.from_flat({"method": "prefix", "prefix.length": 5, "prefix.split": True})


class _Counting(TorchFunctionMode):
    """Counts calls of torch's scaled dot product attention and notes how many keys they see."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: list[int] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.scaled_dot_product_attention:
            self.keys.append(args[1].shape[2])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("model", [m for m in MODELS if m.kind != "WavLM"], ids=str)
def test_sdpa_stays_in_use(model: TinyModel) -> None:
    backbone = model.build()
    assert backbone.config._attn_implementation == "sdpa"
    adapted = attach(backbone, flat(**{"layers.first": 1}), seed=0)
    with _Counting() as counting:
        adapted(model.inputs())
    tokens = adapted.layout.body + adapted.layout.special
    assert counting.keys == [tokens] + [tokens + 4] * (LAYERS - 1)


def _clips(model: TinyModel) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A short clip, its mask, and the batch where it is the second, padded with rubbish."""
    generator = torch.Generator().manual_seed(5)
    long, short = (torch.randn(1, n, generator=generator).double() for n in (SAMPLES, SAMPLES // 2))
    batch, mask = long.repeat(2, 1), torch.ones(2, SAMPLES, dtype=torch.long)
    batch[1, : short.shape[1]], mask[1, short.shape[1] :] = short[0], 0
    batch[1, short.shape[1] :] = 0
    batch[1, short.shape[1] + 20 :] = 9
    return short, torch.ones_like(short, dtype=torch.long), batch, mask


@pytest.mark.parametrize("model", [m for m in MODELS if m.masked], ids=str)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@every_way
def test_a_clip_does_not_depend_on_its_batch(model: TinyModel, attention: str, way: Mapping[str, Any]) -> None:
    backbone = model.build().double()
    backbone.set_attn_implementation("eager" if model.kind == "WavLM" else attention)
    adapted = attach(backbone, flat(**way), seed=0)
    short, whole, batch, mask = _clips(model)
    alone = adapted(short, attention_mask=whole).last_hidden_state
    out = adapted(batch, attention_mask=mask).last_hidden_state[1:, : alone.shape[1]]
    torch.testing.assert_close(out, alone, rtol=1e-10, atol=1e-12)
    agree(adapted, model.build().double(), short, attention_mask=whole)


def _plain_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, scaling: float, **options: Any
) -> tuple[Tensor, None]:
    """What flash attention computes, in its conventions: a padding mask (B, keys), its own name in the config."""
    assert module.config._attn_implementation == "tests_padding" and module.is_causal is False
    assert module.config.hidden_size == HIDDEN and not hasattr(module, "layer_idx")
    assert attention_mask is None or attention_mask.shape == (key.shape[0], key.shape[2])
    seen = None if attention_mask is None else attention_mask.bool()[:, None, None]
    out = functional.scaled_dot_product_attention(query, key, value, attn_mask=seen, scale=scaling)
    return out.transpose(1, 2).contiguous(), None


@pytest.fixture
def padding_attention() -> Iterator[str]:
    """An implementation with masks as flash attention has them, registered as any user may."""
    AttentionInterface.register("tests_padding", _plain_attention)
    AttentionMaskInterface.register("tests_padding", flash_attention_mask)
    yield "tests_padding"
    del AttentionInterface._global_mapping["tests_padding"], AttentionMaskInterface._global_mapping["tests_padding"]


@pytest.mark.parametrize("method", ["prefix", "prompt+prefix"])
def test_padding_masks_as_flash_attention_has_them(padding_attention: str, method: str) -> None:
    outputs = []
    short, _, batch, mask = _clips(STABLE)
    for name in ("sdpa", padding_attention):
        backbone = STABLE.build().double()
        backbone.config._attn_implementation = name
        adapted = attach(backbone, {"method": method, "prefix.length": 4}, seed=0)
        outputs.append((adapted(batch, attention_mask=mask).last_hidden_state, adapted(short).last_hidden_state))
        assert backbone.config._attn_implementation == name
    (one, alone), (two, single) = outputs
    torch.testing.assert_close(alone, single, rtol=1e-10, atol=1e-12)
    real = alone.shape[1]
    torch.testing.assert_close(one[0], two[0], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(one[1, :real], two[1, :real], rtol=1e-10, atol=1e-12)


@pytest.mark.slow  # compiles
@pytest.mark.parametrize("method", ["prefix", "prompt", "prompt+prefix"])
def test_flex_attention(method: str) -> None:
    """Block masks, with padding and without (forward only: torch has no backward of it on CPUs)."""
    outputs = []
    _, _, batch, mask = _clips(STABLE)
    for name in ("sdpa", "flex_attention"):
        backbone = STABLE.build()
        backbone.set_attn_implementation(name)
        options = {"prefix.length": 4} if "prefix" in method else {}
        adapted = attach(backbone, {"method": method, **options}, seed=0)
        with torch.no_grad():
            outputs.append([adapted(batch.float(), attention_mask=mask).last_hidden_state, adapted(batch.float())])
    (masked, free), (blocks, open_blocks) = outputs
    torch.testing.assert_close(free.last_hidden_state, open_blocks.last_hidden_state, rtol=1e-4, atol=1e-5)
    real = STABLE.shape.tokens(SAMPLES // 2) + masked.shape[1] - STABLE.shape.tokens(SAMPLES)
    torch.testing.assert_close(masked[0], blocks[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(masked[1, :real], blocks[1, :real], rtol=1e-4, atol=1e-5)


@every_model
@every_way
def test_checkpointed_layers_give_the_same_gradients(model: TinyModel, way: Mapping[str, Any]) -> None:
    adapted = trained(attach(model.build().double(), flat(**way), seed=0))
    x, tensors = model.inputs().double(), list(adapted.trainable().values())
    plain = [torch.autograd.grad(adapted(y).last_hidden_state.square().sum(), tensors) for y in (x, -x)]
    adapted.gradient_checkpointing()
    losses = [adapted(y).last_hidden_state.square().sum() for y in (x, -x)]  # two forwards, then two backwards
    for wanted, loss in zip(plain, losses, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(wanted, torch.autograd.grad(loss, tensors), strict=True))
    # And again after the tensors moved.
    trained(adapted)
    again = torch.autograd.grad(adapted(x).last_hidden_state.square().sum(), tensors)
    assert not any(torch.equal(a, b) for a, b in zip(plain[0], again, strict=True))


@every_model
@every_way
def test_detach_leaves_nothing(model: TinyModel, way: Mapping[str, Any], tmp_path: Path) -> None:
    backbone = model.build()
    before, out = bits(backbone), backbone(model.inputs()).last_hidden_state
    settings, implementation = backbone.config.to_dict(), backbone.config._attn_implementation
    attributes = {name: dict(vars(m)) for name, m in backbone.named_modules()}
    adapted = attach(backbone, flat(**way), seed=0)
    adapted(model.inputs())
    assert backbone.config.to_dict() == settings and backbone.config._attn_implementation == implementation
    twin = copy.deepcopy(adapted)
    changed = trained(twin)(model.inputs()).last_hidden_state
    assert not torch.equal(changed, adapted(model.inputs()).last_hidden_state)
    adapted.detach()
    for name, module in backbone.named_modules():
        now = vars(module)
        assert now.keys() == attributes[name].keys(), name
        assert now.get("config") is attributes[name].get("config")
    assert backbone.config.to_dict() == settings and backbone.config._attn_implementation == implementation
    assert all(torch.equal(before[name], tensor) for name, tensor in backbone.state_dict().items())
    assert torch.equal(backbone(model.inputs()).last_hidden_state, out)
    backbone.save_pretrained(tmp_path)
    assert torch.equal(type(backbone).from_pretrained(tmp_path).eval()(model.inputs()).last_hidden_state, out)
    assert torch.equal(twin(model.inputs()).last_hidden_state, changed)
    assert torch.equal(twin.detach()(model.inputs()).last_hidden_state, out)


def test_models_that_share_a_configuration_do_not_notice_each_other() -> None:
    one = tiny_backbone()
    other = ASTModel(one.config).eval()
    x, plain = inputs(), ASTModel.__call__(other, inputs()).last_hidden_state
    first = attach(one, flat(), seed=0)
    assert torch.equal(other(x).last_hidden_state, plain)
    second = attach(other, flat(), seed=1)
    wanted = second(x).last_hidden_state
    first.detach()
    assert torch.equal(second(x).last_hidden_state, wanted) and not torch.equal(wanted, plain)
    assert torch.equal(second.detach()(x).last_hidden_state, plain)


def test_the_implementation_may_change_while_attached() -> None:
    adapted = attach(tiny_backbone(), flat(), seed=0)
    before = adapted(inputs()).last_hidden_state
    adapted.backbone.set_attn_implementation("eager")
    with _Counting() as counting:
        torch.testing.assert_close(adapted(inputs()).last_hidden_state, before)
    assert not counting.keys


def test_dropout_acts_in_training_only() -> None:
    for way in WAYS:
        adapted = attach(tiny_backbone(), flat(**way, **{"prefix.dropout": 0.5}), seed=0).eval()
        x = inputs()
        assert torch.equal(adapted(x).last_hidden_state, adapted(x).last_hidden_state)
        one, two = adapted.train()(torch.cat([x[:1], x[:1]])).last_hidden_state
        assert not torch.equal(one, two)  # each clip drops its own
        adapted.gradient_checkpointing()
        adapted(x).last_hidden_state.sum().backward()


@pytest.mark.slow
@pytest.mark.parametrize(("method", "way"), [*(("prefix", way) for way in WAYS), ("prompt+prefix", {})], ids=str)
def test_compiles_into_one_graph(method: str, way: Mapping[str, Any]) -> None:
    torch._dynamo.reset()  # the methods compiled before this one count against its limit
    adapted = attach(tiny_backbone(), {**flat(**way), "method": method}, seed=0)
    compiled = torch.compile(adapted, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(inputs()).last_hidden_state, adapted(inputs()).last_hidden_state)


@every_model
def test_bfloat16_autocast_and_module(model: TinyModel) -> None:
    adapted = attach(model.build(), flat(), seed=0)
    with torch.autocast("cpu", torch.bfloat16):
        out = adapted(model.inputs()).last_hidden_state
    assert torch.isfinite(out).all()
    halved = attach(model.build().bfloat16(), flat(), seed=0)
    assert halved(model.inputs().bfloat16()).last_hidden_state.dtype == torch.bfloat16
