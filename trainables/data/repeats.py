"""The repeats of a trial: one training for every fold and every few-shot draw that is asked for (torch-free)."""

from __future__ import annotations

from collections.abc import Sequence

from trainables.config import DataOptions
from trainables.data.clips import Clip
from trainables.data.splits import SplitError, folds_of


def repeats_of(options: DataOptions, clips: Sequence[Clip]) -> tuple[DataOptions, ...]:
    """Options with one fold and one draw each, in order; `"all"` folds are those of the clips.

    Raises `SplitError` when folds are asked for and there are none.
    """
    known = folds_of(clips)
    folds = known or [1] if options.fold == "all" else numbers(options.fold)
    if not known and options.fold not in (1, "1"):
        raise SplitError(
            f"data.fold is '{options.fold}', but these data have no folds (protocol '{options.protocol}'); leave it out"
        )
    return tuple(
        options.model_copy(update={"fold": fold, "draw": draw}) for fold in folds for draw in numbers(options.draw)
    )


def title(options: DataOptions, among: Sequence[DataOptions]) -> str:
    """What one repeat is called beside the others: "fold3", "draw2", "fold3-draw2"; "" when it is the only one."""
    parts = [f"{key}{getattr(options, key)}" for key in ("fold", "draw") if len({getattr(o, key) for o in among}) > 1]
    return "-".join(parts)


def numbers(value: int | str) -> list[int]:
    """1 or "1,3" as numbers."""
    return [value] if isinstance(value, int) else [int(part) for part in value.split(",")]
