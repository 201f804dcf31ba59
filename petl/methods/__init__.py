"""The methods: one file each, and the registry that `petl.attach` builds from."""

from __future__ import annotations

import torch

from petl.config import MethodConfig
from petl.methods import adapter, dense_moa, feature_adapter, lora, prefix, prompt, soft_moa
from petl.methods.base import Attachment, Builder, SiteMap


def _nothing(config: MethodConfig, sites: SiteMap, generator: torch.Generator) -> list[Attachment]:
    """Methods that add no module: they train copies of the backbone's own tensors (`petl.trained_copies`)."""
    return []


BUILDERS: dict[str, Builder] = {
    "linear": _nothing,
    "full": _nothing,
    "partial": _nothing,
    "bitfit": _nothing,
    "adapter": adapter.build,
    "lora": lora.build,
    "prompt": prompt.build,
    "prefix": prefix.build,
    "dense_moa": dense_moa.build,
    "soft_moa": soft_moa.build,
    "feature_adapter": feature_adapter.build,
}
"""Base method -> function that makes its modules for a backbone."""

__all__ = ["BUILDERS", "Attachment", "Builder", "SiteMap"]
