"""From a space file to a `Space` (torch-free).

Two passes: the first reads section by section and notes every mistake; the second, on a sound space, builds
the trial configurations its conditions can lead to, so that what no trial could train is found now.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

from petl.errors import ConfigError, UserError, nearest
from search.space.aims import measurable
from search.space.combinations import check_combinations
from search.space.errors import Mistake, SpaceError, shown
from search.space.following import follow_recipe
from search.space.idle import idle_notes
from search.space.model import Params, Space
from search.space.parse_params import Keys, read_base, read_params
from search.space.parse_sections import (
    SETTABLE,
    check_schema,
    read_budget,
    read_description,
    read_name,
    read_objectives,
    read_sampler,
    read_scheduler,
)
from search.space.reader import Reader
from search.space.writing import SCHEMA
from search.space.yamlfile import Document, Path, read, scalar

_TOP = (
    "schema",
    "name",
    "description",
    "base",
    "objectives",
    "params",
    "enqueue",
    "sampler",
    "scheduler",
    "budget",
)
_FLAGS = {
    "data": "--data",
    "dataset": "--dataset",
    "backbone": "--backbone",
    "epochs": "--max-epochs",
    "seed": "--seed",
    "sampler.seed": "--seed",
    "budget.trials": "--trials",
    "budget.time": "--time-budget",
    "data.skip_bad_files": "--skip-bad-files",
}
"""Keys that have a flag of their own on the command line."""
_LARGEST_FILE = 1_000_000  # bytes


def load_space(
    path: str | FilePath,
    overrides: Mapping[str, Any] | None = None,
) -> Space:
    """Read a space file.

    Args:
        path: the YAML file.
        overrides: values for keys of the fixed part (`epochs`, `optim.weight_decay`, `data`, ...) and for
            `sampler.*`, `scheduler.*`, `budget.*`; they replace what the file says. A relative `data` path
            means relative to the current directory, in the file too.

    Raises:
        SpaceError: with every mistake found, each with its line.
        UserError: when the file cannot be read.
    """
    file = FilePath(path)
    try:
        raw = file.read_bytes()
    except FileNotFoundError:
        raise UserError(f"space file {path} does not exist{_similar_file(file)}") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a directory; give one of its space files{_similar_file(file / 'x')}") from None
    except OSError as error:
        raise UserError(f"space file {path} cannot be read: {error.strerror}") from None
    if len(raw) > _LARGEST_FILE:
        raise UserError(f"{path} has {len(raw):,} bytes; a space file has at most {_LARGEST_FILE:,}")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise SpaceError(str(path), [Mistake(f"line {line}", "the file is not UTF-8 text")]) from None
    return parse_space(text, str(path), overrides)


def parse_space(
    text: str,
    file: str = "the space",
    overrides: Mapping[str, Any] | None = None,
) -> Space:
    """`load_space` for text that is already there; `file` is what messages call it."""
    document = read(text, file)
    if document.value is None:
        raise SpaceError(file, [Mistake("", f"the file is empty; a space starts with schema: {SCHEMA}")])
    if not isinstance(document.value, dict):
        found = shown(document.value)
        raise SpaceError(file, [Mistake("line 1", f"a space is a mapping (name: value), found {found}")])
    overrides = overrides or {}
    fixed = follow_recipe(document, overrides)
    reader = Reader(document, _apply(document, overrides))
    space = _read_space(reader, FilePath(file).stem)
    reader.stop_if_wrong()
    notes = check_combinations(space, reader)
    reader.stop_if_wrong()
    space = replace(space, notes=(*fixed, *space.notes, *notes, *idle_notes(space)))
    return measurable(space)


def parse_assignments(texts: Iterable[str]) -> dict[str, Any]:
    """`["epochs=9", "optim.weight_decay=1e-2"]` -> overrides; values are read as a space file would read them.

    The last one wins where a key is given twice. Raises `UserError` when there is no key or no `=`.
    """
    overrides: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UserError(f"--set {text}: write key=value, such as --set optim.weight_decay=0.01")
        overrides[key.strip()] = scalar(value)
    return overrides


def _read_space(reader: Reader, stem: str) -> Space:
    top = reader.mapping(reader.document.value, (), _TOP, "schema: petl.space/1")
    check_schema(reader, top)
    keys = Keys()
    settings = tuple(f"{section}.{key}" for section, known in SETTABLE.items() for key in known)
    base = read_base(reader, top.get("base"), keys, settings)
    params = read_params(reader, top.get("params"), keys, base)
    if "method" not in base and not any(p.key == "method" for p in params) and "method" not in keys.seen:
        reader.wrong(("params",), "no method: sample it (method: {choice: [soft_moa, lora]}) or fix it in base")
    scheduler = read_scheduler(reader, top.get("scheduler"))
    space = Space(
        name=read_name(reader, top.get("name"), stem),
        description=read_description(reader, top.get("description")),
        base=base,
        params=params,
        objectives=read_objectives(reader, top.get("objectives")),
        sampler=read_sampler(reader, top.get("sampler")),
        scheduler=scheduler,
        budget=read_budget(reader, top),
        source=reader.document.file,
        lines={key: line for key in keys.seen if (line := reader.line(key))},
    )
    if not reader.ok():
        # Parameters that are wrong are missing from the space: judging `enqueue` against it would mislead.
        return space
    enqueue, notes = _read_enqueue(reader, top.get("enqueue"), space)
    space = replace(space, enqueue=enqueue)
    return replace(space, notes=(*notes, *_notes(space)))


def _read_enqueue(reader: Reader, value: Any, space: Space) -> tuple[tuple[Params, ...], list[str]]:
    if value is None:
        return (), []
    if not isinstance(value, list):
        reader.wrong(("enqueue",), f"a list is expected, such as - {{method: lora}}; found {shown(value)}")
        return (), []
    seen: dict[str, int] = {}
    notes: list[str] = []
    enqueue: list[Params] = []
    for index, item in enumerate(value):
        partial = reader.mapping(item, ("enqueue", index), None, "{method: lora}")
        if not isinstance(item, dict):
            continue
        try:
            full = space.complete(partial)
        except ConfigError as error:
            key = error.key or ""
            path: Path = ("enqueue", index, key) if key in partial else ("enqueue", index)
            reader.wrong(path, str(error).removeprefix(f"{key}: "))
            continue
        enqueue.append({key: full[key] for key in full if key in partial})
        first = seen.setdefault(space.key(full), index + 1)
        if first != index + 1:
            notes.append(f"enqueue[{index + 1}] is the same configuration as enqueue[{first}]; it runs once")
    return tuple(enqueue), notes


def _notes(space: Space) -> list[str]:
    notes = []
    epochs = space.max_epochs()
    if space.scheduler.name == "asha" and not space.scheduler.rungs(epochs):
        notes.append(
            f"scheduler.grace_epochs {space.scheduler.grace_epochs} is not below {epochs} epochs: "
            "no trial can be stopped early"
        )
    if space.budget.trials is not None and space.budget.trials < len(space.enqueue):
        notes.append(
            f"{len(space.enqueue)} configurations are enqueued, but only {space.budget.trials} trials are allowed"
        )
    size = space.size()
    if size is not None and space.budget.trials is not None and size < space.budget.trials:
        notes.append(f"the space holds only {size} configurations; the search ends when all are trained")
    return notes


def _apply(document: Document, overrides: Mapping[str, Any]) -> dict[Path, str]:
    """Put the overrides into the parsed file; returns path -> what to call it in a message."""
    said: dict[Path, str] = {}
    for key, value in overrides.items():
        section, dot, rest = key.partition(".")
        if section in SETTABLE and dot:
            path: Path = (section, rest)
        elif key in ("name", "description"):
            path = (key,)
        else:
            path = ("base", key.removeprefix("base."))
        said[path] = f"{key} ({_FLAGS[key]})" if key in _FLAGS else f"--set {key}"
        _put(document.value, path, value)
    return said


def _put(top: dict[str, Any], path: Path, value: Any) -> None:
    if len(path) == 1:
        top[str(path[0])] = value
        return
    if top.get(str(path[0])) is None:
        top[str(path[0])] = {}
    inner = top[str(path[0])]
    if isinstance(inner, dict):  # if not, reading the section reports it
        inner[str(path[1])] = value


def _similar_file(file: FilePath) -> str:
    """Names of space files that are there, the most similar first."""
    folders = dict.fromkeys([file.parent, FilePath("spaces")])
    found = [
        p for folder in folders if folder.is_dir() for p in sorted(folder.iterdir()) if p.suffix in (".yaml", ".yml")
    ]
    names = {p.stem: str(p) for p in found}
    close = nearest(file.stem, names)
    for stem, path in names.items():
        if f"'{stem}'" in close:
            return f" (did you mean {path}?)"
    return f"; there are: {', '.join(map(str, found[:24]))}" if found else ""
