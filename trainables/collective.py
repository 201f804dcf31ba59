"""What the workers of a trial tell each other; alone, everything is one's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch.distributed as dist

T = TypeVar("T")


def rank() -> int:
    """This worker's number, from 0 on."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world() -> int:
    """How many workers there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def summed(values: list[float]) -> list[float]:
    """Element-wise sum over the workers."""
    return [sum(column) for column in zip(*of_all(values), strict=True)]


def in_order(items: Sequence[T], places: Sequence[int]) -> list[T]:
    """The items of all workers by their places, each place once."""
    found: dict[int, T] = {}
    for theirs, where in of_all((list(items), list(places))):
        found.update(zip(where, theirs, strict=True))
    return [found[place] for place in sorted(found)]


def of_all(value: T) -> list[T]:
    """The values of all workers, by rank."""
    if world() == 1:
        return [value]
    shares: list[Any] = [None] * world()
    dist.all_gather_object(shares, value)
    return shares
