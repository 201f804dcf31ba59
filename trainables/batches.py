"""Which clips make up each step, and fetching them while the model computes.

The order of an epoch is a function of (seed, epoch) alone. Every worker of a trial draws the same global
batches and takes its share of each, so one worker and four see the same clips in the same steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


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


def prefetched(load: Callable[[Tensor], T], batches: Iterable[Tensor], waiting: Waiting) -> Iterator[T]:
    """`load(batch)` for every batch, the next one loading in a thread while the caller works on this one."""
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
        pending = None
        for batch in batches:
            following = pool.submit(load, batch)
            if pending is not None:
                yield _taken(pending, waiting)
            pending = following
        if pending is not None:
            yield _taken(pending, waiting)


def _taken(pending: Future[T], waiting: Waiting) -> T:
    started = time.perf_counter()
    loaded = pending.result()
    waiting.seconds += time.perf_counter() - started
    return loaded
