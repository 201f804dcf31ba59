"""The methods: one file each, and the registry that `petl.attach` builds from."""

from __future__ import annotations

from petl.methods import adapter, dense_moa, lora, soft_moa
from petl.methods.base import Addition, Builder, SiteMap

BUILDERS: dict[str, Builder] = {
    "linear": lambda config, sites, generator: [],  # nothing but norms and head
    "adapter": adapter.build,
    "lora": lora.build,
    "dense_moa": dense_moa.build,
    "soft_moa": soft_moa.build,
}
"""Base method -> function that makes its modules for a backbone."""

__all__ = ["BUILDERS", "Addition", "Builder", "SiteMap"]
