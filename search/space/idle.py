"""Options of training that a space samples although nothing reads them (torch-free)."""

from __future__ import annotations

from typing import Any

from search.space.errors import shown
from search.space.model import Space

_ON: dict[str, tuple[tuple[str, ...], tuple[Any, ...]]] = {
    **dict.fromkeys(
        ("schedule.step_start", "schedule.step_every", "schedule.step_factor"), (("schedule.name",), ("step",))
    ),
    "schedule.hold_ratio": (("schedule.name",), ("tri_stage",)),
    "aug.mixup_alpha": (("aug.mixup",), ()),
    "aug.noise_snr": (("aug.noise",), ()),
    "aug.mask_fill": (("aug.freq_mask", "aug.time_mask"), ()),
    # auto: am_softmax where speakers are verified
    **dict.fromkeys(("train.margin", "train.scale"), (("train.loss",), ("am_softmax", "auto"))),
}
"""Option -> the options that turn it on, and with which values (none listed: any but zero)."""


def idle_notes(space: Space) -> tuple[str, ...]:
    """A note for every sampled option that is turned off by what the space (or its recipe) fixes."""
    sampled = {p.key for p in space.params}
    config = space.trial_config(space.complete({}))
    notes = []
    for key in [p.key for p in space.params if p.key in _ON]:
        parents, values = _ON[key]
        found = {parent: getattr(getattr(config, (at := parent.split("."))[0]), at[1]) for parent in parents}
        if not sampled & found.keys() and not any(v in values if values else v for v in found.values()):
            said = " and ".join(f"{parent} {shown(value)}" for parent, value in found.items())
            notes.append(f"{key} is sampled, but with {said} nothing reads it")
    return tuple(notes)
