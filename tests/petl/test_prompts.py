"""Prompt tuning: where the tokens go on every family, and that nothing else changes."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import ASTConfig, ASTModel, Wav2Vec2Config, Wav2Vec2Model

from petl import Adapted, attach
from tests.petl.encoders import Encoder, first_input
from tests.petl.models import AST_TINY, HIDDEN, LAYERS, MODELS, SAMPLES, TinyModel, bits, inputs, tiny_backbone, trained

ATTENTION = ("eager", "sdpa")
every_model = pytest.mark.parametrize("model", MODELS, ids=str)
frames_only = pytest.mark.parametrize("model", [m for m in MODELS if m.kind not in ("AST", "Whisper")], ids=str)
WAYS: list[dict[str, Any]] = [
    {"prompt.deep": True},
    {"prompt.deep": False},
    {"prompt.deep": True, "layers.first": 1, "layers.last": 1},
    {"prompt.deep": False, "layers.first": 2},
    {"prompt.insertion": "overwrite"},
    {"prompt.insertion": "overwrite", "prompt.deep": False, "layers.first": 1},
]
every_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(f"{k}={v}" for k, v in way.items()))


def flat(length: int = 3, **options: Any) -> dict[str, Any]:
    return {"method": "prompt", "prompt.length": length, "norms": "none", **options}


def own(adapted: Adapted) -> dict[int, Tensor]:
    """Layer -> its prompts (n, D)."""
    return {int(name.split(".")[-3]): p for name, p in adapted.trainable().items()}


def expected(
    adapted: Adapted, plain: Any, *args: Any, layers: list[int] | None = None, hidden: int = 0, **kwargs: Any
) -> Tensor:
    """The output computed by hand, B clips of (N, D): with the adapted model's prompts, without `hidden` tokens."""
    options, prompts = adapted.method.prompt, own(adapted)
    hand = Encoder(plain)
    special, n = hand.family.special, options.length
    keep = special - 1 if options.insertion == "replace_dist" else special
    x_BND = first_input(plain, *args, **kwargs)
    x_BND = x_BND[:, : x_BND.shape[1] - hidden]
    body = x_BND.shape[1] - special
    start = adapted.method.layers.first

    def edit(layer: int, x_ND: Tensor) -> Tensor:
        if options.insertion == "overwrite":
            if layer not in prompts:
                return x_ND
            return torch.cat([x_ND[:special], prompts[layer], x_ND[special + n :]])
        front, rest = x_ND[:keep], x_ND[x_ND.shape[0] - body :]
        if layer < start:
            return x_ND
        if x_ND.shape[0] == special + body and (layer == start or special == 0):
            latest = max(i for i in prompts if i <= layer)
            return torch.cat([front, prompts[latest], rest])
        return torch.cat([front, prompts[layer], rest]) if layer in prompts else x_ND

    return torch.stack([hand(x_ND, edit, body=body, layers=layers) for x_ND in x_BND])


def agree(adapted: Adapted, plain: Any, *args: Any, **kwargs: Any) -> None:
    """Outputs and gradients of the adapted model are those computed by hand."""
    found, wanted = adapted(*args, **kwargs).last_hidden_state, expected(adapted, plain, *args, **kwargs)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(7), dtype=found.dtype)
    tensors = list(adapted.trainable().values())
    one = torch.autograd.grad((found * weights).sum(), tensors)
    two = torch.autograd.grad((wanted * weights).sum(), tensors)
    for name, a, b in zip(adapted.trainable(), one, two, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10, msg=name)
        assert a.any(), name


@every_model
@every_way
def test_maths(model: TinyModel, way: Mapping[str, Any]) -> None:
    adapted = attach(model.build().double(), flat(**way), seed=0)
    agree(adapted, model.build().double(), model.inputs().double())
    prompts = 0 if way.get("prompt.insertion") == "overwrite" else 3
    assert (adapted.layout.special, adapted.layout.prompts) == (2 if model.kind == "AST" else 0, prompts)


@pytest.mark.parametrize("deep", [True, False])
@pytest.mark.parametrize("length", [1, 2, 3])
@pytest.mark.parametrize("first", [0, 1])
def test_prompts_in_the_place_of_the_distillation_token(deep: bool, length: int, first: int) -> None:
    options = {"prompt.insertion": "replace_dist", "prompt.deep": deep, "layers.first": first}
    adapted = attach(tiny_backbone().double(), flat(length, **options), seed=0)
    agree(adapted, tiny_backbone().double(), inputs().double())
    layout = adapted.layout
    assert (layout.special, layout.prompts, layout.body) == (1, length, AST_TINY.shape.tokens() - 2)
    assert layout.lead(adapted(inputs().double()).last_hidden_state) == 1 + length


def test_names_shapes_and_initial_values() -> None:
    deep = attach(tiny_backbone(), flat(5, **{"layers.first": 1}), seed=0).trainable()
    assert list(deep) == ["layers.1.prompt.tokens", "layers.2.prompt.tokens"]
    shallow = attach(MODELS[2].build(), flat(5, **{"prompt.deep": False}), seed=0).trainable()
    assert list(shallow) == ["encoder.layers.0.prompt.tokens"]
    big = attach(MODELS[2].build(), flat(2000, **{"prompt.deep": False}), seed=0).trainable()
    tokens = big["encoder.layers.0.prompt.tokens"].detach()
    v = (6 / (3 * 16**2 + HIDDEN)) ** 0.5
    assert tokens.shape == (2000, HIDDEN) and 0.999 * v < tokens.abs().max() <= v
    assert abs(float(tokens.mean())) < 0.01 * v and abs(float(tokens.std()) - v / 3**0.5) < 0.01 * v
    patched = attach(tiny_backbone(patch_size=8, frequency_stride=8, time_stride=8), flat(400), seed=0).trainable()
    assert float(patched["layers.0.prompt.tokens"].detach().abs().max()) > (6 / (3 * 16**2 + HIDDEN)) ** 0.5


def test_published_sizes() -> None:
    """PETL_AST: 300 shallow or 25 deep prompts; AAT: 12 in each of 12 layers."""
    with torch.device("meta"):
        ast = ASTModel(ASTConfig())
        xlsr = Wav2Vec2Model(
            Wav2Vec2Config(
                hidden_size=1024,
                num_hidden_layers=24,
                num_attention_heads=16,
                intermediate_size=4096,
                do_stable_layer_norm=True,
                feat_extract_norm="layer",
            )
        )
    for backbone, options, count in (
        (ast, flat(300, **{"prompt.deep": False}), 230_400),
        (ast, flat(25), 230_400),
        (ast, flat(12, **{"prompt.insertion": "overwrite"}), 110_592),
        (xlsr, flat(25), 25 * 24 * 1024),
    ):
        adapted = attach(backbone, options, seed=0)
        assert sum(p.numel() for p in adapted.trainable().values()) == count
        adapted.detach()


def two_clips(model: TinyModel) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return tuple(torch.randn(1, n, generator=generator).double() for n in (SAMPLES, SAMPLES // 2))  # type: ignore[return-value]


@pytest.mark.parametrize("model", [m for m in MODELS if m.masked], ids=str)
@pytest.mark.parametrize("attention", ATTENTION)
@every_way
def test_a_clip_does_not_depend_on_its_batch(model: TinyModel, attention: str, way: Mapping[str, Any]) -> None:
    backbone = model.build().double()
    backbone.set_attn_implementation(attention if model.kind != "WavLM" else "eager")
    adapted = attach(backbone, flat(**way), seed=0)
    long, short = two_clips(model)
    alone = adapted(short, attention_mask=torch.ones_like(short, dtype=torch.long)).last_hidden_state
    for filler in (0.0, 9.0):
        batch, mask = torch.full((2, SAMPLES), 0.0).double(), torch.zeros(2, SAMPLES, dtype=torch.long)
        batch[0], mask[0] = long[0], 1
        batch[1, : short.shape[1]], mask[1, : short.shape[1]] = short[0], 1
        batch[1, short.shape[1] + 20 :] = filler
        out = adapted(batch, attention_mask=mask).last_hidden_state
        torch.testing.assert_close(out[1:, : alone.shape[1]], alone, rtol=1e-10, atol=1e-12)
        layout = adapted.layout
        assert layout.mask_BT is not None and layout.mask(out) is not None
        assert int(layout.mask(out)[1].sum()) == alone.shape[1]  # type: ignore[index]
    if way.get("prompt.insertion") != "overwrite":  # and a real clip's output is the one without any mask
        agree(adapted, model.build().double(), short, attention_mask=torch.ones_like(short, dtype=torch.long))


def test_overwriting_reaches_as_far_as_there_is_a_body() -> None:
    model = MODELS[2]
    adapted = attach(model.build().double(), flat(200, **{"prompt.insertion": "overwrite"}), seed=0)
    x = model.inputs().double()
    assert adapted(x).last_hidden_state.shape[1] == model.shape.tokens(SAMPLES)
    assert torch.equal(adapted(x).last_hidden_state, adapted(-x).last_hidden_state)  # nothing of the clip is left


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("insertion", ["insert", "replace_dist"])
def test_masks_of_an_ast(attention: str, insertion: str) -> None:
    """Patches that the caller masks stay hidden; the prompts are seen all the same."""
    backbone = tiny_backbone().double()
    backbone.set_attn_implementation(attention)
    adapted = attach(backbone, flat(**{"prompt.insertion": insertion}), seed=0)
    tokens = AST_TINY.shape.tokens()
    mask = torch.ones(2, tokens, dtype=torch.long)
    mask[1, -3:] = 0
    x = inputs().double()
    plain = tiny_backbone().double()
    found = adapted(x, attention_mask=mask).last_hidden_state
    whole, cut = expected(adapted, plain, x), expected(adapted, plain, x, hidden=3)
    torch.testing.assert_close(found[0], whole[0], rtol=1e-5, atol=1e-5)  # eager: a softmax in float32
    torch.testing.assert_close(found[1, :-3], cut[1], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(found[1, :-3], whole[1, :-3], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("model", [m for m in MODELS if m.kind != "WavLM"], ids=str)
def test_eager_and_sdpa_agree(model: TinyModel) -> None:
    outputs = []
    for attention in ATTENTION:
        backbone = model.build().double()
        backbone.set_attn_implementation(attention)
        outputs.append(attach(backbone, flat(), seed=0)(model.inputs().double()).last_hidden_state)
    torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-5)  # an AST's eager softmax is in float32


class _Recorder:
    def __init__(self) -> None:
        self.ran: list[int] = []

    def watch(self, layers: nn.ModuleList) -> None:
        for index, layer in enumerate(layers):
            layer.register_forward_hook(lambda host, args, output, i=index: self.ran.append(i))


@frames_only
@pytest.mark.parametrize("way", WAYS[:4], ids=lambda way: "-".join(f"{k}={v}" for k, v in way.items()))
def test_layers_that_are_dropped(model: TinyModel, way: Mapping[str, Any]) -> None:
    """Whatever LayerDrop skips, the prompts come in at the next layer that runs, or at the very end."""
    names = ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "mask_time_prob")
    still = TinyModel(model.name, model.kind, {**model.options, **dict.fromkeys(names, 0.0), "layerdrop": 0.6})
    adapted = attach(still.build().double(), flat(**way, backbone_mode="train"), seed=0).train()
    plain, x, recorder = still.build().double(), still.inputs(1).double(), _Recorder()
    recorder.watch(adapted.backbone.encoder.layers)
    patterns = set()
    for seed in range(24):
        torch.manual_seed(seed)
        recorder.ran.clear()
        found = adapted(x).last_hidden_state
        patterns.add(tuple(recorder.ran))
        wanted = expected(adapted, plain, x, layers=recorder.ran)
        if not [i for i in recorder.ran if i >= adapted.method.layers.first]:
            torch.testing.assert_close(found[:, 3:], wanted, rtol=1e-9, atol=1e-11)
        else:
            torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11)
        assert adapted.layout.lead(found) == adapted.layout.prompts == 3
    assert len(patterns) > 2


@every_model
@every_way
def test_checkpointed_layers_give_the_same_gradients(model: TinyModel, way: Mapping[str, Any]) -> None:
    adapted = trained(attach(model.build().double(), flat(**way), seed=0))
    x, tensors = model.inputs().double(), list(adapted.trainable().values())
    plain = torch.autograd.grad(adapted(x).last_hidden_state.square().sum(), tensors)
    adapted.gradient_checkpointing()
    one, other = adapted(x).last_hidden_state.square().sum(), adapted(-x).last_hidden_state.square().sum()
    assert all(torch.equal(a, b) for a, b in zip(plain, torch.autograd.grad(one, tensors), strict=True))
    second = torch.autograd.grad(other, tensors)
    adapted.gradient_checkpointing(False)
    wanted = torch.autograd.grad(adapted(-x).last_hidden_state.square().sum(), tensors)
    assert all(torch.equal(a, b) for a, b in zip(wanted, second, strict=True))


@every_model
@every_way
def test_detach_leaves_nothing(model: TinyModel, way: Mapping[str, Any]) -> None:
    backbone = model.build()
    before, out = bits(backbone), backbone(model.inputs()).last_hidden_state
    settings = backbone.config.to_dict()
    adapted = attach(backbone, flat(**way), seed=0)
    adapted(model.inputs())
    twin = copy.deepcopy(adapted)
    changed = trained(twin)(model.inputs()).last_hidden_state
    adapted.detach()
    assert backbone.config.to_dict() == settings
    assert all(torch.equal(before[name], tensor) for name, tensor in backbone.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in backbone.modules())
    assert torch.equal(backbone(model.inputs()).last_hidden_state, out)
    assert torch.equal(twin(model.inputs()).last_hidden_state, changed)
    assert torch.equal(twin.detach()(model.inputs()).last_hidden_state, out)


def test_dropout_acts_in_training_only() -> None:
    adapted = attach(tiny_backbone(), flat(**{"prompt.dropout": 0.5}), seed=0).eval()
    x = inputs()
    assert torch.equal(adapted(x).last_hidden_state, adapted(x).last_hidden_state)
    torch.manual_seed(0)
    one, two = adapted.train()(torch.cat([x[:1], x[:1]])).last_hidden_state
    assert not torch.equal(one, two)  # each clip drops its own


@every_model
def test_methods_on_the_same_layer_see_the_prompts(model: TinyModel) -> None:
    """In whatever order methods are named."""
    options = {"prompt.length": 2, "adapter.width": 4, "adapter.location": "layer", "adapter.init": "published"}
    one = attach(model.build(), {"method": "prompt+adapter", **options}, seed=0)
    two = attach(model.build(), {"method": "adapter+prompt", **options}, seed=0)
    two.load_adapter_state(one.adapter_state())
    x = model.inputs()
    assert torch.equal(one(x).last_hidden_state, two(x).last_hidden_state)
    assert one.layout.body == two.layout.body and one.layout.prompts == 2


@pytest.mark.slow
@every_way
def test_compiles_into_one_graph(way: Mapping[str, Any]) -> None:
    torch._dynamo.reset()  # the methods compiled before this one count against its limit
    adapted = attach(tiny_backbone(), flat(**way), seed=0)
    compiled = torch.compile(adapted, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(inputs()).last_hidden_state, adapted(inputs()).last_hidden_state)


@every_model
def test_bfloat16_autocast_and_module(model: TinyModel) -> None:
    adapted = attach(model.build(), flat(), seed=0)
    with torch.autocast("cpu", torch.bfloat16):
        out = adapted(model.inputs()).last_hidden_state
    assert torch.isfinite(out).all()
    halved = attach(model.build().bfloat16(), flat(), seed=0)
    assert all(p.dtype == torch.bfloat16 for p in halved.trainable().values())
    assert halved(model.inputs().bfloat16()).last_hidden_state.dtype == torch.bfloat16


def test_recorded_hidden_states_hold_the_prompts() -> None:
    adapted = attach(tiny_backbone(), flat(**{"layers.first": 1}), seed=0)
    states = adapted(inputs(), output_hidden_states=True).hidden_states
    tokens = AST_TINY.shape.tokens()
    assert [s.shape[1] for s in states] == [tokens] * 2 + [tokens + 3] * (LAYERS - 1)


@pytest.mark.parametrize("model", [m for m in MODELS if m.kind not in ("AST", "Whisper", "Hubert")], ids=str)
def test_extracted_features_are_left_alone(model: TinyModel) -> None:
    x = model.inputs()
    assert torch.equal(attach(model.build(), flat(), seed=0)(x).extract_features, model.build()(x).extract_features)
