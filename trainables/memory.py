"""Out of memory: noticing it, whatever says so, and computing with fewer clips at a time afterwards.

A batch that does not fit is cut into pieces that are computed one after the other; their gradients add up to that of
the whole batch, so the training stays the same but for the last digits (and BatchNorm, which sees smaller batches).
"""

from __future__ import annotations

import gc
from dataclasses import dataclass
from types import TracebackType

import torch

_SIGNS = (
    "out of memory",  # CUDA's own allocator, and the driver's where it is asked past that allocator
    "DefaultCPUAllocator",
    "can't allocate memory",
    "Cannot allocate memory",
    "std::bad_alloc",
    "ALLOC_FAILED",  # cuBLAS and cuDNN
)
_LONGEST = 200  # characters of what the allocator said


class OutOfMemory(RuntimeError):
    """Memory ran out while `clips` clips were computed at a time.

    Who catches it has to let go of it before anything is freed: its traceback holds the frames of the computation.
    """

    def __init__(self, message: str, clips: int) -> None:
        super().__init__(message)
        self.clips = clips


class noticing:
    """A context in which every kind of "out of memory" becomes `OutOfMemory`.

    Args:
        clips: how many are computed at a time.
        doing: "training" or "judging", for the message.
    """

    def __init__(self, clips: int, doing: str) -> None:
        self._clips, self._doing = clips, doing

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        if error is None or not is_out_of_memory(error):
            return
        counted = f"{self._clips} clip{'' if self._clips == 1 else 's'}"
        said = " ".join(str(error).split())[:_LONGEST]
        raise OutOfMemory(
            f"out of memory while {self._doing} on {counted} at a time: {said or type(error).__name__}", self._clips
        ) from None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this error says that an allocation failed, on a GPU or in main memory."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


def release() -> None:
    """Give back what nobody holds any more: cycles of Python objects, and blocks that CUDA's allocator keeps."""
    gc.collect()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


@dataclass(frozen=True)
class Piece:
    """Clips of a batch that are computed at a time.

    `counts` is False for a piece without clips of its own, computed on any clip for the other workers' sake; `last`
    for the last one of the batch.
    """

    clips: slice
    counts: bool
    last: bool


def pieces(held: int, parts: int, most: int | None = None) -> list[Piece]:
    """Cut a batch of `held` clips into `parts` pieces of like size, or into single clips where it has fewer.

    `most` is how many the worker with most clips holds: all workers cut alike, for they wait for each other in every
    piece.
    """
    count = max(1, min(parts, held if most is None else most))
    found = []
    for number in range(count):
        first, end = number * held // count, (number + 1) * held // count
        clips = slice(first, end) if end > first else slice(0, 1)
        found.append(Piece(clips, end > first, number == count - 1))
    return found
