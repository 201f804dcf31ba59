"""What a data set will give, before anything is decoded (torch-free)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.config import EMBEDDED, DataOptions
from trainables.data.clips import SPLITS, BadFile, Clip, leave_out_missing
from trainables.data.formats import read_clips
from trainables.data.places import default_cache_root
from trainables.data.splits import Splits, all_for_test, split_clips


@dataclass(frozen=True)
class DataPlan:
    """The clips, classes and splits of a data set. `bad_files` holds the missing ones that were left out."""

    name: str
    root: Path
    clips: tuple[Clip, ...]
    labels: tuple[str, ...]  # sorted: the class numbers
    splits: Splits
    bad_files: tuple[BadFile, ...] = ()

    def size(self, split: str) -> int:
        return len(self.splits.of(split))

    def counts(self) -> dict[str, dict[str, int]]:
        """{split: {label: clips}}, every label in every split."""
        found = {}
        for split in SPLITS:
            labels = Counter(self.clips[i].label for i in self.splits.of(split))
            found[split] = {label: labels[label] for label in self.labels}
        return found

    def describe(self) -> dict[str, Any]:
        """Plain facts for a terminal or a report."""
        return {
            "dataset": self.name,
            "path": str(self.root),
            "protocol": self.splits.protocol,
            "classes": len(self.labels),
            "labels": list(self.labels),
            "splits": {
                split: {"clips": self.size(split), "per_class": per_class} for split, per_class in self.counts().items()
            },
            "bad_files": [{"file": f.name, "reason": f.reason, "detail": f.detail} for f in self.bad_files],
        }


def plan(options: DataOptions, *, cache_root: Path | None = None) -> DataPlan:
    """List clips, labels and splits. The embedded task is made below `cache_root` on first use.

    Raises `UserError`: the path or a file that is named is not there, another layout, a bad row, a fold or
    split that does not exist, a class with too few clips.
    """
    root = data_root(options, cache_root)
    clips, missing = leave_out_missing(read_clips(options.dataset, root), options.skip_bad_files, root)
    return make_plan(options, root, clips, missing)


def data_root(options: DataOptions, cache_root: Path | None = None) -> Path:
    """Where the data lie (or, for the embedded task, below which folder it is made)."""
    if options.dataset == EMBEDDED or options.path is None:
        return (cache_root or default_cache_root()) / EMBEDDED
    return Path(options.path).expanduser()


def make_plan(
    options: DataOptions, root: Path, clips: list[Clip], bad: list[BadFile], *, whole: bool = False
) -> DataPlan:
    """Split the clips that are usable; with `whole` every clip is for the test."""
    labels = tuple(sorted({clip.label for clip in clips}))
    splits = all_for_test(clips) if whole else split_clips(clips, options)
    return DataPlan(options.dataset, root, tuple(clips), labels, splits, tuple(bad))
