"""Any audio data set of the `datasets` library: saved, as Parquet in the hub's layout, or a name on the hub.

The library is imported only when such data are listed; importing this module needs neither it nor torch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from petl.errors import UserError
from trainables.data.clips import SPLIT_NAMES, Clip
from trainables.data.datasets._embedded_audio import audio_files_of
from trainables.data.datasets._features import Columns
from trainables.data.datasets._reading import refuse, tell
from trainables.data.datasets._speakers import speakers_apart
from trainables.data.datasets.base import Choice, Dataset, LayoutError, Protocol, Target, existing
from trainables.data.places import default_cache_root

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_SAVED = ("dataset_dict.json", "state.json")


def read(root: Path, choice: Choice) -> list[Clip]:
    """List the rows of every split; `choice.subset` is "CONFIGURATION", "CONFIGURATION:COLUMN" or ":COLUMN".

    Audio that is kept inside of the tables is written once, as files, into the cache folder.
    """
    configuration, _, column = choice.subset.partition(":")
    parts = _load(root, configuration)
    roles = _roles(root, list(parts))
    wrong: list[str] = []
    clips = []
    for name, rows in parts.items():
        if name in roles:
            clips += _split(root, name, rows, roles[name], choice.target, column, wrong)
    if wrong:
        refuse(root, wrong)
    return clips


def _split(
    root: Path, name: str, rows: Any, split: str | None, target: str, column: str, wrong: list[str]
) -> list[Clip]:
    """The clips of one part; what is wrong with its rows is added to `wrong`."""
    if rows._indices is not None:  # a selection: its tables hold rows that are not in it
        rows = rows.flatten_indices()
    columns = Columns(root, rows, target, column)
    files = audio_files_of(rows, columns.audio, root, default_cache_root() / "huggingface")
    learned = columns.learned()
    speakers, groups, folds = columns.speakers(), columns.texts("group"), columns.folds() if split is None else None
    clips = []
    for number, file in enumerate(files):
        value = learned[number]
        if file is None or isinstance(value, str):
            lacking = "there is no audio, neither in the table nor as a file in the data set"
            wrong.append(f"{name}, row {number}: {value if isinstance(value, str) else lacking}")
            continue
        clips.append(
            Clip(
                path=file,
                name=f"{name}/{file.name if file.name.startswith(f'{number:06d}') else f'{number:06d}-{file.name}'}",
                split=split,
                fold=folds[number] if folds else None,
                group=groups[number] if groups else None,
                speaker=speakers[number] if speakers else None,
                **value,
            )
        )
    return clips


def _load(root: Path, configuration: str) -> dict[str, Any]:
    """Name of a part -> its rows; the whole has the name "all" where it is saved without parts."""
    library = _library()
    saved = any((root / name).is_file() for name in _SAVED)
    if not saved and not root.exists() and not (_HUB_NAME.fullmatch(root.as_posix())):
        existing(root, "huggingface")
    try:
        if saved:
            if configuration:
                raise LayoutError(
                    f"{root} was saved without configurations; leave '{configuration}' out of data.subset"
                )
            loaded = library.load_from_disk(str(root))
        else:
            loaded = library.load_dataset(str(root), configuration or None)
    except ValueError as error:
        raise UserError(
            f"{root}: {_first_line(error)}. A configuration is given as data.subset=CONFIGURATION"
        ) from None
    except (OSError, RuntimeError, ImportError, library.exceptions.DatasetsError) as error:
        if root.exists():
            raise LayoutError(f"{root} cannot be loaded as a Hugging Face data set: {_first_line(error)}") from None
        raise UserError(
            f"there is no folder '{root}' here, and the data set '{root.as_posix()}' could not be had from the hub: "
            f"{_first_line(error)}. Check the name and the connection; without one, give the folder of a copy "
            "(a download of the repository, or what save_to_disk wrote)"
        ) from None
    return dict(loaded) if isinstance(loaded, dict) else {"all": loaded}


def _library() -> ModuleType:
    try:
        import datasets
    except ImportError:
        raise UserError("dataset 'huggingface' needs the package 'datasets': pip install datasets") from None
    return datasets


def _first_line(error: BaseException) -> str:
    error = error.__cause__ or error  # the library wraps what went wrong into "An error occurred"
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _roles(root: Path, names: Sequence[str]) -> dict[str, str | None]:
    """Part -> train, val or test, or None where all of it is to be split here; parts without a role are left out.

    A part is known by the first word of its name ("test.clean" tests). Without any test part, the validation part
    tests, and the validation is cut from train as usual.
    """
    known = {name: SPLIT_NAMES.get(re.split(r"[^a-z]", name.lower())[0]) for name in names}
    roles = {name: split for name, split in known.items() if split is not None}
    found = set(roles.values())
    if len(names) == 1:
        return dict.fromkeys(names)
    if "train" not in found:
        raise LayoutError(f"{root}: none of its parts trains: {', '.join(names)}")
    others = [name for name in names if name not in roles]
    if others:
        tell(f"{root}: its parts {', '.join(others)} are left out; they are for no split")
    if found == {"train"}:
        return dict.fromkeys(roles)
    if "test" not in found:
        tell(f"{root}: it has no test part, so that the validation part is the test, and val is cut from train")
        return {name: "test" if split == "val" else split for name, split in roles.items()}
    return {**roles}


def looks_like(root: Path) -> bool:
    if any((root / name).is_file() for name in _SAVED):
        return True
    return any(
        not file.name.startswith(("manifest.", "."))
        for place in (root, root / "data")
        for file in place.glob("*.parquet")
    )


DATASET = Dataset(
    name="huggingface",
    summary="any audio data set of the Hugging Face datasets library",
    layout=(
        "PATH is what save_to_disk wrote, or a download of the repository (Parquet files in it or in data/), or a\n"
        "name on the hub, such as user/name\n"
        "Its one audio column is found by its type; what is learned, by the usual names of columns (label, class,\n"
        "category, intent, emotion; labels, tags; text, sentence, transcription; speaker, speaker_id, client_id; …).\n"
        "data.subset=CONFIGURATION picks one of several; data.subset=CONFIGURATION:COLUMN, or :COLUMN, another column."
    ),
    targets={
        "label": Target("classification", "a column with one class for every clip"),
        "labels": Target("tagging", "a column with a list of tags"),
        "text": Target("speech_recognition", "a column with what is said"),
        "speaker": Target("verification", "a column with who speaks: whether two clips are of one speaker"),
        "phonemes": Target("phonemes", "a column with phonemes, a list or parted by blanks"),
    },
    protocols={
        "standard": Protocol(
            "its own train, validation and test parts (a validation part tests where there is no test part; a missing "
            "val is cut from train); all three drawn where there is but one part",
            speakers_apart,
        )
    },
    read=read,
    looks_like=looks_like,
    any_subset=True,
)
