"""Labelled audio: where it lies, how it is split, and its features as batches.

`plan(options)` lists clips, labels and splits without torch and without decoding; `open_data(options,
front_end)` gives batches from the feature cache.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainables.data.audio_data import AudioData, open_data, open_repeats
    from trainables.data.clips import SPLITS, BadFile, BadFiles, Clip
    from trainables.data.datasets import Dataset, LayoutError, Problems, dataset
    from trainables.data.places import CacheError, default_cache_root
    from trainables.data.planning import DataPlan, plan
    from trainables.data.progress import Busy, idle
    from trainables.data.splits import SplitError, Splits, split_clips

_LAZY = {
    "AudioData": "audio_data",
    "open_data": "audio_data",
    "open_repeats": "audio_data",
    "SPLITS": "clips",
    "BadFile": "clips",
    "BadFiles": "clips",
    "Clip": "clips",
    "Dataset": "datasets",
    "LayoutError": "datasets",
    "Problems": "datasets",
    "dataset": "datasets",
    "CacheError": "places",
    "default_cache_root": "places",
    "DataPlan": "planning",
    "plan": "planning",
    "Busy": "progress",
    "idle": "progress",
    "SplitError": "splits",
    "Splits": "splits",
    "split_clips": "splits",
}

__all__ = [
    "SPLITS",
    "AudioData",
    "BadFile",
    "BadFiles",
    "Busy",
    "CacheError",
    "Clip",
    "DataPlan",
    "Dataset",
    "LayoutError",
    "Problems",
    "SplitError",
    "Splits",
    "dataset",
    "default_cache_root",
    "idle",
    "open_data",
    "open_repeats",
    "plan",
    "split_clips",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"trainables.data.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'trainables.data' has no attribute '{name}'")
