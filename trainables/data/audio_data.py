"""A data set ready to train on: batches of model inputs straight from the feature cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petl.errors import UserError
from petl.frontend import AstFrontEnd, FrontEnd, ModelInput, WaveformFrontEnd
from trainables.config import DataOptions
from trainables.data.cache import FeatureCache, Progress, granted_cores, open_cache
from trainables.data.clips import SPLITS, BadFile, BadFiles, Clip, leave_out_missing
from trainables.data.digest import content_hashes, data_digest
from trainables.data.formats import read_clips
from trainables.data.places import default_cache_root, make_folder
from trainables.data.planning import DataPlan, data_root, make_plan

if TYPE_CHECKING:
    from torch import Tensor

_CUT_SHARE = 0.01  # of the clips that may be cut then, so that two long ones do not make all the others longer


class AudioData:
    """The clips of a data set, split, as normalised model inputs.

    `front_end` is the one given, with the frames and the normalisation that hold for these data.
    """

    def __init__(
        self,
        plan: DataPlan,
        options: DataOptions,
        digest: str,
        cache: FeatureCache,
        rows: Sequence[int],
        contents: Sequence[str],
        front_end: FrontEnd,
    ) -> None:
        """`rows` and `contents`: cache row and content hash of each clip of the plan."""
        self.plan = plan
        self.digest = digest
        self.labels: tuple[str, ...] = plan.labels
        self.bad_files: tuple[BadFile, ...] = plan.bad_files
        self._options = options
        self._cache = cache
        self._rows = {split: [rows[i] for i in plan.splits.of(split)] for split in SPLITS}
        self._contents = contents
        self._targets: dict[str, Tensor] = {}
        self.front_end = self._final(front_end)

    @property
    def name(self) -> str:
        return self.plan.name

    def size(self, split: str) -> int:
        """Number of clips in "train", "val" or "test"."""
        return self.plan.size(split)

    def clips(self, split: str) -> tuple[Clip, ...]:
        return tuple(self.plan.clips[i] for i in self.plan.splits.of(split))

    def paths(self, split: str) -> tuple[Path, ...]:
        """Files of a split, in the order of `targets` and of the indices of `batch`."""
        return tuple(clip.path for clip in self.clips(split))

    def targets(self, split: str) -> Tensor:
        """Class numbers (positions in `labels`) of all clips of a split: int64 (size,)."""
        import torch

        if split not in self._targets:
            number = {label: i for i, label in enumerate(self.labels)}
            self._targets[split] = torch.tensor([number[clip.label] for clip in self.clips(split)])
        return self._targets[split]

    def batch(self, split: str, indices: Sequence[int] | Tensor) -> ModelInput:
        """Model inputs, normalised and padded or cut, of the clips at `indices` of a split."""
        import torch

        chosen = indices.tolist() if isinstance(indices, torch.Tensor) else indices
        rows = self._rows[split] if split in self._rows else self.plan.splits.of(split)
        most = self.front_end.rows(self.front_end.frames)
        return self.front_end.collate([self._cache.row(rows[i], most) for i in chosen])

    def describe(self) -> dict[str, Any]:
        """Plain facts: digest, protocol, clips and seconds per split, front end, what was left out."""
        facts = self._cache.facts
        described = self.plan.describe()
        for split, found in described["splits"].items():
            found["seconds"] = round(sum(facts[row].seconds for row in self._rows[split]), 3)
        used = [facts[row] for rows in self._rows.values() for row in rows]
        return described | {
            "digest": self.digest,
            "normalize": self._options.normalize if isinstance(self.front_end, AstFrontEnd) else "backbone",
            **self.front_end.describe(),
            "longest_frames": max(fact.frames for fact in used),
            "cut_clips": sum(fact.frames > self.front_end.frames for fact in used),
            "silent_clips": sum(fact.silent for fact in used),
            "copies_of_train_clips": self._copies(),
        }

    def _copies(self) -> int:
        """Clips of val and test whose file is byte for byte one of train: scores on them mean little."""
        learned = {self._contents[i] for i in self.plan.splits.train}
        held_out = (*self.plan.splits.val, *self.plan.splits.test)
        return sum(self._contents[i] in learned for i in held_out)

    def _final(self, front_end: FrontEnd) -> FrontEnd:
        frames = self._options.frames
        if frames is None:
            lengths = sorted(self._cache.facts[row].frames for rows in self._rows.values() for row in rows)
            long = lengths[len(lengths) - 1 - int(_CUT_SHARE * len(lengths))]
            frames = front_end.nearest_length(long)
        fitted = front_end.with_frames(frames)
        if isinstance(fitted, WaveformFrontEnd):
            padding = self._options.padding
            return replace(fitted, masks=fitted.masks or padding == "masked", fixed=fitted.fixed or padding == "fixed")
        if isinstance(fitted, AstFrontEnd) and self._options.normalize == "dataset" and self._rows["train"]:
            return self._scaled(fitted)
        return fitted

    def _scaled(self, front_end: AstFrontEnd) -> AstFrontEnd:
        """With the mean and deviation of the training clips."""
        mean, std = self._cache.mean_std(self._rows["train"])
        if std <= 0:
            raise UserError(
                f"{self.plan.root}: every training clip holds the same constant sound (silence?), so it "
                "cannot be normalised by its own mean and deviation; check the files, or use "
                "data.normalize=backbone"
            )
        # Seven digits: what float32 holds, and what a preprocessor_config.json shows.
        return replace(front_end, mean=round(mean, 7), std=round(std, 7))


def open_data(
    options: DataOptions,
    front_end: FrontEnd,
    *,
    cache_root: Path | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
    whole: bool = False,
) -> AudioData:
    """Open a data set, computing its features first when no cache holds them.

    `cache_root` defaults to `$PETL_CACHE` or the user's cache folder; `workers` threads (default: the cores
    of this process) compute, and `progress(done, total)` is called after every clip. A second opening takes
    milliseconds: files are not read again while their size and time stay. With `whole` nothing is split: every
    clip is in "test" and the normalisation is the front end's, to evaluate a trained model on it.

    Raises `UserError` for whatever is wrong with the data (see `plan`), and `BadFiles` with all clips that
    cannot be decoded, unless `options.skip_bad_files`.
    """
    place = make_folder(cache_root or default_cache_root())
    root = data_root(options, cache_root)
    clips, bad = leave_out_missing(read_clips(options.dataset, root), options.skip_bad_files, root)
    total = len(clips) + len(bad)
    plan = make_plan(options, root, clips, bad, whole=whole)  # refuses before anything is decoded
    contents = content_hashes(clips, root, place, workers or granted_cores())
    digest = data_digest(clips, contents)
    cache = open_cache(clips, digest, front_end, place, workers=workers, progress=progress)
    rows = list(range(len(clips)))
    if cache.bad:
        undecodable = [cache.bad[row] for row in sorted(cache.bad)]
        if not options.skip_bad_files:
            raise BadFiles(undecodable, total, root)
        rows = [row for row in rows if row not in cache.bad]
        plan = make_plan(options, root, [clips[row] for row in rows], [*bad, *undecodable], whole=whole)
    return AudioData(plan, options, digest, cache, rows, [contents[row] for row in rows], front_end)
