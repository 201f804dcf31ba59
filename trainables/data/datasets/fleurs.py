"""FLEURS: sentences read in 102 languages (torch-free)."""

from __future__ import annotations

import re
from pathlib import Path

from petl.errors import nearest
from trainables.data.clips import SPLIT_NAMES, Clip
from trainables.data.datasets._files import extracted, folders, relative, tab_rows
from trainables.data.datasets._reading import refuse, tell
from trainables.data.datasets.base import Choice, Dataset, Expected, LayoutError, Protocol, Target, needed

_COLUMNS = ("id", "file", "raw", "text", "characters", "samples", "gender")  # the tables have no header
_SPLITS = ("train", "dev", "test")
_LANGUAGE = re.compile(r"[a-z]{2,3}(_[a-z0-9]+)+")


def read(root: Path, choice: Choice) -> list[Clip]:
    """List the recordings of one language; the text is the published one in lower case and without punctuation."""
    home = _home(root, choice.subset)
    needed(home, *(f"{split}.tsv" for split in _SPLITS), dataset="fleurs")
    clips: dict[str, Clip] = {}
    wrong: list[str] = []
    empty = 0
    for split in _SPLITS:
        folder = home / "audio" / split
        extracted(folder, {home / "audio" / f"{split}.tar.gz": home / "audio"})
        for row in tab_rows(home / f"{split}.tsv", _COLUMNS):
            text = row.optional_text("text")
            path = folder / row.text("file")
            clip = Clip(path=path, name=relative(path, root), split=SPLIT_NAMES[split], text=text)
            if text is None:
                empty += 1
            elif clips.setdefault(clip.name, clip) != clip:
                wrong.append(f"{split}.tsv, row {row.number}: {path.name} is listed already, with another text")
    if wrong:
        refuse(home, wrong)
    if empty:
        tell(f"fleurs {choice.subset}: {empty} of {empty + len(clips)} recordings have an empty text and are left out")
    return list(clips.values())


def _home(root: Path, language: str) -> Path:
    places = (root / language, root / "data" / language, root if root.name == language else None)
    for place in places:
        if place is not None and place.is_dir():
            return place
    known = [folder.name for base in (root, root / "data") for folder in folders(base) if _is_language(folder)]
    if known:
        raise LayoutError(
            f"{root} has no language '{language}' (data.subset){nearest(language, known)}; it has {', '.join(known)}"
        )
    raise LayoutError(f"{root} is not a copy of 'fleurs': there is no folder {language} and no data/{language}")


def _is_language(folder: Path) -> bool:
    return bool(_LANGUAGE.fullmatch(folder.name)) and (folder / "train.tsv").is_file()


def looks_like(root: Path) -> bool:
    return any(_is_language(folder) for base in (root, root / "data") for folder in folders(base)[:200])


DATASET = Dataset(
    name="fleurs",
    summary="FLEURS: sentences of an encyclopaedia read in 102 languages",
    layout=(
        "PATH/en_us/{train,dev,test}.tsv      no header: id, file, text as written, normalised text, …\n"
        "PATH/en_us/audio/{train,dev,test}/*.wav\n"
        "or both below PATH/data, as on the Hugging Face hub, with the archives in audio/ unpacked"
    ),
    targets={"text": Target("speech_recognition", "what is read, in lower case without punctuation")},
    protocols={
        "standard": Protocol("the published splits: no sentence in two of them"),
        "sure": Protocol("the same as standard, of en_us"),
    },
    read=read,
    looks_like=looks_like,
    subsets={"en_us": "English (United States); any other language by its code, such as de_de or cmn_hans_cn"},
    any_subset=True,
    expected=(Expected("text", "en_us", 3643, None, {"train": 2602, "val": 394, "test": 647}, source="logs of SURE"),),
    citation='A. Conneau et al., "FLEURS: Few-shot Learning Evaluation of Universal Representations of Speech", 2022',
    licence="CC BY 4.0",
)
