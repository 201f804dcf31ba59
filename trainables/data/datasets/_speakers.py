"""How people's own recordings of speakers are split, where the data do not say (torch-free)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from trainables.config import DataOptions
from trainables.data.clips import Clip
from trainables.data.splits import SplitError, Splits, held_out_fold, split_clips

_FEWEST = 2  # speakers of a part: with one there is nobody to take for somebody else


def speakers_apart(clips: Sequence[Clip], options: DataOptions) -> Splits:
    """The usual split, but that for verification whole speakers are drawn: two at least, for each part that is drawn.

    Verification is about speakers that nobody has trained on. Given splits and folds are followed as they are; a
    missing val is cut from train. The fractions are of the speakers.
    """
    from trainables.data.datasets import chosen, dataset

    task = dataset(options.dataset).targets[chosen(options).target].task
    given = clips[0].split is not None
    if task != "verification" or (given and any(clip.split == "val" for clip in clips)):
        return split_clips(clips, options.model_copy(update={"shots": None}), task=task)
    everything = list(range(len(clips)))
    count = len({clip.label for clip in clips})
    if clips[0].fold is not None:
        fold = held_out_fold(clips, options)
        where = f"fold {fold}"
        test = [i for i in everything if clips[i].fold == fold]
    elif given:
        where = "the given split"
        test = [i for i in everything if clips[i].split == "test"]
    else:
        where = "drawn speakers"
        test = _drawn(clips, everything, options.test_fraction * count, "test", options)
    rest = sorted(set(everything) - set(test))
    val = _drawn(clips, rest, options.val_fraction * count, "val", options)
    return Splits.of_parts(
        train=sorted(set(rest) - set(val)),
        val=val,
        test=test,
        protocol=f"test on {where}; val is {len({clips[i].label for i in val})} of the other speakers, drawn "
        f"(split_seed {options.split_seed})",
    )


def _drawn(clips: Sequence[Clip], pool: Sequence[int], wanted: float, name: str, options: DataOptions) -> list[int]:
    """The clips in `pool` of about `wanted` speakers."""
    speakers = sorted({clips[i].label for i in pool}, key=lambda label: _key(options.split_seed, name, label))
    count = max(_FEWEST, round(wanted))
    if len(speakers) < count + _FEWEST:
        raise SplitError(
            f"there are {len(speakers)} speakers, too few to draw {count} for {name} and keep {_FEWEST} to train on; "
            "add speakers, or give the splits in the data"
        )
    chosen = set(speakers[:count])
    return [i for i in pool if clips[i].label in chosen]


def _key(seed: int, name: str, speaker: str) -> bytes:
    return hashlib.sha256("\0".join((str(seed), "speaker", name, speaker)).encode()).digest()
