"""VoxPopuli: speeches in the European Parliament with transcripts (torch-free)."""

from __future__ import annotations

from pathlib import Path

from petl.errors import nearest
from trainables.data.clips import SPLIT_NAMES, Clip, audio_files
from trainables.data.datasets._files import folders, relative, tab_rows
from trainables.data.datasets._reading import tell
from trainables.data.datasets.base import Choice, Dataset, LayoutError, Protocol, Target, needed
from trainables.data.datasets.tables import Row, TableError, each

_SPLITS = ("train", "dev", "test")
_BASES = ("transcribed_data", "data", ".")


def read(root: Path, choice: Choice) -> list[Clip]:
    """List the utterances of one language with their normalised text; those whose text is empty are left out."""
    home = _home(root, choice.subset)
    needed(home, *(f"asr_{split}.tsv" for split in _SPLITS), dataset="voxpopuli")
    clips: list[Clip] = []
    total = 0
    for split in _SPLITS:
        table = home / f"asr_{split}.tsv"
        rows = tab_rows(table, required=("normalized_text",))
        key = next((name for name in ("id", "id_", "audio_id") if name in rows[0].values), None)
        if key is None:
            raise TableError(f"{table}: no column 'id'. Found: {', '.join(rows[0].values)}")
        found = _found(home / split)
        total += len(rows)
        clips += [clip for clip in each(rows, _Maker(home, root, split, key, found)) if clip.text]
    if len(clips) < total:
        tell(f"voxpopuli {choice.subset}: {total - len(clips)} of {total} utterances have no text and are left out")
    return clips


class _Maker:
    """Makes clips of the rows of one table."""

    def __init__(self, home: Path, root: Path, split: str, key: str, found: dict[str, Path]) -> None:
        self.home, self.root, self.split, self.key, self.found = home, root, split, key, found
        self.seen: dict[str, int] = {}

    def __call__(self, row: Row) -> Clip:
        name = row.text(self.key)
        if name in self.seen:
            raise row.error(f"'{name}' is listed already in row {self.seen[name]}")
        self.seen[name] = row.number
        if self.found:
            path = self.found.get(name, self.home / self.split / f"{name}.wav")
        else:
            path = self.home / name[:4] / f"{name}.ogg"  # names begin with the year
        speaker = row.optional_text("speaker_id")
        return Clip(
            path=path,
            name=relative(path, self.root),
            split=SPLIT_NAMES[self.split],
            text=row.optional_text("normalized_text"),
            speaker=None if speaker == "None" else speaker,
        )


def _found(folder: Path) -> dict[str, Path]:
    """Name -> file of a split as on the hub, where they lie in one folder per archive; nothing in the other layout."""
    if not folder.is_dir():
        return {}
    found = {path.stem: path for path in audio_files(folder)}
    archives = sorted(path.name for path in folder.glob("[!.]*.tar.gz"))
    if archives and not found:
        raise LayoutError(
            f"{folder} holds archives that are not unpacked yet ({archives[0]}, …): "
            f"for f in '{folder}'/*.tar.gz; do tar -xzf \"$f\" -C '{folder}'; done"
        )
    return found


def _home(root: Path, language: str) -> Path:
    known: list[str] = []
    for base in _BASES:
        if (root / base / language).is_dir():
            return root / base / language
        known += [folder.name for folder in folders(root / base) if (folder / "asr_train.tsv").is_file()]
    if known:
        raise LayoutError(
            f"{root} has no language '{language}' (data.subset){nearest(language, known)}; it has {', '.join(known)}"
        )
    raise LayoutError(f"{root} is not a copy of 'voxpopuli': there is no transcribed_data/{language}, data/{language}")


def looks_like(root: Path) -> bool:
    return any((folder / "asr_train.tsv").is_file() for base in _BASES for folder in folders(root / base)[:100])


DATASET = Dataset(
    name="voxpopuli",
    summary="VoxPopuli: speeches in the European Parliament, 16 languages with transcripts",
    layout=(
        "PATH/transcribed_data/en/asr_{train,dev,test}.tsv   id, raw_text, normalized_text, speaker_id, … by tabs\n"
        "PATH/transcribed_data/en/<year>/<id>.ogg            as its own scripts make it; or, as on the hub,\n"
        "PATH/data/en/asr_train.tsv and PATH/data/en/train/<archive>/<id>.wav with the archives unpacked"
    ),
    targets={"text": Target("speech_recognition", "what is said, normalised as published")},
    protocols={
        "standard": Protocol("the published splits"),
        "sure": Protocol("the same as standard, of en"),
    },
    read=read,
    looks_like=looks_like,
    subsets={"en": "English; any other language by its code, such as de, fr or pl"},
    any_subset=True,
    citation='C. Wang et al., "VoxPopuli: A Large-Scale Multilingual Speech Corpus", ACL 2021',
    licence="CC0; see also the legal notice of the European Parliament",
)
