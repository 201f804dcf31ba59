"""What every data set says about itself, and the errors they share (torch-free)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from petl.errors import UserError
from trainables.data.clips import Clip

if TYPE_CHECKING:
    from trainables.config import DataOptions
    from trainables.data.splits import Splits

TaskName = Literal[
    "classification", "tagging", "slots", "verification", "speech_recognition", "phonemes", "slot_filling"
]

SEQUENCES: tuple[TaskName, ...] = ("speech_recognition", "phonemes", "slot_filling")
"""Tasks that answer with a sequence."""


@dataclass(frozen=True)
class Target:
    """Something that can be learned from a data set.

    What a task needs of every clip: classification its `label`; tagging `labels` (those that hold) and, where not
    everything was annotated, `negatives` (those that are known not to hold); slots `labels`, one per name in `slots`;
    verification `label`, the speaker; the others `text` (words; phones with blanks between them; words with
    `B-<slot> … E-<slot>` around the values).
    """

    task: TaskName
    summary: str
    slots: tuple[str, ...] = ()  # names, in the order of a clip's `labels`
    speakers_recur: bool = False  # by design the same voices are in every split


@dataclass(frozen=True)
class Choice:
    """What is asked of a data set; `target` and `subset` are among those it has ("" where it has no subsets)."""

    target: str
    subset: str = ""
    protocol: str = "standard"
    lexicon: Path | None = None


@dataclass(frozen=True)
class Expected:
    """Published figures of a whole copy, for one target and subset ("": for all of them)."""

    target: str = ""
    subset: str = ""
    clips: int | None = None
    classes: int | None = None
    splits: Mapping[str, int] = field(default_factory=dict)  # train, val, test -> clips
    folds: Mapping[int, int] = field(default_factory=dict)  # fold -> clips
    source: str = ""  # where the figures are from


Splitter = Callable[[Sequence[Clip], "DataOptions"], "Splits"]


@dataclass(frozen=True)
class Protocol:
    """One way to split. `split` None: by the clips' own splits or folds, else drawn (see `trainables.data.splits`).

    `reads_test`: epochs are chosen on clips that the test counts, as published; scores are then too good.
    """

    summary: str
    split: Splitter | None = None
    reads_test: bool = False


Reader = Callable[[Path, Choice], list[Clip]]


@dataclass(frozen=True)
class Dataset:
    """A data set, or a way that data can lie on disk. `read` lists its clips without decoding anything.

    `read` takes the data as they are published; it raises `LayoutError` for a file that is not where it should be, and
    `Problems` with everything that is wrong with rows of tables. It gives split, fold and group where the data have
    them, and leaves out what the target or subset does not take.
    """

    name: str
    summary: str
    layout: str  # several lines, as shown to people
    targets: Mapping[str, Target]  # the first one is the default
    protocols: Mapping[str, Protocol]
    read: Reader
    looks_like: Callable[[Path], bool]  # cheap guess, used for suggestions only
    subsets: Mapping[str, str] = field(default_factory=dict)  # name -> what it is; the first one is the default
    slot_names: Callable[[Path], tuple[str, ...]] | None = None  # of targets whose slots are those of the data
    any_subset: bool = False  # other names are passed on as they are (languages, say); `read` judges them
    expected: tuple[Expected, ...] = ()
    citation: str = ""
    licence: str = ""


class LayoutError(UserError):
    """The data at `path` are not laid out as the data set says."""


class Problems(UserError):
    """Rows or files that cannot be used, all of them. `found` has a line each; the message shows the first twenty."""

    _SHOWN = 20

    def __init__(self, where: Path | str, found: Sequence[str]) -> None:
        self.where = where
        self.found = tuple(found)
        lines = [f"  {line}" for line in self.found[: self._SHOWN]]
        if len(self.found) > self._SHOWN:
            lines.append(f"  … and {len(self.found) - self._SHOWN} more")
        many = f"{len(self.found)} problems" if len(self.found) > 1 else "1 problem"
        super().__init__(f"{where}: {many}\n" + "\n".join(lines))

    def __reduce__(self) -> tuple[type[Problems], tuple[Path | str, tuple[str, ...]]]:
        return type(self), (self.where, self.found)


def existing(path: Path, name: str) -> Path:
    """`path` if there is something, else an error that says which part of it exists."""
    if path.exists():
        return path
    parent = next((p for p in path.parents if p.exists()), Path("/"))
    raise LayoutError(
        f"data path {path} does not exist ('{parent}' does). Give the place of a copy of '{name}' with --data"
    )


def needed(root: Path, *names: str, dataset: str) -> None:
    """Raise `LayoutError` that lists everything of `names` (files or folders below `root`) that is not there."""
    missing = [name for name in names if not (root / name).exists()]
    if not missing:
        return
    held = sorted(entry.name for entry in root.iterdir())[:8] if root.is_dir() else []
    found = f"found there: {', '.join(held)}" if held else "it is empty" if root.is_dir() else "it is a file"
    raise LayoutError(f"{root} is not a copy of '{dataset}': there is no {', no '.join(missing)} ({found})")
