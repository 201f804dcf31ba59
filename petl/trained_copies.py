"""Tensors of the backbone that train: copies in the place of its own, which wait untouched until `take_out`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from petl import plan
from petl.config import MethodConfig
from petl.methods.base import SiteMap


class TrainedCopies:
    """Trained copies of single parameters of a backbone, by their dotted names."""

    def __init__(self, backbone: nn.Module, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._originals = {name: backbone.get_parameter(name) for name in self._names}
        # All copies are made before the first is put in: memory may run out on the way.
        copies = {name: nn.Parameter(original.detach().clone()) for name, original in self._originals.items()}
        for name, copy in copies.items():
            owner, leaf = _owner(backbone, name)
            owner._parameters[leaf] = copy
        self._kept: dict[str, nn.Parameter] = {}

    def parameters(self, backbone: nn.Module) -> dict[str, nn.Parameter]:
        """The copies; still there after `take_out`."""
        if self._kept:
            return dict(self._kept)
        return {name: backbone.get_parameter(name) for name in self._names}

    def originals(self) -> dict[str, nn.Parameter]:
        """The backbone's own tensors that the copies stand in for."""
        return dict(self._originals)

    def take_out(self, backbone: nn.Module) -> None:
        """Put the backbone's own tensors back, on the device and in the dtype the backbone has by now."""
        self._kept = self.parameters(backbone)
        for name, original in self._originals.items():
            owner, leaf = _owner(backbone, name)
            copy = owner._parameters[leaf]
            assert copy is not None
            if (copy.device, copy.dtype) != (original.device, original.dtype):
                with torch.no_grad():
                    original.data = original.data.to(copy.device, copy.dtype)
            owner._parameters[leaf] = original
        self._originals = {}


def trained_paths(method: MethodConfig, sites: SiteMap) -> list[str]:
    """Names of the backbone's parameters that the method trains, in the backbone's order."""
    wanted: set[str] = set()
    family, shape = sites.family, sites.shape
    for layer, site, tensor in plan.trained_norms(method, shape):
        norm = family.last_norm(shape) if site == "final" else sites.block(layer, site).norm
        sites.module(norm)
        wanted.add(f"{norm}.{tensor}")
    if "bitfit" in method.methods:
        for layer in sites.adapted(method):
            for target in family.projections:
                path = family.projection(layer, target)
                if sites.linear(path).bias is not None:
                    wanted.add(f"{path}.bias")
    for layer in plan.partial_layers(method, shape.layers):
        prefix = family.layer(layer)
        wanted |= {f"{prefix}.{name}" for name, _ in sites.module(prefix).named_parameters()}
    if "full" in method.methods:
        left_out = set(family.fixed)
        if method.frozen_eval or not shape.masks_time:  # nothing masks, so the vector would get no gradient
            left_out.add("masked_spec_embed")
        wanted |= {name for name, _ in sites.backbone.named_parameters() if name not in left_out}
        if not method.full.feature_encoder:
            wanted = {name for name in wanted if not name.startswith(f"{family.feature_encoder}.")}
    return [name for name, _ in sites.backbone.named_parameters() if name in wanted]


def _owner(backbone: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return backbone.get_submodule(path), leaf
