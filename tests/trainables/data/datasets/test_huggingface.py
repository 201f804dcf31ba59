from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import datasets
import pyarrow as pa
import pytest
import soundfile
from pyarrow import parquet

from tests.trainables.data.datasets.reading import clips_of, complaint, sizes, splits_of
from tests.trainables.data.layouts import huggingface as layout
from trainables.data.clips import Clip
from trainables.data.datasets import _embedded_audio, dataset
from trainables.data.datasets.huggingface import _roles
from trainables.data.places import CACHE_VARIABLE

NAME = "huggingface"
_AUDIO = pa.struct({"bytes": pa.binary(), "path": pa.string()})


@pytest.fixture(autouse=True)
def _own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "library")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    datasets.disable_progress_bars()
    return layout.write(tmp_path_factory.mktemp("hf") / "saved")


def _told(clips: list[Clip]) -> list[tuple[object, ...]]:
    return [(c.name, c.label, c.labels, c.text, c.split, c.speaker) for c in clips]


def test_saved_to_disk(saved: Path, tmp_path: Path) -> None:
    clips = clips_of(NAME, saved)
    assert Counter(clip.split for clip in clips) == {"train": 12, "val": 6, "test": 6}
    first = next(clip for clip in clips if clip.split == "train")
    assert (first.name, first.label, first.speaker) == ("train/000000-000.wav", "lights_off", "0")
    assert first.path.is_relative_to(tmp_path / "cache" / "huggingface")
    assert first.path.read_bytes() == layout.encoded(0)
    assert soundfile.info(first.path).frames == 6400
    assert sizes(splits_of(NAME, saved)) == (12, 6, 6)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("label", ("lights_on", (), None)),
        ("labels", ("", ("lights_on", "volume_up"), None)),
        ("text", ("", (), "sentence 1")),
        ("speaker", ("0", (), None)),
    ],
)
def test_targets_find_their_column(saved: Path, target: str, expected: tuple[object, ...]) -> None:
    second = [clip for clip in clips_of(NAME, saved, target=target) if clip.split == "train"][1]
    assert (second.label, second.labels, second.text) == expected


def test_audio_is_written_once_and_whole(saved: Path, tmp_path: Path) -> None:
    before = {clip.path: clip.path.stat().st_mtime_ns for clip in clips_of(NAME, saved)}
    assert {clip.path: clip.path.stat().st_mtime_ns for clip in clips_of(NAME, saved)} == before
    folders = list((tmp_path / "cache" / "huggingface").iterdir())
    assert len(folders) == 3 and not any(folder.name.endswith(".tmp") for folder in folders)


def test_what_an_interruption_left_is_not_taken(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> str:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(_embedded_audio, "_file", full)
        assert "No space left on device" in complaint(NAME, saved)
    assert not list((tmp_path / "cache" / "huggingface").iterdir())
    assert len(clips_of(NAME, saved)) == 24


def test_parquet_in_the_layout_of_the_hub_says_the_same(saved: Path, tmp_path: Path) -> None:
    root = layout.write_parquet(tmp_path / "repository")
    clips = clips_of(NAME, root)
    assert _told(clips) == _told(clips_of(NAME, saved))
    assert [clip.path.read_bytes() for clip in clips[:3]] == [
        clip.path.read_bytes() for clip in clips_of(NAME, saved)[:3]
    ]
    assert dataset(NAME).looks_like(root)
    assert "BuilderConfig 'english' not found. Available: ['default']" in complaint(NAME, root, subset="english")


def test_parquet_that_was_written_without_the_library(tmp_path: Path) -> None:
    audio = [{"bytes": layout.encoded(n, kind), "path": None} for n, kind in enumerate(("WAV", "FLAC", "OGG", "MP3"))]
    (tmp_path / "set").mkdir()
    parquet.write_table(pa.table({"audio": audio, "label": ["a", "b", "a", "b"]}), tmp_path / "set" / "rows.parquet")
    clips = clips_of(NAME, tmp_path / "set")
    names = ["train/000000.wav", "train/000001.flac", "train/000002.ogg", "train/000003.mp3"]
    assert [(clip.name, clip.label, clip.split) for clip in clips] == [
        (name, label, None) for name, label in zip(names, "abab", strict=True)
    ]
    assert all(soundfile.info(clip.path).duration > 0.3 for clip in clips)


def test_another_column_is_named_with_the_subset(saved: Path) -> None:
    assert {clip.label for clip in clips_of(NAME, saved, subset=":transcription")} == {
        f"sentence {n}" for n in range(3)
    }
    said = complaint(NAME, saved, subset=":transcripton")
    assert "fits: use --data" not in said
    assert (
        "there is no column 'transcripton' (did you mean 'transcription'?); it has audio (Audio), intent_class" in said
    )
    assert "column 'tags' does not fit the target 'label'" in complaint(NAME, saved, subset=":tags")
    assert "was saved without configurations; leave 'en' out" in complaint(NAME, saved, subset="en:tags")
    assert "no column for the target 'phonemes' (looked for phonemes, phones, " in complaint(
        NAME, saved, target="phonemes"
    )


def test_rows_without_a_class_or_audio_are_named(tmp_path: Path) -> None:
    rows = layout.part(4, audio=False, intent_class=[0, -1, 1, 2])
    rows.save_to_disk(str(tmp_path / "d"))
    said = complaint(NAME, tmp_path / "d")
    assert f"{tmp_path / 'd'}: 1 problem" in said
    assert "all, row 1: 'intent_class' is missing or blank" in said
    rows = layout.part(2, audio=False)
    gone = rows.map(lambda row: {"audio": None}, features=rows.features)
    datasets.concatenate_datasets([rows, gone]).save_to_disk(str(tmp_path / "e"))
    assert "all, row 2: there is no audio" in complaint(NAME, tmp_path / "e")


def test_files_that_lie_beside_the_tables(tmp_path: Path) -> None:
    root = tmp_path / "set"
    root.mkdir()
    paths = ["sound/a.wav", str(root / "b.wav"), "../c.wav", "/etc/passwd"]
    table = pa.table(
        {"audio": pa.array([{"bytes": None, "path": path} for path in paths], _AUDIO), "label": list("abab")}
    )
    parquet.write_table(table, root / "rows.parquet")
    said = complaint(NAME, root)
    assert f"{root}: 2 problems\n  train, row 2: there is no audio, neither in the table nor as a file" in said
    parquet.write_table(table.slice(0, 2), root / "rows.parquet")
    assert [(clip.name, clip.path) for clip in clips_of(NAME, root)] == [
        ("train/000000-a.wav", root / "sound" / "a.wav"),
        ("train/000001-b.wav", root / "b.wav"),
    ]


@pytest.mark.parametrize(
    ("names", "roles"),
    [
        (["train"], {"train": None}),
        (["all"], {"all": None}),
        (["train", "validation", "test"], {"train": "train", "validation": "val", "test": "test"}),
        (["train", "validation"], {"train": "train", "validation": "test"}),
        (["train", "test", "unsupervised"], {"train": "train", "test": "test"}),
        (
            ["train.clean.100", "train.clean.360", "validation.clean", "test.other"],
            {"train.clean.100": "train", "train.clean.360": "train", "validation.clean": "val", "test.other": "test"},
        ),
        (["train.100", "train.360"], {"train.100": None, "train.360": None}),
    ],
)
def test_parts_by_name(names: list[str], roles: dict[str, str | None]) -> None:
    assert _roles(Path("d"), names) == roles


def test_no_part_trains(tmp_path: Path) -> None:
    datasets.DatasetDict(a=layout.part(1, audio=False), test=layout.part(1, audio=False)).save_to_disk(str(tmp_path))
    assert "none of its parts trains: a, test" in complaint(NAME, tmp_path)


def test_folds_and_selections(tmp_path: Path) -> None:
    rows = layout.part(12, audio=False, fold=[n % 3 + 1 for n in range(12)]).select(range(11, -1, -1))
    rows.save_to_disk(str(tmp_path))
    clips = clips_of(NAME, tmp_path)
    assert [clip.name for clip in clips][:2] == ["all/000000-011.wav", "all/000001-010.wav"]
    assert [clip.fold for clip in clips][:3] == [3, 2, 1]


def test_names_on_the_hub_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = complaint(NAME, Path("somebody/nothing_at_all"))
    assert "there is no folder 'somebody/nothing_at_all' here, and the data set 'somebody/nothing_at_all' could" in said
    assert "without one, give the folder of a copy" in said
    said = complaint(NAME, tmp_path / "no" / "where")
    assert f"{tmp_path / 'no' / 'where'} does not exist ('{tmp_path}' does)" in said


@pytest.mark.slow
def test_listing_loads_no_torch(saved: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from trainables.config import DataOptions; "
        "from trainables.data.datasets import read_clips, datasets; datasets(); assert 'datasets' not in sys.modules; "
        f"p = {str(saved)!r}; print(len(read_clips(DataOptions(dataset='huggingface', path=p), Path(p)))); "
        "sys.exit('torch' in sys.modules)"
    )
    environment = {**os.environ, CACHE_VARIABLE: str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "24"), done.stderr
