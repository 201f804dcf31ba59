"""AdamW's groups, rates and state."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from trainables.config import TrialConfig
from trainables.optimizer import build_optimizer, optimizer_tensors, restore_optimizer, set_learning_rates


def _trained(seed: int = 0) -> dict[str, nn.Parameter]:
    draw = torch.Generator().manual_seed(seed)
    shapes = {
        "layer.0.up.weight": (3, 2),
        "layer.0.up.bias": (3,),
        "prompts": (1, 4, 2),
        "head.weight": (2, 3),
        "head.bias": (2,),
    }
    return {name: nn.Parameter(torch.randn(shape, generator=draw)) for name, shape in shapes.items()}


def _config(**flat: Any) -> TrialConfig:
    return TrialConfig.from_flat({key.replace("__", "."): value for key, value in flat.items()})


def _by_name(optimizer: torch.optim.Optimizer, trained: dict[str, nn.Parameter], what: str) -> dict[str, float]:
    names = {id(parameter): name for name, parameter in trained.items()}
    return {names[id(p)]: group[what] for group in optimizer.param_groups for p in group["params"]}


def test_matrices_decay_and_vectors_do_not() -> None:
    trained = _trained()
    optimizer = build_optimizer(_config(optim__weight_decay=0.3), trained)
    assert _by_name(optimizer, trained, "weight_decay") == {
        "layer.0.up.weight": 0.3,
        "layer.0.up.bias": 0.0,
        "prompts": 0.3,
        "head.weight": 0.3,
        "head.bias": 0.0,
    }
    everything = build_optimizer(_config(optim__weight_decay=0.3, optim__decay="all"), trained)
    assert set(_by_name(everything, trained, "weight_decay").values()) == {0.3}
    assert set(_by_name(everything, trained, "lr")) == set(trained)


def test_the_head_has_a_rate_of_its_own_and_both_follow_the_schedule() -> None:
    trained = _trained()
    optimizer = build_optimizer(_config(optim__lr=1e-3, optim__head_lr=1e-2), trained)
    rates = {name: 1e-2 if name.startswith("head.") else 1e-3 for name in trained}
    assert _by_name(optimizer, trained, "lr") == rates
    for factor in (0.5, 0.0, 0.25):
        set_learning_rates(optimizer, factor)
        assert _by_name(optimizer, trained, "lr") == {name: rate * factor for name, rate in rates.items()}
    alone = build_optimizer(_config(optim__lr=1e-3), trained)
    assert set(_by_name(alone, trained, "lr").values()) == {1e-3}


def test_one_step_by_hand() -> None:
    """AdamW's first step: the weight shrinks by lr · decay, then moves by lr · g / (|g| + eps)."""
    parameter = nn.Parameter(torch.tensor([[2.0]]))
    config = _config(optim__lr=0.1, optim__weight_decay=0.5, optim__beta1=0.8, optim__beta2=0.9, optim__eps=0.5)
    optimizer = build_optimizer(config, {"w": parameter})
    parameter.grad = torch.tensor([[1.5]])
    optimizer.step()
    assert parameter.item() == pytest.approx(2.0 * (1 - 0.05) - 0.1 * 1.5 / (1.5 + 0.5))
    # The second one, with momentum: m = .8 · .3 + .2 · 1, v = .9 · .225 + .1 · 1, each over 1 - beta².
    before = parameter.item()
    parameter.grad = torch.tensor([[1.0]])
    optimizer.step()
    moment, square = (0.8 * 0.3 + 0.2) / (1 - 0.64), (0.9 * 0.225 + 0.1) / (1 - 0.81)
    assert parameter.item() == pytest.approx(before * 0.95 - 0.1 * moment / (square**0.5 + 0.5), rel=1e-6)


def test_defaults_are_those_of_the_paper() -> None:
    group = build_optimizer(TrialConfig(), _trained()).param_groups[0]
    assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.9, 0.98), 1e-6, 0.1)


def _train(trained: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        draw = torch.Generator().manual_seed(step)
        for parameter in trained.values():
            parameter.grad = torch.randn(parameter.shape, generator=draw)
        optimizer.step()


def test_it_goes_on_from_its_tensors() -> None:
    config = _config(optim__head_lr=1e-2)
    trained = _trained()
    optimizer = build_optimizer(config, trained)
    _train(trained, optimizer, range(3))
    kept = {name: tensor.clone() for name, tensor in optimizer_tensors(optimizer, trained).items()}
    assert set(kept) == {f"{moment}/{name}" for name in trained for moment in ("exp_avg", "exp_avg_sq", "step")}
    weights = {name: parameter.detach().clone() for name, parameter in trained.items()}
    _train(trained, optimizer, range(3, 6))

    again = {name: nn.Parameter(weight) for name, weight in reversed(weights.items())}  # in whatever order
    resumed = build_optimizer(config, again)
    restore_optimizer(resumed, again, kept)
    _train(dict(sorted(again.items(), key=lambda item: list(trained).index(item[0]))), resumed, range(3, 6))
    for name, parameter in trained.items():
        assert torch.equal(parameter, again[name]), name
    assert int(kept["step/prompts"]) == 3, "what was restored from is not written to"


def test_before_the_first_step_there_is_nothing_to_keep() -> None:
    trained = _trained()
    optimizer = build_optimizer(TrialConfig(), trained)
    assert optimizer_tensors(optimizer, trained) == {}
    restore_optimizer(optimizer, trained, {})
    _train(trained, optimizer, range(1))
    assert optimizer_tensors(optimizer, trained)
