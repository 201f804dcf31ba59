"""What `attach` refuses, and that a refusal leaves the backbone as it was."""

from __future__ import annotations

import copy
import gc
from typing import Any

import pytest
import torch
from torch import nn

import petl
from petl import AlreadyAttached, ConfigError, UserError, attach
from petl.families import UnknownBackbone
from tests.petl.models import AST_TINY, LAYERS, MODELS, inputs, tiny_backbone, tiny_tagger, trained


def _untouched(backbone: nn.Module) -> bool:
    hooks = any(m._forward_hooks for m in backbone.modules())
    frozen = any(not p.requires_grad for p in backbone.parameters())
    return not hooks and not frozen


def test_a_second_method_needs_the_first_off() -> None:
    backbone = tiny_backbone()
    adapted = attach(backbone, {"method": "lora", "lora.rank": 2})
    with pytest.raises(AlreadyAttached, match="detach"):
        attach(backbone, {"method": "linear"})
    adapted.detach()
    attach(backbone, {"method": "linear"}).detach()
    assert _untouched(backbone)


def test_detached_models_say_so() -> None:
    adapted = attach(tiny_backbone(), {"method": "linear"})
    adapted.detach()
    with pytest.raises(RuntimeError, match="detached"):
        adapted(inputs())
    with pytest.raises(RuntimeError, match="detached already"):
        adapted.detach()
    adapted.eval()  # harmless


@pytest.mark.parametrize("key", ["layers.first", "layers.last"])
def test_layers_outside_the_backbone(key: str) -> None:
    backbone = tiny_backbone()
    with pytest.raises(ConfigError, match=f"{key} is {LAYERS}, but the backbone has 3 layers") as caught:
        attach(backbone, {"method": "lora", key: LAYERS})
    assert caught.value.key == key
    assert _untouched(backbone)


@pytest.mark.parametrize(
    ("flat", "key"),
    [
        ({"method": "adapter", "adapter.reduction": 100.0}, "adapter.reduction"),
        ({"method": "lora", "lora.reduction": 100.0}, "lora.reduction"),
        ({"method": "soft_moa"}, "moa.reduction"),  # 128, the default, on a hidden size of 32
    ],
)
def test_widths_that_round_to_nothing(flat: dict[str, Any], key: str) -> None:
    backbone = tiny_backbone()
    with pytest.raises(ConfigError, match="width of 0") as caught:
        attach(backbone, flat)
    assert caught.value.key == key
    assert _untouched(backbone)


def test_wrong_options_are_named() -> None:
    with pytest.raises(ConfigError, match="did you mean 'soft_moa'"):
        attach(tiny_backbone(), {"method": "softmoa"})
    with pytest.raises(ConfigError, match=r"moa\.experts"):
        attach(tiny_backbone(), {"method": "soft_moa", "moa.experts": "seven"})


def test_what_is_no_model_and_no_method() -> None:
    with pytest.raises(UserError, match=r"petl\.load_backbone\('someone/ast'\)"):
        attach("someone/ast", {"method": "lora"})  # type: ignore[arg-type]
    for wrong in ("lora", None):
        with pytest.raises(ConfigError, match="mapping such as"):
            attach(tiny_backbone(), wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="on both sides"):
        attach(tiny_backbone(), {"method": "lora+"})


def test_models_without_a_table_of_sites() -> None:
    with pytest.raises(UnknownBackbone, match="Linear"):
        attach(nn.Linear(2, 2), {"method": "linear"})
    with pytest.raises(UnknownBackbone, match=r"ASTForAudioClassification.*no module 'layers'.*ASTModel"):
        attach(tiny_tagger(), {"method": "linear"})


def test_a_backbone_that_lacks_a_module() -> None:
    backbone = tiny_backbone()
    del backbone.layers[1].layernorm_after
    with pytest.raises(UnknownBackbone, match=r"layers\.1\.layernorm_after"):
        attach(backbone, {"method": "adapter", "adapter.width": 2})
    assert _untouched(backbone)


def test_states_are_checked() -> None:
    adapted = attach(tiny_backbone(), {"method": "lora", "lora.rank": 2})
    good = adapted.adapter_state()
    name = "layers.0.attention.q_proj.lora_A.weight"
    for state, said in (
        ({k: v for k, v in good.items() if k != name}, f"lacks '{name}'"),
        ({**good, "extra": torch.zeros(1)}, "'extra', which the configuration has no place for"),
        ({**good, name: torch.zeros(3, 32)}, r"shape \(3, 32\), but the configuration needs \(2, 32\)"),
        ({**good, name: torch.full((2, 32), torch.nan)}, "not finite"),
        ({**good, name: torch.zeros(2, 32, dtype=torch.int64)}, "int64"),
    ):
        with pytest.raises(UserError, match=said):
            adapted.load_adapter_state(state)
    assert all(torch.equal(good[k], v) for k, v in adapted.adapter_state().items())


def test_state_is_a_copy() -> None:
    """The best epoch's weights must not follow the live ones."""
    adapted = attach(tiny_backbone(), {"method": "lora", "lora.rank": 2}, seed=0)
    best = adapted.adapter_state()
    kept = {name: tensor.clone() for name, tensor in best.items()}
    trained(adapted)
    assert all(torch.equal(kept[name], best[name]) for name in best)


def test_without_a_seed_the_global_generator_decides() -> None:
    def drawn() -> torch.Tensor:
        backbone = tiny_backbone()
        torch.manual_seed(7)
        return attach(backbone, {"method": "lora"}).adapter_state()["layers.0.attention.q_proj.lora_A.weight"]

    assert torch.equal(drawn(), drawn())


def test_parameters_are_named_after_the_backbone() -> None:
    flat = {"method": "adapter+lora+soft_moa", "adapter.width": 2, "lora.rank": 2, "moa.reduction": 16.0}
    names = set(attach(tiny_backbone(), flat).trainable())
    for name in (
        "layers.2.attention.q_proj.lora_B.weight",
        "layers.0.mlp.adapter.down.bias",
        "layers.1.attention.soft_moa.phi",
        "layers.1.attention.soft_moa.experts.up.bias",
        "layers.0.layernorm_before.weight",
        "layernorm.bias",
    ):
        assert name in names


def test_nothing_is_kept_after_detach() -> None:
    """A worker goes through hundreds of trials on one backbone."""
    backbone = tiny_backbone()

    def tensors() -> int:
        gc.collect()
        return sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())

    def trial() -> None:
        flat = {"method": "soft_moa", "moa.reduction": 8.0, "moa.legacy_double_add": True}
        adapted = attach(backbone, flat, seed=0)
        adapted(inputs()).last_hidden_state.sum().backward()
        adapted.detach()

    trial()
    before = tensors()
    for _ in range(3):
        trial()
    assert tensors() == before


@pytest.mark.parametrize("method", ["full", "partial", "bitfit", "lora"])
def test_running_out_of_memory_leaves_the_backbone_alone(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker goes on to the next trial on the same backbone."""
    backbone = tiny_backbone()
    parameters = dict(backbone.named_parameters())
    real, calls = torch.Tensor.clone, 0

    def clone(self: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise torch.OutOfMemoryError("out of memory")
        return real(self, **kwargs)

    with monkeypatch.context() as patch:
        if method == "lora":
            patch.setattr(nn.Module, "register_forward_hook", _out_of_memory)
        else:
            patch.setattr(torch.Tensor, "clone", clone)
        with pytest.raises(torch.OutOfMemoryError):
            attach(backbone, {"method": method})
    assert all(p is parameters[name] for name, p in backbone.named_parameters())
    assert _untouched(backbone) and not any(m._forward_pre_hooks for m in backbone.modules())
    attach(backbone, {"method": "linear"}).detach()


def _out_of_memory(*args: Any, **kwargs: Any) -> None:
    raise torch.OutOfMemoryError("out of memory")


@pytest.mark.parametrize(
    "flat",
    [
        {"method": "adapter", "adapter.width": 2, "adapter.placement": "sequential", "adapter.order": "before"},
        {"method": "soft_moa", "moa.reduction": 8.0, "moa.legacy_double_add": True},
    ],
    ids=lambda flat: flat["method"],
)
def test_a_pass_that_stops_in_the_middle_leaves_nothing(flat: dict[str, Any]) -> None:
    adapted = attach(tiny_backbone(), flat, seed=0)
    broken = adapted.backbone.layers[1].mlp.fc2.register_forward_hook(_out_of_memory)
    with pytest.raises(torch.OutOfMemoryError):
        adapted(inputs())
    broken.remove()
    twin = copy.deepcopy(adapted)
    assert torch.equal(twin(inputs()).last_hidden_state, adapted(inputs()).last_hidden_state)
    adapted.gradient_checkpointing()
    adapted(inputs()).last_hidden_state.sum().backward()
    copy.deepcopy(adapted)


def test_a_layer_keeps_a_wrapper_of_its_own() -> None:
    """As tools that place layers on devices put one there."""
    backbone = tiny_backbone()
    layer, calls = backbone.layers[0], []
    original = layer.forward

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return original(*args, **kwargs)

    layer.forward = wrapper
    adapted = attach(backbone, {"method": "lora", "lora.rank": 2}, seed=0)
    adapted.gradient_checkpointing()
    adapted(inputs()).last_hidden_state.sum().backward()
    assert len(calls) == 2  # forward, and again in the backward pass
    adapted.detach()
    assert layer.forward is wrapper


@pytest.mark.parametrize("flat", [{"backbone_mode": "train"}, {}], ids=str)
def test_no_gradient_goes_down_a_frozen_feature_encoder(flat: dict[str, Any]) -> None:
    model = next(m for m in MODELS if m.name == "wav2vec2")
    backbone = model.build()
    adapted = attach(backbone, {"method": "adapter", "adapter.width": 2, **flat}, seed=0).train()
    seen = []
    backbone.feature_extractor.register_forward_hook(lambda host, args, output: seen.append(output.requires_grad))
    adapted(model.inputs())
    adapted.detach()
    assert seen == [False] and backbone.feature_extractor._requires_grad is True


def test_masked_patches_are_no_ones_business() -> None:
    """An AST takes a mask over all its tokens; blocks that mix tokens keep to it."""
    x_BTM, other = inputs(), inputs()
    other[:, -20:] += 1
    tokens = AST_TINY.shape.tokens()
    rows, columns = AST_TINY.shape.grid()
    real = torch.ones(rows, columns, dtype=torch.long)
    real[:, columns // 2 :] = 0
    mask_BN = torch.cat([torch.ones(2, dtype=torch.long), real.flatten()]).expand(2, tokens)
    for flat in ({"method": "soft_moa", "moa.reduction": 8.0}, {"method": "adapter", "adapter.block": "conv"}):
        adapted = trained(attach(tiny_backbone(), flat, seed=0)).eval()
        outputs = [adapted(x, attention_mask=mask_BN).last_hidden_state for x in (x_BTM, other)]
        kept = mask_BN.bool()
        torch.testing.assert_close(outputs[0][kept], outputs[1][kept])
        assert not torch.equal(outputs[0][~kept], outputs[1][~kept])


def test_public_names() -> None:
    for name in petl.__all__:
        assert getattr(petl, name) is not None
    with pytest.raises(AttributeError, match="nothing_here"):
        _ = petl.nothing_here
