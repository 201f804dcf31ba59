"""Parameter-efficient transfer learning for audio transformers: methods, their attachment, saved adapters."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from petl.config import METHODS, MethodConfig
from petl.counts import trainable_parameters
from petl.errors import ConfigError, UserError
from petl.hub import EMBEDDED_DIR, read_config, read_front_end
from petl.outputs import Output, Prediction
from petl.presets import PRESETS, preset
from petl.shape import BackboneShape

if TYPE_CHECKING:
    from petl.adapted import Adapted, AlreadyAttached, attach
    from petl.backbone import load_backbone
    from petl.convert import convert_ast
    from petl.model import AudioModel
    from petl.saving import load_adapter, save_adapter

_LAZY: dict[str, str] = {
    "Adapted": "petl.adapted",
    "AlreadyAttached": "petl.adapted",
    "attach": "petl.adapted",
    "load_backbone": "petl.backbone",
    "convert_ast": "petl.convert",
    "AudioModel": "petl.model",
    "load_adapter": "petl.saving",
    "save_adapter": "petl.saving",
}
"""Public name -> module that defines it; loaded on first use so that `import petl` needs no torch."""

__all__ = [
    "EMBEDDED_DIR",
    "METHODS",
    "PRESETS",
    "Adapted",
    "AlreadyAttached",
    "AudioModel",
    "BackboneShape",
    "ConfigError",
    "MethodConfig",
    "Output",
    "Prediction",
    "UserError",
    "attach",
    "convert_ast",
    "load_adapter",
    "load_backbone",
    "preset",
    "read_config",
    "read_front_end",
    "save_adapter",
    "trainable_parameters",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'petl' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
