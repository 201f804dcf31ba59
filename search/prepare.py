"""What has to be right of space and data before a search starts, and what is known of both (torch-free to import)."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petl.counts import BackboneShape, backbone_parameters
from petl.errors import ConfigError, UserError
from petl.families import ALIASES, family_of
from petl.hub import read_config
from search import environment
from search.plan import backbone_shape
from search.records import SearchRecord
from search.request import Interrupted
from search.sizes import fitted
from search.space import Space, tree
from trainables import precision
from trainables.config import AugOptions, TrialConfig

if TYPE_CHECKING:
    from search.live import View
    from trainables.data import AudioData


def check_same_data(directory: Path, earlier: SearchRecord, data: AudioData) -> None:
    """Trials on different recordings cannot be compared."""
    before = earlier.info["data_digest"]
    if before != data.digest:
        raise UserError(
            f"{directory} was searched on other data (digest {before[:12]}, now {data.digest[:12]}): its trials "
            "could not be compared with new ones. Restore the data, or start a new search."
        )


def prepare_data(
    base: TrialConfig, view: View, interrupted: threading.Event, *, waveforms: bool = False
) -> list[AudioData]:
    """Read the data of every repeat, features from the cache or computed now; Ctrl-C ends it between two clips.

    `waveforms`: some trials will need those, too, even if `base` does not.
    """
    from trainables import checks
    from trainables.opening import open_for

    backbone_shape(base)  # refuses what does not fit the backbone, which computing features would only delay
    view.phase("reading the audio")

    def progress(done: int, total: int) -> None:
        if interrupted.is_set():
            raise Interrupted
        view.progress(done, total, "computing features")

    if waveforms and not base.aug.of_waveform:
        open_for(base.model_copy(update={"aug": AugOptions(gain=1.0)}), progress=progress)
    repeats = open_for(base, progress=progress)
    checks.check(base, repeats[0])
    return repeats


def check_precisions(space: Space, *, gpu: bool) -> None:
    """Look for a number format that cannot be had with, or without, a GPU: fixed, sampled, or a recipe's.

    Raises:
        UserError: names the line of the space.
    """
    asked = [p for p in space.params if p.key in ("recipe", "train.precision")]
    found = [*tree.covering(space.params, ([(p.key, value)] for p in asked for value in p.domain.ends()))]
    if "recipe" in space.base or any(p.key == "recipe" for p in asked):
        found += space.branches()  # what a recipe says may depend on the method
    for params in found:
        try:
            precision.check(space.trial_config(params).train.precision, gpu=gpu)
        except ConfigError as error:
            key = next((key for key in (error.key or "", "recipe") if key in space.lines), "")
            raise UserError(f"{space.where(key)}: {error}") from None


_OF_TASK = frozenset({"aug.gain", "aug.mixup", "aug.roll", "train.balanced"})
"""Options that mean nothing on some data, or to some front ends."""


def check_sampled(space: Space, data: AudioData) -> None:
    """Look for sampled options that mean nothing on these data, before anything is trained.

    Raises:
        UserError: names the line of the space.
    """
    from trainables import augment, checks

    sampled = [p for p in space.params if p.key in _OF_TASK]
    for params in tree.covering(space.params, ([(p.key, value)] for p in sampled for value in p.domain.ends())):
        try:
            config = space.trial_config(params)
            augment.check(config.aug, data.front_end)
            checks.check(config, data)
        except ConfigError as error:
            raise UserError(f"{space.where(error.key or '')}: {error}") from None


def deadline(config: TrialConfig, repeats: int) -> float:
    """Seconds that a command may take: it is carried out for every repeat, one after the other."""
    return config.train.deadline * repeats


def facts(space: Space, base: TrialConfig, shape: BackboneShape, repeats: list[AudioData]) -> dict[str, Any]:
    """What the report, the tracker and a later resume need to know; the keys are tabled in `search.report`.

    `shape` is the checkpoint's.
    """
    data = repeats[0]
    described = data.describe()
    known = environment.versions()
    used = fitted(shape, base, data.front_end.backbone_frames)
    return {
        "search_id": uuid.uuid4().hex,
        "space": space.source,
        "space_digest": space.digest(),
        "backbone": base.backbone,
        "backbone_revision": base.revision,
        "backbone_params": backbone_parameters(used),
        "dataset": base.data.dataset,
        "data": base.data.path,
        "data_digest": data.digest,
        "splits": {split: facts["clips"] for split, facts in described["splits"].items()},
        "target": described["target"],
        "task": described["task"],
        "protocol": protocol_note(repeats),
        "reads_test": described["reads_test"],
        "repeats": [one.title for one in repeats if one.title],
        "classes": len(data.labels),
        "labels_are": data.output.noun,
        "dropped": [{"file": data.dropped_title(i), "reason": why} for i, why in data.dropped],
        "left_out": list(data.plan.left_out),
        "normalisation": f"{data.front_end.normalisation} ({described['normalize']})",
        "frames": data.front_end.frames,
        "positions": positions_note(base, shape, used, data.front_end.frames),
        "bad_files": [{"file": b.name, "reason": f"{b.reason} ({b.detail})"} for b in data.bad_files],
        "epochs": space.max_epochs(),
        "seed": base.seed,
        "versions": known["versions"],
        "hardware": known["processor"],
        "git_commit": known["git_commit"],
    }


def protocol_note(repeats: list[AudioData]) -> str:
    """How the data are split, in a sentence; of several repeats the first one's stands for all.

    It says so where clips that one repeat holds out for the test choose epochs and winner in another.
    """
    first = repeats[0]
    if len(repeats) == 1:
        return first.plan.splits.protocol
    chosen_on = {clip.order for one in repeats for clip in one.clips("val")}
    again = any(clip.order in chosen_on for one in repeats for clip in one.clips("test"))
    note = ", the winner chosen on the mean, so that validation clips of some are test clips of others" if again else ""
    return f"mean over {', '.join(one.title for one in repeats)}{note}; {first.title}: {first.plan.splits.protocol}"


def positions_note(base: TrialConfig, own: BackboneShape, used: BackboneShape, frames: int) -> str:
    """What became of the positions of a checkpoint (`own`) in the backbone that is used, for inputs of `frames`."""
    if own.samples:
        return f"relative: inputs of any length, here of at most {frames} frames of 10 ms"
    if family_of(own.family).layout != "grid":
        if used.max_frames == own.max_frames:
            return f"as pretrained, for {frames} frames"
        return f"the first {used.tokens()} of {own.tokens()}: pretrained for {own.max_frames} frames, used for {frames}"
    config = read_config(base.backbone, base.revision)
    image = config.get("model_type") in ALIASES
    old, new = _image_grid(config, own) if image else own.grid(), used.grid()
    if old == new:
        return f"as pretrained, {_patches(new)} for {frames} frames"
    if base.positions == "zero":
        how = "set to zero"
    else:
        ways: dict[str, list[str]] = {"cut": [], "interpolated": []}
        for axis, have, want in (("time", old[1], new[1]), ("frequency", old[0], new[0])):
            if want != have:
                ways["cut" if want < have else "interpolated"].append(axis)
        how = ", ".join(f"{way} along {' and '.join(axes)}" for way, axes in ways.items() if axes)
    pretrained = "images" if image else f"{own.max_frames} frames"
    return f"{how}: pretrained with {_patches(old)} for {pretrained}, used with {_patches(new)} for {frames} frames"


def _patches(grid: tuple[int, int]) -> str:
    return f"{grid[0]} x {grid[1]} patches"


def _image_grid(config: Mapping[str, Any], shape: BackboneShape) -> tuple[int, int]:
    """Patches of an image model, side by side without overlap: those along its height, those along its width."""
    size = config.get("image_size", 224)
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    return height // shape.patch, width // shape.patch


def tags(record: SearchRecord) -> dict[str, str]:
    return {
        "petl.search_id": record.info["search_id"],
        "petl.space_digest": record.info["space_digest"],
        "petl.data_digest": record.info["data_digest"],
        "petl.backbone": record.info["backbone"],
        "petl.dataset": record.info["dataset"],
    }
