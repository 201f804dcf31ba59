"""Which clips make up each step, and fetching them while the model computes.

The order of an epoch is a function of (seed, epoch) alone. Every worker of a trial draws the same global
batches and takes its share of each, so one worker and four see the same clips in the same steps.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

if TYPE_CHECKING:
    from trainables.config import TrialConfig
    from trainables.data import AudioData

T = TypeVar("T")
U = TypeVar("U")

FRAMES_PER_SECOND = 100
_WINDOW = 50
"""Batches among whose clips those of like length are put together."""


def steps_of(config: TrialConfig, data: AudioData, epoch: int) -> list[Tensor]:
    """The global batches of an epoch, as positions in the training split: a function of the seed and the epoch alone.

    Shuffled: any clips together, `batch_size` at a time. Bucketed: clips of like length together (within windows of
    `_WINDOW` batches of shuffled clips, so that batches differ from epoch to epoch), the batches shuffled. With
    `batch_seconds` a batch holds as many clips as fit, its longest one counting for each. Balanced: as many clips as
    there are, drawn with replacement, every class as often as the others.
    """
    options, count = config.train, data.size("train")
    if options.balanced:
        order_N = _balanced(data, generator(config.seed, epoch))
    else:
        order_N = shuffled(count, config.seed, epoch)
    if options.batching == "shuffled" and options.batch_seconds is None:
        return list(order_N.split(options.batch_size))
    frames_N = torch.as_tensor(data.frames("train"))
    if options.batching == "bucketed":
        windows = order_N.split(options.batch_size * _WINDOW)
        order_N = torch.cat([window[frames_N[window].argsort(stable=True)] for window in windows])
    if options.batch_seconds is None:
        batches = list(order_N.split(options.batch_size))
    else:
        batches = _fitting(order_N, frames_N, options.batch_seconds * FRAMES_PER_SECOND, options.batch_size)
    if options.batching == "bucketed":
        places = torch.randperm(len(batches), generator=generator(config.seed, epoch, len(batches)))
        batches = [batches[place] for place in places.tolist()]
    return batches


def for_judging(config: TrialConfig, data: AudioData, split: str) -> list[Tensor]:
    """Batches of a whole split: in its order, or clips of like length together where training does so, too."""
    options, order_N = config.train, torch.arange(data.size(split))
    if options.batching == "shuffled" and options.batch_seconds is None:
        return list(order_N.split(options.eval_batch_size))
    frames_N = torch.as_tensor(data.frames(split))
    order_N = frames_N.argsort(stable=True)
    if options.batch_seconds is None:
        return list(order_N.split(options.eval_batch_size))
    return _fitting(order_N, frames_N, options.batch_seconds * FRAMES_PER_SECOND, options.eval_batch_size)


def _fitting(order_N: Tensor, frames_N: Tensor, most: float, clips: int) -> list[Tensor]:
    """Runs of clips whose number times the longest is at most `most` frames; a clip longer than that is alone."""
    batches, first, longest = [], 0, 0
    lengths = frames_N[order_N].tolist()
    for place, frames in enumerate(lengths):
        now = max(longest, frames)
        if place > first and (now * (place - first + 1) > most or place - first == clips):
            batches.append(order_N[first:place])
            first, now = place, frames
        longest = now
    return [*batches, order_N[first:]]


def _balanced(data: AudioData, draw: torch.Generator) -> Tensor:
    """Positions drawn with weights that are the mean, over the classes of a clip, of one over the class's clips.

    AAT weighs AudioSet's clips by the sum instead, which favours clips with many labels.
    """
    clips = data.clips("train")
    held = Counter(name for clip in clips for name in clip.classes)
    weights_N = torch.tensor(
        [sum(1 / held[name] for name in clip.classes) / max(1, len(clip.classes)) for clip in clips],
        dtype=torch.float64,
    )
    return torch.multinomial(weights_N, len(clips), replacement=True, generator=draw)


def shuffled(count: int, seed: int, epoch: int) -> Tensor:
    """The order of `count` clips in one epoch."""
    return torch.randperm(count, generator=generator(seed, epoch))


def generator(*numbers: int) -> torch.Generator:
    """A generator that belongs to these numbers, whatever was drawn elsewhere."""
    mixed = 0x9E3779B97F4A7C15
    for number in numbers:
        mixed = ((mixed ^ (number + 1)) * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) % (1 << 63)
    return torch.Generator().manual_seed(mixed)


def share(batch: Tensor, rank: int, world: int) -> Tensor:
    """This worker's part of a global batch: every `world`-th clip from `rank` on."""
    return batch[rank::world]


@dataclass
class Waiting:
    """Seconds the loop stood still for its data."""

    seconds: float = 0.0


def prefetched(load: Callable[[U], T], batches: Iterable[U], waiting: Waiting, loaders: int = 1) -> Iterator[T]:
    """`load(batch)` for every batch, in order, while the caller works on an earlier one.

    `loaders` threads load, and as many batches are loading or loaded while the caller has one in its hands. `load`
    must allow to be called by several threads at once. What it raises comes out in the place of its batch.
    """
    pool = ThreadPoolExecutor(loaders, thread_name_prefix="batches")
    flying: deque[Future[T]] = deque()
    try:
        for batch in batches:
            flying.append(pool.submit(load, batch))
            if len(flying) > loaders:
                yield _taken(flying.popleft(), waiting)
        while flying:
            yield _taken(flying.popleft(), waiting)
    finally:
        pool.shutdown(cancel_futures=True)


def _taken(pending: Future[T], waiting: Waiting) -> T:
    started = time.perf_counter()
    loaded = pending.result()
    waiting.seconds += time.perf_counter() - started
    return loaded
