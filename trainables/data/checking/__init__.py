"""Everything that is wrong with a copy of a data set, in one report instead of the first error (torch-free).

Readers go on behind rows that cannot be used; then every clip is decoded. What is judged is the data as they are
given, not as a search would repair them: nothing is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from petl.errors import UserError
from trainables.config import EMBEDDED, DataOptions
from trainables.data.checking import apart, counts, own
from trainables.data.checking.findings import Finding, Findings, Report, Severity
from trainables.data.checking.listening import Heard, listen
from trainables.data.checking.sounds import missing, sounds
from trainables.data.checking.texts import texts
from trainables.data.clips import SPLITS, BadFile, Clip, leave_out_missing
from trainables.data.cores import granted_cores
from trainables.data.datasets import Problems, chosen, dataset, list_clips
from trainables.data.datasets.base import existing
from trainables.data.digest import content_hashes
from trainables.data.places import default_cache_root, make_folder
from trainables.data.planning import DataPlan, make_plans
from trainables.data.repeats import repeats_of, title
from trainables.data.splits import folds_of

__all__ = ["Finding", "Report", "Severity", "check"]


def check(
    options: DataOptions,
    root: Path,
    *,
    cache_root: Path | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    examples: int = 5,
    decode: bool = True,
) -> Report:
    """Look at lists, splits, labels and texts of the data at `root`, and unless `decode` is off at every clip's sound.

    Of data with folds each one is held out in turn. `examples` of every kind of finding are kept. Hashes of the files
    are remembered below `cache_root`, as a search does. Raises `UserError` when there is nothing at `root`, or the data
    set does not have what `options` ask for.
    """
    known, choice = dataset(options.dataset), chosen(options)
    if options.dataset == EMBEDDED:
        raise UserError("the embedded data set is made by this program; there is no copy of it to check")
    if options.dataset != "huggingface":
        existing(root, options.dataset)
    target = known.targets[choice.target]
    found = Findings(examples)
    listing = list_clips(options, root, keep_going=True)
    clips, facts = listing.clips, {}
    for problem in listing.problems:
        _refused(found, problem)
    for sentence in listing.left_out:
        found.add("note", "left_out", sentence)
    if not clips and not listing.problems:
        found.add("error", "layout", f"{root}: there are no clips")
    if clips:
        plans = _plans(found, options, root, clips)
        parts = apart.parts_of(clips, plans)
        _, absent = leave_out_missing(clips, True, root)
        missing(found, absent, len(clips))
        facts = _lists(found, options, root, clips, plans, parts)
        heard: dict[int, Heard] = {}
        if decode:
            gone = {bad.name for bad in absent}
            there = [i for i, clip in enumerate(clips) if clip.title not in gone]
            cores = workers or granted_cores()
            heard = dict(zip(there, listen([clips[i] for i in there], cores, progress), strict=True))
            facts |= sounds(found, clips, heard)
            apart.copies(found, clips, parts, _contents(clips, there, root, cache_root, cores))
            _without_bad(found, options, root, clips, heard, plans)
            for split in SPLITS if plans else ():
                seconds = sum(heard[i].seconds for i in plans[0].splits.of(split) if i in heard)
                facts["splits"][split]["hours"] = round(seconds / 3600, 4)
        if plans:
            facts |= texts(found, plans[0], heard)
    return Report(
        dataset=options.dataset,
        path=root,
        target=choice.target,
        subset=choice.subset,
        protocol=choice.protocol,
        task=target.task,
        listened=decode and bool(clips),
        findings=found.sorted(),
        facts=facts,
    )


def _lists(
    found: Findings,
    options: DataOptions,
    root: Path,
    clips: Sequence[Clip],
    plans: Sequence[DataPlan],
    parts: Sequence[str],
) -> dict[str, Any]:
    """What can be told without any audio."""
    known, choice = dataset(options.dataset), chosen(options)
    target = known.targets[choice.target]
    counts.figures(found, known, choice, clips)
    counts.labels(found, clips)
    facts = counts.facts(clips, plans)
    facts |= {"folds": held} if (held := counts.folds(found, clips)) else {}
    apart.leaks(found, clips, parts, target, choice.protocol)
    apart.overlaps(found, clips, parts)
    if plans:
        counts.classes(found, plans, target.task)
    if plans and plans[0].splits.reads_test:
        said = f"protocol '{choice.protocol}' chooses epochs on clips of the test, as published: scores are too good"
        found.add("warning", "reads_test", f"{said}; the protocol 'standard' does not")
    if options.dataset in own.OWN:
        own.unused(found, root, clips)
    if options.dataset == "folder":
        own.empty_classes(found, root, clips)
    return facts


def _refused(found: Findings, problem: UserError) -> None:
    if isinstance(problem, Problems):
        found.add("error", "rows", f"{problem.where}: rows or files that cannot be used; mend them", problem.found)
    else:
        found.add("error", "layout", str(problem))


def _plans(
    found: Findings, options: DataOptions, root: Path, clips: list[Clip], bad: Sequence[BadFile] = ()
) -> list[DataPlan]:
    """The splits of every fold, as far as they can be made; what keeps others from it is reported."""
    if folds_of(clips):
        options = options.model_copy(update={"fold": "all"})
    repeats = repeats_of(options, clips)
    plans: list[DataPlan] = []
    wrong: dict[str, list[str]] = {}
    for repeat in repeats:
        name = title(repeat, repeats)
        try:
            plan = make_plans(repeat, root, clips, list(bad))[0]
            plan.output.check()
            plans.append(replace(plan, title=name))
        except UserError as error:
            wrong.setdefault(str(error), []).append(name)
    for message, names in wrong.items():
        held_out = f"{', '.join(names)}: " if any(names) else ""
        found.add("error", "splits", f"{held_out}the clips cannot be split: {message}")
    return plans


def _without_bad(
    found: Findings,
    options: DataOptions,
    root: Path,
    clips: Sequence[Clip],
    heard: Mapping[int, Heard],
    plans: Sequence[DataPlan],
) -> None:
    """Whether what is left could be split, where clips cannot be used and all of them could be split."""
    usable = [clip for i, clip in enumerate(clips) if i in heard and not heard[i].reason]
    bad = [
        BadFile(clip.title, heard[i].reason if i in heard else "missing", heard[i].detail if i in heard else "")
        for i, clip in enumerate(clips)
        if i not in heard or heard[i].reason
    ]
    if not plans or len(usable) == len(clips):
        return
    again = Findings(found.shown)
    _plans(again, options, root, usable, bad)
    for finding in again.found:
        found.add("warning", "splits_without_bad", f"without the clips that cannot be used, {finding.message}")


def _contents(
    clips: Sequence[Clip], there: Sequence[int], root: Path, cache_root: Path | None, workers: int
) -> dict[int, str]:
    """Hash of the file of each clip at `there` that can be read."""
    place = make_folder(cache_root or default_cache_root())
    hashes = content_hashes([clips[i] for i in there], root, place, workers)
    return {i: found for i, found in zip(there, hashes, strict=True) if not found.startswith("unreadable")}
