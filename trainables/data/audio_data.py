"""A data set ready to train on: batches of model inputs straight from the feature cache."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petl.errors import UserError
from petl.frontend import AstFrontEnd, FrontEnd, ModelInput, WaveformFrontEnd, waveform_store
from petl.frontend.spectrogram import AUDIOSET_MEAN, AUDIOSET_STD
from petl.outputs import Output
from petl.outputs.slots import Slots
from petl.outputs.tokens import Tokens
from trainables.augment.speeds import sped_up
from trainables.config import DataOptions, TrainOptions
from trainables.data.cache import FeatureCache, granted_cores, open_cache
from trainables.data.clips import SPLITS, BadFile, BadFiles, Clip, leave_out_missing
from trainables.data.datasets import list_clips
from trainables.data.digest import content_hashes, data_digest, features_digest
from trainables.data.lengths import TokensOf, filled, input_length
from trainables.data.places import default_cache_root, make_folder
from trainables.data.planning import DataPlan, data_root, make_plans
from trainables.data.progress import Busy, Progress, idle
from trainables.data.repeats import repeats_of
from trainables.tasks import Task, build_task
from trainables.tasks.verification import Verification

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


class AudioData:
    """The clips of a data set, split, as normalised model inputs.

    `front_end` is the one given, with the frames and the normalisation that hold for these data. For sequence tasks,
    training clips that are longer than the input or whose target needs more tokens than the input gives are left out:
    `dropped` names them.
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
        *,
        waves: FeatureCache | None = None,
        tokens: TokensOf | None = None,
        speed: float = 0.0,
    ) -> None:
        """`rows` and `contents`: cache row and content hash of each clip of the plan. `waves`: the same rows as
        waveforms, for augmentation. `tokens`: how many tokens along time the backbone makes of so many positions of
        its input (`lengths.filled`). `speed`: how much faster training may play a clip; it needs `waves`.
        """
        self.digest = digest
        self.title = plan.title
        self.bad_files: tuple[BadFile, ...] = plan.bad_files
        self.options = options  # of this repeat alone: one fold, one draw
        self._cache, self._waves = cache, waves
        self._all_rows = rows
        self._contents = contents
        self.front_end = self._final(front_end, plan)
        self.dropped = self._too_long(plan, tokens, speed)  # positions in the plan, and why
        self.plan = self._without(plan, {i for i, _ in self.dropped})
        self._rows = {split: [rows[i] for i in self.plan.splits.of(split)] for split in SPLITS}
        if isinstance(self.front_end, AstFrontEnd) and options.normalize == "dataset" and self._rows["train"]:
            self.front_end = self._scaled(self.front_end)

    @property
    def name(self) -> str:
        return self.plan.name

    @property
    def output(self) -> Output:
        """What a model answers on these data."""
        return self.plan.output

    @property
    def labels(self) -> tuple[str, ...]:
        return self.plan.labels

    def task(self, options: TrainOptions) -> Task:
        """What is learned, with its loss and metrics."""
        task = build_task(self.plan.target.task, self.output, options)
        if isinstance(task, Verification):
            task.trials = self.plan.trials
        return task

    def answered_with(self, output: Output) -> AudioData:
        """These data for a model that is trained already; `UserError` for classes that it does not know.

        Slots may stand in another order: the labels of the clips are put into the model's.
        """
        unknown = () if output.sequence or output.embeds else sorted(set(self.output.labels) - set(output.labels))
        if type(output) is not type(self.output):
            raise UserError(
                f"{self.plan.root}: learned are its {self.output.noun} ('{self.plan.target_name}'), but the adapter "
                f"answers with {output.noun}; name another target with --set data.target=…"
            )
        if unknown:
            raise UserError(
                f"{self.plan.root} has labels the adapter does not know: {', '.join(unknown[:10])}; "
                f"it knows {', '.join(output.labels)}"
            )
        if isinstance(output, Tokens) and isinstance(self.output, Tokens) and output.unit != self.output.unit:
            raise UserError(
                f"{self.plan.root}: learned are its {self.output.unit} ('{self.plan.target_name}'), but the adapter "
                f"answers with {output.unit}; name another target with --set data.target=…"
            )
        if isinstance(output, Slots) and isinstance(self.output, Slots) and output.names != self.output.names:
            self.plan = self._in_order(self.output.names, output.names)
        self.plan = replace(self.plan, output=output)
        return self

    def size(self, split: str) -> int:
        """Number of clips in "train", "val" or "test"."""
        return self.plan.size(split)

    def clips(self, split: str) -> tuple[Clip, ...]:
        return tuple(self.plan.clips[i] for i in self.plan.splits.of(split))

    def paths(self, split: str) -> tuple[Path, ...]:
        """Files of a split, in the order of `targets` and of the indices of `batch`."""
        return tuple(clip.path for clip in self.clips(split))

    def frames(self, split: str) -> np.ndarray:
        """Frames of 10 ms that the model hears of each clip of a split."""
        found: np.ndarray = self._cache.facts.frames[self._rows[split]].clip(max=self.front_end.frames)
        return found

    def batch(self, split: str, indices: Sequence[int] | Tensor) -> ModelInput:
        """Model inputs, normalised and padded or cut, of the clips at `indices` of a split."""
        most = self.front_end.rows(self.front_end.frames)
        return self.front_end.collate([self._cache.row(row, most) for row in self._chosen(split, indices)])

    def waveforms(self, split: str, indices: Sequence[int] | Tensor, most: int) -> tuple[Tensor, Tensor]:
        """Waveforms (B, S) at the front end's rate, 0 behind their ends, and their lengths (B,); `most` samples each.

        Only for data that were opened for augmentation of waveforms.
        """
        import torch

        assert self._waves is not None
        found = [self._waves.row(row, most)[:, 0] for row in self._chosen(split, indices)]
        lengths_B = torch.tensor([len(wave_S) for wave_S in found])
        return torch.nn.utils.rnn.pad_sequence(found, batch_first=True), lengths_B

    def describe(self) -> dict[str, Any]:
        """Plain facts: digest, protocol, clips and seconds per split, front end, what was left out."""
        facts = self._cache.facts
        described = self.plan.describe()
        for split, found in described["splits"].items():
            found["seconds"] = round(math.fsum(facts.seconds[self._rows[split]]), 3)
        used = [row for rows in self._rows.values() for row in rows]
        return described | {
            "digest": self.digest,
            "normalize": self.options.normalize if isinstance(self.front_end, AstFrontEnd) else "backbone",
            **self.front_end.describe(),
            "longest_frames": int(facts.frames[used].max()),
            "cut_clips": int((facts.frames[used] > self.front_end.frames).sum()),
            "dropped_clips": len(self.dropped),
            "silent_clips": int(facts.silent[used].sum()),
            "copies_of_train_clips": self._copies(),
        }

    def dropped_title(self, position: int) -> str:
        """What messages call a clip of the plan."""
        return self.plan.clips[position].title

    def _chosen(self, split: str, indices: Sequence[int] | Tensor) -> list[int]:
        import torch

        rows = self._rows[split] if split in self._rows else self.plan.splits.of(split)
        return [rows[i] for i in (indices.tolist() if isinstance(indices, torch.Tensor) else indices)]

    def _copies(self) -> int:
        """Clips of val and test whose file is byte for byte one of train: scores on them mean little."""
        learned = {self._contents[i] for i in self.plan.splits.train}
        held_out = (*self.plan.splits.val, *self.plan.splits.test)
        return sum(self._contents[i] in learned for i in held_out)

    def _final(self, front_end: FrontEnd, plan: DataPlan) -> FrontEnd:
        frames = self.options.frames
        if frames is None:
            frames = input_length(plan, self.options, self._cache.facts.frames[list(self._all_rows)], front_end)
        fitted = front_end.with_frames(frames)
        if isinstance(fitted, WaveformFrontEnd):
            padding = self.options.padding
            return replace(fitted, masks=fitted.masks or padding == "masked", fixed=fitted.fixed or padding == "fixed")
        if isinstance(fitted, AstFrontEnd) and self.options.normalize == "audioset":
            return replace(fitted, mean=AUDIOSET_MEAN, std=AUDIOSET_STD)
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

    def _too_long(self, plan: DataPlan, tokens: TokensOf | None, speed: float) -> list[tuple[int, str]]:
        """Training clips that no sequence of answers can fit: position in the plan, and why."""
        if tokens is None or not isinstance(plan.output, Tokens):
            return []
        from trainables.tasks.ctc import needed_tokens

        found = []
        for i in plan.splits.train:
            frames = int(self._cache.facts.frames[self._all_rows[i]])
            if frames > self.front_end.frames:
                found.append((i, f"{frames / 100:.2f} s, but the input ends at {self.front_end.frames / 100:.2f} s"))
                continue
            needed = needed_tokens(plan.output, plan.clips[i])
            given = tokens(self._shortest_input(self._all_rows[i], speed))
            if needed > given:
                found.append((i, f"its target needs {needed} tokens, its {frames / 100:.2f} s give {given}"))
        return found

    def _shortest_input(self, row: int, speed: float) -> int:
        """Positions of the input that a clip fills as it is, or where training plays it at its fastest."""
        if speed and self._waves is not None:
            samples = sped_up(int(self._waves.facts.length[row]), speed, self.front_end.window)
            whole = isinstance(self.front_end, WaveformFrontEnd)
            return filled(self.front_end, samples if whole else self.front_end.rows(self.front_end.frames_of(samples)))
        return filled(self.front_end, int(self._cache.facts.length[row]) // self._cache.width)

    def _in_order(self, own: tuple[str, ...], wanted: tuple[str, ...]) -> DataPlan:
        """The plan with the labels of each clip, one for each slot of `own`, in the order of `wanted`."""
        if sorted(own) != sorted(wanted):
            raise UserError(
                f"{self.plan.root} has the slots {', '.join(own)}, but the adapter answers {', '.join(wanted)}; "
                "all of them are needed"
            )
        order = [own.index(name) for name in wanted]
        clips = tuple(replace(clip, labels=tuple(clip.labels[k] for k in order)) for clip in self.plan.clips)
        return replace(self.plan, clips=clips, target=replace(self.plan.target, slots=wanted))

    @staticmethod
    def _without(plan: DataPlan, left_out: set[int]) -> DataPlan:
        if not left_out:
            return plan
        train = tuple(i for i in plan.splits.train if i not in left_out)
        if not train:
            raise UserError(
                f"{plan.root}: no training clip is left: all {len(left_out)} are too short for their targets or too "
                "long for the input; check the transcripts, or use a backbone with more tokens per second"
            )
        return replace(plan, splits=replace(plan.splits, train=train))


def open_data(
    options: DataOptions,
    front_end: FrontEnd,
    *,
    cache_root: Path | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
    whole: bool = False,
    waveforms: bool = False,
    tokens: TokensOf | None = None,
    speed: float = 0.0,
) -> AudioData:
    """Open a data set, computing its features first when no cache holds them: the first of its repeats.

    `cache_root` defaults to `$PETL_CACHE` or the user's cache folder; `workers` threads (default: the cores
    of this process) compute, and `progress(done, total)` is called after every clip. A second opening takes
    milliseconds: files are not read again while their size and time stay. With `whole` nothing is split: every
    clip is in "test" and the normalisation is the front end's, to evaluate a trained model on it. `waveforms`: for
    augmentation, keep the waveforms, too. `tokens` and `speed` as in `AudioData`.

    Raises `UserError` for whatever is wrong with the data (see `plan`), and `BadFiles` with all clips that
    cannot be decoded, unless `options.skip_bad_files`.
    """
    return open_repeats(
        options,
        front_end,
        cache_root=cache_root,
        workers=workers,
        progress=progress,
        whole=whole,
        waveforms=waveforms,
        tokens=tokens,
        speed=speed,
    )[0]


def open_repeats(
    options: DataOptions,
    front_end: FrontEnd,
    *,
    cache_root: Path | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
    whole: bool = False,
    waveforms: bool = False,
    tokens: TokensOf | None = None,
    speed: float = 0.0,
    busy: Busy = idle,
) -> list[AudioData]:
    """`open_data` for every repeat: one for each fold and few-shot draw that is asked for, on one cache.

    `busy` is called after every step of what may take long: files that are read, clips whose features are computed.
    """

    def told(done: int, total: int) -> None:
        busy()
        if progress is not None:
            progress(done, total)

    place = make_folder(cache_root or default_cache_root())
    root = data_root(options, cache_root)
    listing = list_clips(options, root)
    clips, bad = leave_out_missing(listing.clips, options.skip_bad_files, root, options.dataset)
    total = len(clips) + len(bad)
    # Refuses before anything is decoded.
    plans = make_plans(options, root, clips, bad, whole=whole, left_out=listing.left_out)
    contents = content_hashes(clips, root, place, workers or granted_cores(), busy)
    digest = data_digest(clips, contents, [tuple(vars(pair).values()) for plan in plans for pair in plan.trials])
    stores = [front_end, waveform_store(front_end)] if waveforms else [front_end]
    heard = features_digest(clips, contents)  # labels and splits are not in it: other targets use the same features
    caches = [
        open_cache(clips, heard, store, place, contents=contents, workers=workers, progress=told) for store in stores
    ]
    rows = list(range(len(clips)))
    unusable = {row: found for cache in caches for row, found in cache.bad.items()}
    if unusable:
        undecodable = [unusable[row] for row in sorted(unusable)]
        if not options.skip_bad_files:
            raise BadFiles(undecodable, total, root, options.dataset)
        rows = [row for row in rows if row not in unusable]
        kept_clips = [clips[row] for row in rows]
        bad = [*bad, *undecodable]
        plans = make_plans(options, root, kept_clips, bad, whole=whole, left_out=listing.left_out)
    kept = [contents[row] for row in rows]
    if options.frames is None and len(plans) > 1:
        # One backbone serves all repeats, and many take inputs of one length only: the longest that any of them needs.
        frames_N = caches[0].facts.frames[rows]
        frames = max(input_length(plan, options, frames_N, front_end) for plan in plans)
        options = options.model_copy(update={"frames": frames})
    waves = caches[1] if waveforms else None
    repeats = (options,) if whole else repeats_of(options, plans[0].clips)
    return [
        AudioData(plan, own, digest, caches[0], rows, kept, front_end, waves=waves, tokens=tokens, speed=speed)
        for plan, own in zip(plans, repeats, strict=True)
    ]
