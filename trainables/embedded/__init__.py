"""The embedded default: the small synthetic audio task, and how the small backbone in `petl/embedded` was made.

Importing this package costs nothing: the names below are loaded when they are first used, and the task needs
no torch at all.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainables.embedded.task import prepare as prepare
    from trainables.embedded.task import task_directory as task_directory

_LAZY = {"prepare": "trainables.embedded.task", "task_directory": "trainables.embedded.task"}

__all__ = ["prepare", "task_directory"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
