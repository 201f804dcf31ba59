"""Finding a backbone: the embedded one, a local directory, or the Hugging Face hub (torch-free).

A hub repository is looked up in the local cache first, so a search on many workers asks the network once and
an offline machine works with what it has; a new version is fetched by naming its `revision` (or by removing
the cached one). Only JSON and safetensors files are fetched, never pickles.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from petl.errors import UserError
from petl.frontend import completed
from petl.guarded import read_object

EMBEDDED = "embedded"
EMBEDDED_DIR = Path(__file__).parent / "embedded"
"""Where the small backbone that comes with the project lies."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_FRONT_ENDS = ["preprocessor_config.json", "processor_config.json"]
_JSON = ["config.json", *_FRONT_ENDS]
_PATTERNS = [*_JSON, "model*.safetensors", "model*.safetensors.index.json"]
_TIMEOUT = 5  # seconds for the first answer of the hub
_JSON_LIMIT = 16 * 2**20  # bytes; a configuration is a few kilobytes
_ROOM = 2**26  # numbers that may be made room for without a sign that they are stored
_log = logging.getLogger(__name__)


class BackboneNotFound(UserError):
    """There is no backbone under this name, here or on the hub."""


@dataclass(frozen=True)
class Source:
    """A backbone's files: the name it was asked by, its directory, and the hub commit (None off the hub)."""

    name: str
    directory: Path
    revision: str | None = None


def locate(name: str, revision: str | None = None, *, weights: bool = True, front_end: bool = False) -> Source:
    """Find (and if needed download) a backbone by hub id, directory or "embedded".

    With `weights=False` only the small JSON files are needed. With `front_end` a cache that holds neither a
    preprocessor_config.json nor the word of the hub that there is none is completed from the hub; where that cannot
    be asked, a warning says so. Raises `BackboneNotFound` with what to do.
    """
    if name == EMBEDDED:
        return Source(EMBEDDED, _checkpoint_directory(EMBEDDED_DIR, EMBEDDED))
    try:
        path = Path(name).expanduser()
        is_directory, exists = path.is_dir(), path.exists()
    except (OSError, RuntimeError):  # too long for a path, or the home of nobody
        is_directory = exists = False
    if is_directory:
        return Source(str(path.resolve()), _checkpoint_directory(path, name))
    if exists:
        raise BackboneNotFound(
            f"backbone '{name}' is a file; give the directory that holds config.json and model.safetensors"
        )
    if not _HUB_ID.fullmatch(name):
        raise BackboneNotFound(
            f"backbone '{name}' does not exist; give a directory, a hub id such as "
            f"MIT/ast-finetuned-audioset-10-10-0.4593, or '{EMBEDDED}'"
        )
    return _from_hub(name, revision, weights, front_end)


def read_config(name: str, revision: str | None = None) -> dict[str, Any]:
    """`config.json` of a backbone, as a dictionary."""
    return read_json(locate(name, revision, weights=False).directory / "config.json")


def read_front_end(name: str, revision: str | None = None) -> dict[str, Any]:
    """`preprocessor_config.json` of a backbone, completed by what fits its `config.json` where it lacks something.

    Newer checkpoints keep the same under "feature_extractor" of a processor_config.json.
    """
    directory = locate(name, revision, weights=False, front_end=True).directory
    own: dict[str, Any] = {}
    if (directory / "preprocessor_config.json").is_file():
        own = read_json(directory / "preprocessor_config.json")
    elif (directory / "processor_config.json").is_file():
        nested = read_json(directory / "processor_config.json").get("feature_extractor")
        own = dict(nested) if isinstance(nested, Mapping) else {}
    return completed(own, read_json(directory / "config.json"))


def check_weights(name: str, revision: str | None, model: str) -> None:
    """Look whether the weights of a backbone that lies here can be read, as far as that shows without reading them.

    What is still on the hub is not fetched for it. `model` is the transformers class, for the advice. Raises
    `UserError` when there are no safetensors files, or when one is cut off or is none.
    """
    source = locate(name, revision, weights=False)
    files = sorted(source.directory.glob("*.safetensors"))
    if not files and source.revision is None:
        raise UserError(no_safetensors(source, model))
    for file in files:
        fault = _header_fault(file)
        if fault:
            raise UserError(f"backbone '{source.name}': {file} {fault}; fetch or save it again")


def check_room(source: Source, parameters: int, model: str) -> None:
    """Refuse a config.json that describes far more numbers than are stored: making room for them fills the memory."""
    files = sorted(source.directory.glob("*.safetensors"))
    if not files:
        raise UserError(no_safetensors(source, model))
    stored = sum(file.stat().st_size for file in files)
    if parameters > stored + _ROOM:  # a number takes two bytes or more
        raise UserError(
            f"backbone '{source.name}': its config.json describes {parameters:,} parameters, but its weights are "
            f"{stored:,} bytes; they are cut off, or do not belong together"
        )


def no_safetensors(source: Source, model: str) -> str:
    """What to say when a checkpoint has no safetensors weights."""
    pickles = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for p in source.directory.glob(pattern))
    if pickles or source.revision is not None:
        return (
            f"backbone '{source.name}' has no safetensors weights"
            + (f" (found {', '.join(pickles)})" if pickles else "")
            + "; pickled weights can run code and are not read. If you trust them, convert them "
            f"once, {model}.from_pretrained(…, use_safetensors=False).save_pretrained(DIRECTORY), "
            "and pass DIRECTORY"
        )
    return f"backbone '{source.name}': {source.directory} has no model.safetensors"


def _header_fault(path: Path) -> str:
    """What is wrong with a safetensors file by its header and size; "" when nothing is."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > size - 8:
                return "is no safetensors file, or cut off in its header"
            header = json.loads(file.read(length))
        ends = [int(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__"]
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError):
        return "is no safetensors file: its header is damaged"
    if not ends:
        return "holds no tensors"
    missing = 8 + length + max(ends) - size
    return f"is cut off: {missing:,} bytes are missing" if missing > 0 else ""


def read_json(path: Path, *, strict: bool = False) -> dict[str, Any]:
    """Read one JSON object; `UserError` names the file and what is wrong with it. `strict`: no key is there twice."""
    return read_object(path, _JSON_LIMIT, strict=strict)


def _checkpoint_directory(path: Path, name: str) -> Path:
    if not (path / "config.json").is_file():
        raise BackboneNotFound(f"backbone '{name}': {path} has no config.json, so it is not a checkpoint directory")
    return path


def _from_hub(name: str, revision: str | None, weights: bool, front_end: bool) -> Source:
    cached = _cached(name, revision, weights)
    if cached is None:
        return _download(name, revision, weights)
    if not front_end or _front_end_known(cached):
        return cached
    try:
        return _download(name, cached.revision, weights)  # of the same commit: main may have moved
    except BackboneNotFound as error:
        _log.warning(
            "backbone '%s': the local cache has no preprocessor_config.json, and the hub cannot be asked whether there "
            "is one (%s). The front end follows from config.json; features may differ from those of a machine that "
            "has the file",
            name,
            error,
        )
        return cached


def _front_end_known(source: Source) -> bool:
    """Whether the cache has a front end's file, or the hub has said that there is none."""
    from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache

    found = [try_to_load_from_cache(source.name, file, revision=source.revision) for file in _FRONT_ENDS]
    return any(isinstance(path, str) for path in found) or all(path is _CACHED_NO_EXIST for path in found)


def _download(name: str, revision: str | None, weights: bool) -> Source:
    # An import of its own cost, only for those who use the hub.
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    patterns = _PATTERNS if weights else _JSON
    try:
        # Asked first because, unlike a download, it takes a time limit for a hub that does not answer.
        found = HfApi().model_info(name, revision=revision, timeout=_TIMEOUT)
        files = [f.rfilename for f in found.siblings or []]
        wanted = [f for f in files if any(fnmatch(f, pattern) for pattern in patterns)]
        for file in wanted:
            path = hf_hub_download(name, file, revision=revision, etag_timeout=_TIMEOUT)
        if not set(_FRONT_ENDS) & set(files):
            for file in _FRONT_ENDS:  # the client remembers what the hub does not have
                with contextlib.suppress(EntryNotFoundError):
                    hf_hub_download(name, file, revision=revision, etag_timeout=_TIMEOUT)
    except GatedRepoError:
        raise BackboneNotFound(
            f"backbone '{name}' is gated on the Hugging Face hub; accept its terms there and run `hf auth login`"
        ) from None
    except RevisionNotFoundError:
        raise BackboneNotFound(f"backbone '{name}' has no revision '{revision}' on the Hugging Face hub") from None
    except RepositoryNotFoundError:
        raise BackboneNotFound(
            f"backbone '{name}' is neither a directory here nor a public model on the Hugging Face hub; "
            "check the spelling (owner/name), or run `hf auth login` if it is private"
        ) from None
    except Exception as error:  # the hub's client lets through what its sockets, proxies and disks raise
        raise BackboneNotFound(
            f"backbone '{name}' is neither a directory here nor in the local cache, and the Hugging Face hub "
            f"cannot be reached ({_reason(error)}); connect, or run `hf download {name}` on a machine that "
            "is connected and pass the directory it prints"
        ) from None
    if "config.json" not in wanted:
        raise BackboneNotFound(f"'{name}' on the Hugging Face hub has no config.json, so it is no checkpoint")
    directory = Path(path).parent  # …/snapshots/<commit>
    return Source(name, directory, directory.name)


def _cached(name: str, revision: str | None, weights: bool) -> Source | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        directory = Path(snapshot_download(name, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, OSError, ValueError):
        return None
    complete = (directory / "config.json").is_file() and (not weights or any(directory.glob("*.safetensors")))
    return Source(name, directory, directory.name) if complete else None


def _reason(error: BaseException) -> str:
    """The first line of the innermost cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
