"""What a data set will give, before anything is decoded (torch-free)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from petl.errors import UserError
from petl.outputs import Output
from trainables.config import EMBEDDED, DataOptions
from trainables.data.clips import SPLITS, BadFile, Clip, leave_out_missing
from trainables.data.datasets import Target, chosen, dataset, list_clips
from trainables.data.places import default_cache_root
from trainables.data.repeats import repeats_of, title
from trainables.data.splits import SplitError, Splits, all_for_test, split_clips
from trainables.tasks.trials import Trial, check_kinds, check_trials, read_trials


@dataclass(frozen=True)
class DataPlan:
    """The clips of a data set, what is learned of them, and their splits.

    `bad_files`: clips that were left out. `left_out`: what the reader of the data set left out or took for something
    else, a sentence each.
    """

    name: str
    root: Path
    clips: tuple[Clip, ...]
    target_name: str
    target: Target
    output: Output
    splits: Splits
    bad_files: tuple[BadFile, ...] = ()
    title: str = ""  # of this repeat, beside others
    trials: tuple[Trial, ...] = ()  # pairs of clips that voices are compared on, where the data bring a list
    left_out: tuple[str, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """What is answered with, in the order of the head's numbers."""
        return self.output.labels

    def size(self, split: str) -> int:
        return len(self.splits.of(split))

    def counts(self) -> dict[str, dict[str, int]]:
        """{split: {class: clips}}, every class in every split; without classes, {split: {}}."""
        classes = sorted({name for clip in self.clips for name in clip.classes})
        found = {}
        for split in SPLITS:
            held = Counter(name for i in self.splits.of(split) for name in self.clips[i].classes)
            found[split] = {name: held[name] for name in classes}
        return found

    def describe(self) -> dict[str, Any]:
        """Plain facts for a terminal or a report."""
        return {
            "dataset": self.name,
            "path": str(self.root),
            "target": self.target_name,
            "task": self.target.task,
            "protocol": self.splits.protocol,
            "reads_test": self.splits.reads_test,
            "classes": len(self.labels),
            "labels": list(self.labels),
            "splits": {
                split: {"clips": self.size(split), "per_class": per_class} for split, per_class in self.counts().items()
            },
            "bad_files": [{"file": f.name, "reason": f.reason, "detail": f.detail} for f in self.bad_files],
            "left_out": list(self.left_out),
        }


def plan(options: DataOptions, *, cache_root: Path | None = None) -> DataPlan:
    """List clips, outputs and splits: of the first repeat, where `options` ask for several. Raises as `plans`."""
    return plans(options, cache_root=cache_root)[0]


def plans(options: DataOptions, *, cache_root: Path | None = None) -> list[DataPlan]:
    """The same for every repeat.

    Raises `UserError`: the path or a file that is named is not there, another layout, bad rows, a fold or split that
    does not exist, a class with too few clips. The embedded task is made below `cache_root` on first use.
    """
    root = data_root(options, cache_root)
    listing = list_clips(options, root)
    clips, missing = leave_out_missing(listing.clips, options.skip_bad_files, root, options.dataset)
    return make_plans(options, root, clips, missing, left_out=listing.left_out)


def data_root(options: DataOptions, cache_root: Path | None = None) -> Path:
    """Where the data lie (or, for the embedded task, below which folder it is made)."""
    if options.dataset == EMBEDDED or options.path is None:
        return (cache_root or default_cache_root()) / EMBEDDED
    return Path(options.path).expanduser()


def make_plans(
    options: DataOptions,
    root: Path,
    clips: list[Clip],
    bad: list[BadFile],
    *,
    whole: bool = False,
    left_out: Sequence[str] = (),
) -> list[DataPlan]:
    """A plan for every repeat (see `trainables.data.repeats`); with `whole` one, with every clip for the test."""
    from trainables.tasks import output_of

    known, choice = dataset(options.dataset), chosen(options)
    target = known.targets[choice.target]
    if known.slot_names is not None and target.task == "slots":
        target = replace(target, slots=known.slot_names(root))
    rule = known.protocols[choice.protocol]
    plans: list[DataPlan] = []
    lists = _trials(root, clips, bad) if target.task == "verification" else {}
    repeats = (options,) if whole else repeats_of(options, clips)
    for repeat in repeats:
        splits = all_for_test(clips) if whole else split_clips(clips, repeat, task=target.task, split=rule.split)
        learned = splits.test if whole else splits.train
        trials: list[Trial] = []
        said = list(left_out)
        for split in () if target.task != "verification" else ("test",) if whole else ("val", "test"):
            here = [clips[i] for i in splits.of(split)]
            if split not in lists:
                check_trials(here, split)
                continue
            path, pairs = lists[split]
            names = {clip.name for clip in here}
            used = [pair for pair in pairs if pair.one in names and pair.other in names]
            check_kinds(used, path, f" whose clips are in {split} and can be used")
            if len(used) < len(pairs):
                said.append(
                    f"{path}: {len(pairs) - len(used)} of {len(pairs)} pairs are not used: a clip of theirs was left "
                    f"out or is not in {split}"
                )
            trials += used
        output = output_of(target, clips, learned)
        if plans and output != plans[0].output:
            raise UserError(
                f"the training clips of {title(repeats[0], repeats)} and {title(repeat, repeats)} do not have the same "
                f"symbols ({', '.join(sorted(set(output.labels) ^ set(plans[0].labels))[:10])}), so that one trial "
                "cannot train on both; search on one of them (data.fold=1)"
            )
        for before, other in zip(plans, repeats, strict=False):
            if (splits.train, splits.val, splits.test) == (before.splits.train, before.splits.val, before.splits.test):
                raise SplitError(
                    f"{title(other, repeats)} and {title(repeat, repeats)} are the same clips ({splits.protocol}), so "
                    "that they are no repeats; leave one out"
                )
        plans.append(
            DataPlan(
                options.dataset,
                root,
                tuple(clips),
                choice.target,
                target,
                output,
                splits,
                tuple(bad),
                "" if whole else title(repeat, repeats),
                tuple(trials),
                tuple(said),
            )
        )
    return plans


def _trials(root: Path, clips: Sequence[Clip], bad: Sequence[BadFile]) -> dict[str, tuple[Path, tuple[Trial, ...]]]:
    """{split: (list, its pairs)} of `trials_val.txt` and `trials_test.txt` beside the data, in VoxCeleb's format.

    They may name clips that were left out: a list is not wrong because a file is.
    """
    folder = root if root.is_dir() else root.parent
    names = [*(clip.name for clip in clips), *(file.clip_name for file in bad)]
    paths = {split: folder / f"trials_{split}.txt" for split in ("val", "test")}
    return {split: (path, read_trials(path, names, split)) for split, path in paths.items() if path.is_file()}
