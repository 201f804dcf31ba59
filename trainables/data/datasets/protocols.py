"""Published ways to split that several data sets share, as named options (torch-free)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from trainables.config import DataOptions
from trainables.data.clips import Clip
from trainables.data.splits import SplitError, Splits, folds_of, held_out_fold


def petl_ast(clips: Sequence[Clip], options: DataOptions) -> Splits:
    """Test on fold k, validate on the fold before it (cyclic: the last before the first), train on the others."""
    folds = folds_of(clips)
    fold = held_out_fold(clips, options)
    if len(folds) < 3:
        raise SplitError(f"protocol '{options.protocol}' needs at least 3 folds; the data have {len(folds)}")
    before = folds[folds.index(fold) - 1]
    return Splits.of_parts(
        train=[i for i, clip in enumerate(clips) if clip.fold not in (fold, before)],
        val=[i for i, clip in enumerate(clips) if clip.fold == before],
        test=[i for i, clip in enumerate(clips) if clip.fold == fold],
        protocol=f"{options.protocol}: test on fold {fold}, val on fold {before}, train on the other {len(folds) - 2}",
    )


def test_as_validation(clips: Sequence[Clip], options: DataOptions) -> Splits:
    """Epochs are chosen on the test clips: the held-out fold, or the given test split; train on all others.

    As PETL_AST did on UrbanSound8K, and AAT on ESC-50, UrbanSound8K and OpenMIC. Scores are then too good.
    """
    if clips[0].fold is not None:
        fold = held_out_fold(clips, options)
        test = [i for i, clip in enumerate(clips) if clip.fold == fold]
        where = f"fold {fold}"
    else:
        test = [i for i, clip in enumerate(clips) if clip.split == "test"]
        where = "the test split"
    held = set(test)
    splits = Splits.of_parts(
        train=[i for i in range(len(clips)) if i not in held],
        val=test,
        test=test,
        protocol=f"{options.protocol}: test on {where}, and epochs chosen on the same clips, as published",
    )
    return replace(splits, reads_test=True)
