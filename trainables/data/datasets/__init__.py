"""The data sets by name (torch-free). A new one is a module with a `DATASET`, and its name in `DatasetName`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path

from petl.errors import ConfigError, UserError, nearest
from trainables.config import DATASETS, EMBEDDED, DataOptions
from trainables.data.clips import Clip
from trainables.data.datasets._reading import reading
from trainables.data.datasets.base import (
    Choice,
    Dataset,
    Expected,
    LayoutError,
    Problems,
    Protocol,
    Target,
    existing,
)

__all__ = [
    "Choice",
    "Dataset",
    "Expected",
    "LayoutError",
    "Listing",
    "Problems",
    "Protocol",
    "Target",
    "chosen",
    "dataset",
    "datasets",
    "list_clips",
    "read_clips",
]

_LAYOUTS = ("manifest", "folder")
"""What people's own data look like; nearly everything looks like a folder, so that it comes last."""


@cache
def dataset(name: str) -> Dataset:
    """The data set of this name; `ConfigError` for another."""
    if name not in DATASETS:
        raise ConfigError(f"dataset '{name}' is not known{nearest(name, DATASETS)}; allowed: {', '.join(DATASETS)}")
    found: Dataset = import_module(f"trainables.data.datasets.{name}").DATASET
    return found


def datasets() -> list[Dataset]:
    """Every data set: the embedded one, people's own data, then the published ones by name."""
    first = (EMBEDDED, "folder", "manifest", "huggingface")
    return [dataset(name) for name in (*first, *(name for name in DATASETS if name not in first))]


def chosen(options: DataOptions) -> Choice:
    """What is asked of the data set, defaults filled in; `ConfigError` for what it does not have."""
    known = dataset(options.dataset)
    target = options.target or next(iter(known.targets))
    subset = options.subset or next(iter(known.subsets), "")
    _one_of("data.target", target, known.targets, known.name)
    if not (known.any_subset and subset):
        _one_of("data.subset", subset, known.subsets or {"": ""}, known.name)
    _one_of("data.protocol", options.protocol, known.protocols, known.name)
    lexicon = Path(options.lexicon).expanduser() if options.lexicon else None
    return Choice(target, subset, options.protocol, lexicon)


def _one_of(key: str, value: str, allowed: object, name: str) -> None:
    assert hasattr(allowed, "__iter__")
    names = [str(one) for one in allowed]
    if value not in names:
        listed = ", ".join(one for one in names if one)
        have = f"'{name}' has {listed}" if listed else f"'{name}' has none"
        raise ConfigError(f"{key} is '{value}'{nearest(value, names)}; {have}", key)


@dataclass(frozen=True)
class Listing:
    """The clips of a data set, and what is to be known of how they were read.

    `left_out`: what was left out or taken for something else, a sentence each. `problems`: what would have been raised
    (rows that cannot be used, of every table; at last what ended the reading), where the listing kept going.
    """

    clips: list[Clip]
    left_out: tuple[str, ...] = ()
    problems: tuple[UserError, ...] = ()


def read_clips(options: DataOptions, path: Path) -> list[Clip]:
    """The clips of `list_clips`."""
    return list_clips(options, path).clips


def list_clips(options: DataOptions, path: Path, *, keep_going: bool = False) -> Listing:
    """List the clips at `path` in a canonical order that no directory listing can change.

    Raises `LayoutError` naming what was looked for and, where another data set or a folder below fits, that; and
    `Problems` with everything that is wrong with a table. With `keep_going` these are listed beside the clips of the
    good rows; only a `ConfigError`, for what the data set does not have, is raised then.
    """
    with reading(keep_going=keep_going) as said:
        clips: list[Clip] = []
        ended: list[UserError] = []
        try:
            clips = _read(options, path)
        except ConfigError:
            raise
        except UserError as error:
            if not keep_going:
                raise
            ended.append(error)
        except (LookupError, ValueError):
            if not said.problems:  # else a reader stumbled over the lack of a row that it had refused
                raise
    return Listing(clips, tuple(said.left_out), (*said.problems, *ended))


def _read(options: DataOptions, path: Path) -> list[Clip]:
    name, choice = options.dataset, chosen(options)
    known = dataset(name)
    if name not in (EMBEDDED, "huggingface"):  # these are made, or may be the name of something on the hub
        existing(path, name)
    try:
        clips = known.read(path, choice)
        if known.targets[choice.target].task == "classification":
            labels = {clip.label for clip in clips}
            if len(labels) == 1 and _other(name, path):
                raise LayoutError(f"{path}: as '{name}' it has the one class '{next(iter(labels))}'")
    except LayoutError as error:
        raise LayoutError(f"{error}{_hint(known, path)}\n'{name}' means:\n{_indented(known.layout)}") from None
    except OSError as error:
        raise UserError(f"{error.filename or path}: cannot be read ({error.strerror})") from None
    return sorted(clips, key=lambda clip: clip.order)


def _hint(known: Dataset, path: Path) -> str:
    """The data set or the place that was probably meant."""
    other = _other(known.name, path)
    if path.is_dir() and (other is None or other in _LAYOUTS):  # which nearly everything looks like
        for below in sorted(path.iterdir()):
            if below.is_dir() and not below.name.startswith(".") and known.looks_like(below):
                return f". The folder {below} fits: use --data {below}"
    if other:
        return f". It looks like '{other}': use --dataset {other}"
    return ". `petl-search datasets` lists all that are known"


def _other(name: str, path: Path) -> str | None:
    """Another data set that `path` looks like; the pickiest first."""
    published = [other for other in DATASETS if other not in (EMBEDDED, *_LAYOUTS)]
    for other in (*published, *_LAYOUTS):
        if other != name and dataset(other).looks_like(path):
            return other
    return None


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
