"""AdamW over the trained tensors: which decay, which learn at the head's rate, and its state by parameter name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

if TYPE_CHECKING:
    from trainables.config import TrialConfig


def build_optimizer(config: TrialConfig, trained: Mapping[str, nn.Parameter]) -> AdamW:
    """AdamW in groups by learning rate and weight decay; names under `head.` are the head's.

    With `optim.decay: matrices` tensors of two and more dimensions decay (prompts and prefixes are such), vectors
    (biases, LayerNorms) do not; with `all` everything does. Each group keeps its highest rate as `peak_lr`, which
    `set_learning_rates` scales.
    """
    options = config.optim
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in trained.items():
        decays = options.decay == "all" or parameter.ndim > 1
        groups.setdefault((name.startswith("head."), decays), []).append(parameter)
    head_lr = options.head_lr or options.lr
    return AdamW(
        [
            {
                "params": members,
                "lr": head_lr if of_head else options.lr,
                "peak_lr": head_lr if of_head else options.lr,
                "weight_decay": options.weight_decay if decays else 0.0,
            }
            for (of_head, decays), members in groups.items()
        ],
        betas=(options.beta1, options.beta2),
        eps=options.eps,
    )


def set_learning_rates(optimizer: Optimizer, factor: float) -> None:
    """Set every group to `factor` of its highest rate (see `trainables.schedule`)."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor


def optimizer_tensors(optimizer: Optimizer, trained: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """AdamW's state by parameter name, `<moment>/<name>`: the optimiser's own tensors, no copies."""
    return {
        f"{moment}/{name}": value
        for name, parameter in trained.items()
        for moment, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(optimizer: Optimizer, trained: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave, for parameters of the same names, as copies on their devices."""
    for key, value in tensors.items():
        moment, _, name = key.partition("/")
        parameter = trained[name]
        # The step counter stays on the CPU, as AdamW keeps it.
        placed = value if moment == "step" else value.to(parameter.device, parameter.dtype)
        optimizer.state[parameter][moment] = placed.clone()
