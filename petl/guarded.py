"""Files of a directory that a stranger made: read only where they lie, only what is plausible, and said in short."""

from __future__ import annotations

import json
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from petl.errors import UserError

_HEADER_LIMIT = 8 * 2**20  # bytes; a fully fine-tuned encoder of 24 layers has 60 thousand
_LONGEST = 1200  # characters of a message; what is quoted in it may be of any length
FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""Number formats of safetensors that adapters hold, and their bytes."""


def own_file(directory: Path, name: str) -> Path:
    """The file `name` of `directory`; `UserError` for none, for what is no file, and for a link that leads out of it.

    Links into the store of a Hugging Face cache are its way to keep files: `…/snapshots/<commit>/<name>` is one to
    `…/blobs/<digest>`.
    """
    path = directory / name
    try:
        home, real = directory.resolve(strict=True), path.resolve(strict=True)
        kind = real.stat().st_mode
    except (OSError, RuntimeError) as error:  # a loop of links is a RuntimeError
        raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or 'a loop of links'})") from None
    store = home.parent.parent / "blobs" if home.parent.name == "snapshots" else home
    if not (real.is_relative_to(home) or real.is_relative_to(store)):
        raise UserError(f"{path}: a link that leads out of its directory, to {real}; put a copy of the file there")
    if not stat.S_ISREG(kind):
        raise UserError(f"{path}: not a file")
    return path


def header(path: Path, limit: int) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and number format of every tensor of a safetensors file, none of them read.

    Raises `UserError` for a file beyond `limit` bytes, for one that is damaged, and for formats besides `FLOATS`.
    """
    from safetensors import SafetensorError, safe_open

    try:
        size = path.stat().st_size
        if size > limit:
            raise UserError(f"{path}: larger than {limit >> 30} GB, which no adapter of this method is")
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
        if length > size - 8:
            raise ValueError("cut off in its header")
        if length > _HEADER_LIMIT:
            raise ValueError(f"a header of {length:,} bytes")
        with safe_open(path, framework="pt") as tensors:
            slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118 - not a dictionary
            found = {name: (tuple(part.get_shape()), str(part.get_dtype())) for name, part in slices.items()}
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise UserError(f"{path}: not a complete safetensors file ({str(error)[:200]})") from None
    for name, (_, dtype) in found.items():
        if dtype not in FLOATS:
            raise UserError(f"{path}: {name!r} holds {dtype}; floating-point numbers are {', '.join(FLOATS)}")
    return found


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For `json.loads`: an object whose keys are all different. Of two values, readers would choose differently."""
    values = dict(pairs)
    if len(values) != len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {twice[:100]!r} is there twice")
    return values


def read_object(path: Path, limit: int, *, strict: bool = False) -> dict[str, Any]:
    """One JSON object of at most `limit` bytes; `strict` refuses keys that are there twice. Raises `UserError`."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise UserError(f"{path}: not a file")
        with path.open("rb") as file:
            content = file.read(limit + 1)
        if len(content) > limit:
            raise UserError(f"{path}: larger than {limit >> 20} MB, which no configuration is")
        value = json.loads(content.decode(), object_pairs_hook=unique if strict else None)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, numbers of thousands of digits, too deep
        raise UserError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(value, Mapping):
        raise UserError(f"{path}: holds a {type(value).__name__}, not an object with keys")
    return dict(value)


@contextmanager
def said_in_short() -> Iterator[None]:
    """Errors that quote what a stranger wrote: cut, and without characters that would steer a terminal."""
    try:
        yield
    except UserError as error:
        text = str(error)
        clean = _printable(text)
        if len(text) > _LONGEST:
            clean = f"{_printable(text[:_LONGEST])[:800]} … {_printable(text[-300:])[-300:]}"
        if clean == text:
            raise
        raise UserError(clean) from None


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)
