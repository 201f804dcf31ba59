"""Checking a dictionary of tensors against what a model expects, with a message that says what differs."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from petl.errors import UserError

_FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def checked_names(found: Mapping[str, tuple[int, ...]], shapes: Mapping[str, tuple[int, ...]], what: str) -> None:
    """Raise `UserError` when tensors of the shapes `found` are not exactly those of `shapes`."""
    missing = [name for name in shapes if name not in found]
    if missing:
        raise UserError(f"{what} lacks {_listed(missing)}; it is incomplete or belongs to another configuration")
    unknown = [name for name in found if name not in shapes]
    if unknown:
        raise UserError(f"{what} holds {_listed(unknown)}, which the configuration has no place for")
    for name, shape in shapes.items():
        if found[name] != shape:
            raise UserError(f"{what}: '{name}' has shape {found[name]}, but the configuration needs {shape}")


def checked_state(
    state: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], what: str
) -> Mapping[str, Tensor]:
    """Return `state` when it has exactly the tensors of `shapes`, all finite; `UserError` otherwise."""
    checked_names({name: tuple(tensor.shape) for name, tensor in state.items()}, shapes, what)
    for name in shapes:
        if state[name].dtype not in _FLOATS:
            raise UserError(f"{what}: '{name}' holds {state[name].dtype}, not floating-point numbers")
        if not bool(torch.isfinite(state[name]).all()):
            raise UserError(f"{what}: '{name}' holds values that are not finite")
    return state


def copy_state(state: Mapping[str, Tensor], own: Mapping[str, Tensor], what: str) -> None:
    """Copy a checked state into one's own tensors; nothing is written when it does not fit."""
    checked = checked_state(state, {name: tuple(tensor.shape) for name, tensor in own.items()}, what)
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(checked[name])


def _listed(names: list[str]) -> str:
    shown = ", ".join(f"'{name[:200]}'" for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more tensors"
