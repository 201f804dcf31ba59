"""The tasks by name. A new one is a module here with a class and a function `output`, and a line in `_TASKS`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from petl.outputs import Output
from trainables.config import TrainOptions
from trainables.data.clips import Clip
from trainables.data.datasets.base import Target

if TYPE_CHECKING:
    from trainables.tasks.base import Targets, Task

_TASKS: dict[str, tuple[str, str]] = {
    "classification": ("classification", "Classification"),
    "tagging": ("tagging", "Tagging"),
    "slots": ("slots", "SlotIntent"),
    "verification": ("verification", "Verification"),
    "speech_recognition": ("speech_recognition", "SpeechRecognition"),
    "phonemes": ("phonemes", "PhonemeRecognition"),
    "slot_filling": ("slot_filling", "SlotFilling"),
}

__all__ = ["Targets", "Task", "build_task", "output_of"]


def output_of(target: Target, clips: Sequence[Clip], train: Sequence[int]) -> Output:
    """What a model answers with on these clips, of which those at `train` are learned from (torch-free)."""
    module, _ = _TASKS[target.task]
    output: Output = import_module(f"trainables.tasks.{module}").output(target, clips, train)
    return output


def build_task(name: str, output: Output, options: TrainOptions) -> Task:
    """The task of this name; `ConfigError` for options that mean nothing to it."""
    module, cls = _TASKS[name]
    task: Task = getattr(import_module(f"trainables.tasks.{module}"), cls)(output, options)
    return task


def __getattr__(name: str) -> object:
    if name in ("Targets", "Task"):
        return getattr(import_module("trainables.tasks.base"), name)
    raise AttributeError(f"module 'trainables.tasks' has no attribute '{name}'")
