"""Miniature copies of every data set, and what can be asked of each: one table for whatever all of them have to do."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.trainables.data.layouts import esd, folder, huggingface, librispeech, manifest
from tests.trainables.data.layouts.recordings import recording
from trainables.config import DataOptions
from trainables.data.datasets import dataset, datasets
from trainables.metric_names import METRICS, metric_of

REFUSED = {("vctk", "text", "sure")}
"""Target and protocol that do not go together, and are refused with words of their own."""


@dataclass(frozen=True)
class Case:
    """One way to use a data set. `copy` names the miniature that has what is needed for it."""

    name: str
    target: str
    subset: str
    protocol: str

    def __str__(self) -> str:
        return "-".join(part for part in (self.name, self.target, self.subset, self.protocol) if part)

    @property
    def copy(self) -> str:
        match self:
            case Case("folder", "speaker"):
                return "folder-speakers"
            case Case("manifest", _, _, "petl_ast"):
                return "manifest-folds"
            case Case("esd", "speaker", "chinese"):
                return "esd-chinese"
            case Case("librispeech") if self.subset != "clean-100":
                return "librispeech-whole"
            case Case("vctk", "verification", _, "sure"):
                return "vctk-long"
        return self.name

    @property
    def task(self) -> str:
        return dataset(self.name).targets[self.target].task

    @property
    def reads_test(self) -> bool:
        return dataset(self.name).protocols[self.protocol].reads_test

    @property
    def sequence(self) -> bool:
        return self.task in ("speech_recognition", "phonemes", "slot_filling")

    @property
    def monitor(self) -> tuple[str, str]:
        metric = metric_of(self.task)
        return metric, METRICS[metric].mode

    def flat(self, root: Path) -> dict[str, Any]:
        """The data part of a trial's configuration."""
        if self == EMBEDDED_CASE:
            return {"dataset": self.name}
        found = {"dataset": self.name, "data": str(root), "data.target": self.target, "data.protocol": self.protocol}
        if self.subset:
            found["data.subset"] = self.subset
        if (self.name, self.target) == ("librispeech", "phonemes"):
            found["data.lexicon"] = str(root / "librispeech-lexicon.txt")
        return found

    def options(self, root: Path, **more: Any) -> DataOptions:
        found = {key.removeprefix("data."): value for key, value in self.flat(root).items()}
        return DataOptions.model_validate({"path": found.pop("data"), **found, **more})


EMBEDDED_CASE = Case("embedded", "sound", "", "standard")
"""The task that the project makes itself, at `PETL_CACHE`; it takes seconds."""


def cases() -> list[Case]:
    """Everything that can be asked of the data sets that people bring, the defaults of each first."""
    found = [
        Case(known.name, target, subset, protocol)
        for known in datasets()
        if known.name != EMBEDDED_CASE.name
        for target in known.targets
        for subset in known.subsets or ("",)
        for protocol in known.protocols
    ]
    return [case for case in found if (case.name, case.target, case.protocol) not in REFUSED]


def defaults() -> list[Case]:
    """One case for each data set: its first target and subset, and the standard protocol."""
    found: dict[str, Case] = {}
    for case in cases():
        found.setdefault(case.name, case)
    return list(found.values())


def write(copy: str, root: Path) -> Path:
    """A miniature with its audio."""
    if copy in _COPIES:
        return _COPIES[copy](root)
    written: Path = import_module(f"tests.trainables.data.layouts.{copy}").write(root)
    return written


def _folder_speakers(root: Path) -> Path:
    return folder.write(root, classes=8, clips=3)


def _manifest_folds(root: Path) -> Path:
    """Folds for splits; the speakers of one fold are in the others, too."""
    table = manifest.write(root) / "manifest.csv"
    head, *rows = table.read_text().splitlines()
    numbered = [f"{row.rpartition(',')[0]},{place // 3 % 4 + 1}" for place, row in enumerate(rows)]
    by_speaker = [row.replace(f"speaker{i // 3 % 4}", f"speaker{i % 3}") for i, row in enumerate(numbered)]
    table.write_text("\n".join([head.replace(",split", ",fold"), *by_speaker]) + "\n")
    return root


def _esd_chinese(root: Path) -> Path:
    """Two speakers of that half."""
    esd.write(root)
    for path in sorted((root / "0001").rglob("*.wav")):
        place = root / "0002" / path.relative_to(root / "0001").with_name(path.name.replace("0001_", "0002_", 1))
        recording(place, True, pitch=500, seed=int(path.stem[-4:]))
    return root


def _librispeech_whole(root: Path) -> Path:
    """Every part that a subset needs, those that the miniature lacks being copies of those that it has."""
    home = librispeech.write(root) / "LibriSpeech"
    for part in ("train-clean-360", "train-other-500", "dev-other", "test-other"):
        kind = part.partition("-")[0]
        shutil.copytree(home / ("train-clean-100" if kind == "train" else f"{kind}-clean"), home / part)
    return root


def _vctk_long(root: Path) -> Path:
    """Two speakers who are trained on, with more recordings than the 50 that protocol sure keeps, and two others."""
    for place, (speaker, count) in enumerate((("p225", 54), ("p226", 54), ("p360", 4), ("p361", 4))):
        for number in range(1, count + 1):
            path = root / "wav48" / speaker / f"{speaker}_{number:03d}.wav"
            recording(path, True, pitch=200 + 150 * place, seed=100 * place + number)
    return root


def _huggingface(root: Path) -> Path:
    """With phonemes, too."""
    import datasets as hub

    hub.disable_progress_bars()
    parts, first = {}, 0
    for name, count in (("train", 12), ("validation", 6), ("test", 6)):
        phones = [["S", "EH", "N", "T"], ["AH", "N", "S"], ["T", "EH", "N", "S"]]
        spoken = [" ".join(phones[number % 3]) for number in range(first, first + count)]
        parts[name] = huggingface.part(count, first, phonemes=spoken)
        first += count
    hub.DatasetDict(parts).save_to_disk(str(root))
    return root


_COPIES: dict[str, Callable[[Path], Path]] = {
    "folder-speakers": _folder_speakers,
    "manifest-folds": _manifest_folds,
    "esd-chinese": _esd_chinese,
    "librispeech-whole": _librispeech_whole,
    "vctk-long": _vctk_long,
    "huggingface": _huggingface,
}
