"""Batches that are made while the model computes: in order, a few ahead, by as many threads as asked for."""

from __future__ import annotations

import threading
import time

import pytest
import torch
from torch import Tensor

from trainables.batches import Waiting, prefetched


@pytest.mark.parametrize("loaders", [1, 2, 5])
def test_batches_come_in_order_however_long_each_takes(loaders: int) -> None:
    draws = torch.rand(20, generator=torch.Generator().manual_seed(0)) / 200

    def load(batch: Tensor) -> int:
        time.sleep(float(draws[int(batch)]))
        return int(batch)

    assert list(prefetched(load, torch.arange(20), Waiting(), loaders)) == list(range(20))
    assert list(prefetched(load, [], Waiting(), loaders)) == []


@pytest.mark.parametrize("loaders", [1, 3])
def test_as_many_are_ahead_as_there_are_loaders(loaders: int) -> None:
    begun: list[int] = []
    given = prefetched(lambda batch: begun.append(int(batch)), torch.arange(50), Waiting(), loaders)
    for taken in range(5):
        next(given)
        time.sleep(0.02)
        assert sorted(begun) == list(range(taken + 1 + loaders))
    given.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


def test_loaders_load_at_the_same_time() -> None:
    """Each waits for two others: with fewer than three threads nobody would get on."""
    together = threading.Barrier(3, timeout=30)
    assert len(list(prefetched(lambda _: together.wait(), torch.arange(9), Waiting(), 3))) == 9


def test_a_failure_comes_in_its_place() -> None:
    def load(batch: Tensor) -> int:
        if batch == 3:
            raise OSError("the disk is gone")
        return int(batch)

    given = prefetched(load, torch.arange(10), Waiting(), 4)
    assert [next(given) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="the disk is gone"):
        next(given)


def test_what_the_caller_waited_is_counted() -> None:
    slow, quick = Waiting(), Waiting()
    list(prefetched(lambda _: time.sleep(0.01), torch.arange(10), slow))
    for _ in prefetched(lambda _: None, torch.arange(10), quick):
        time.sleep(0.01)
    assert slow.seconds > 0.08 and quick.seconds < 0.03
