from __future__ import annotations

import ast
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.trainables.data.datasets.reading import clips_of, complaint, edit, published, sizes, splits_of
from tests.trainables.data.layouts import gtzan as layout
from trainables.data.datasets._gtzan_split import filtered


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return layout.write_whole(tmp_path_factory.mktemp("gtzan"))


def test_the_filtered_split_comes_along(whole: Path) -> None:
    parts = splits_of("gtzan", whole, protocol="aat")
    assert sizes(parts) == (443, 197, 290)
    assert {clip.label for clip in parts["val"]} == set(layout.GENRES)
    assert parts["train"][0].name == "genres_original/blues/blues.00029.wav"
    assert all(clip.path.is_file() for part in parts.values() for clip in part)


def test_it_is_the_split_that_torchaudio_has() -> None:
    """Read out of its source: importing it would load torch."""
    spec = find_spec("torchaudio")
    assert spec is not None and spec.origin is not None
    source = (Path(spec.origin).parent / "datasets" / "gtzan.py").read_text()
    lists = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.List)
    }
    names = (("train", "filtered_train"), ("val", "filtered_valid"), ("test", "filtered_test"))
    assert filtered() == {excerpt: split for split, name in names for excerpt in lists[name]}


def test_all_excerpts_are_drawn(whole: Path) -> None:
    parts = splits_of("gtzan", whole, subset="all")
    assert sizes(parts) == (600, 200, 200)
    assert Counter(clip.label for clip in parts["test"]) == dict.fromkeys(layout.GENRES, 20)


def test_the_first_publication_has_other_names(tmp_path: Path) -> None:
    layout.write_whole(tmp_path, "genres", ".au")
    clips = clips_of("gtzan", tmp_path)
    assert (len(clips), clips[0].name) == (930, "genres/blues/blues.00000.au")
    assert all(clip.path.is_file() for clip in clips)


def test_lists_in_the_folder_are_followed(tmp_path: Path) -> None:
    layout.write(tmp_path, audio=False)
    parts = splits_of("gtzan", tmp_path)
    assert sizes(parts) == (20, 10, 10)
    assert parts["test"][-1].name == "genres_original/rock/rock.00003.wav"

    edit(tmp_path / "train_filtered.txt", "blues/blues.00000.wav", "blue/blues.00000.wav")
    edit(tmp_path / "train_filtered.txt", "jazz/jazz.00001.wav", "jazz/jazz.00000.wav")
    said = complaint("gtzan", tmp_path)
    assert "train_filtered.txt: 2 problems" in said
    assert "row 1: 'blue/blues.00000.wav' is not <genre>/<genre>.<number>.wav with one of blues, " in said
    assert "row 12: 'jazz/jazz.00000.wav' is listed already for train" in said
    (tmp_path / "valid_filtered.txt").unlink()
    assert "no valid_filtered.txt; add what is missing, or remove them all" in complaint("gtzan", tmp_path)


def test_folders_that_are_missing(whole: Path, tmp_path: Path) -> None:
    assert "there is no folder genres_original or genres" in complaint("gtzan", tmp_path)
    (tmp_path / "genres_original" / "blues").mkdir(parents=True)
    assert "there is no folder 'classical' (the genres: blues, " in complaint("gtzan", tmp_path, subset="all")


def test_published_figures() -> None:
    figures = published("gtzan", subset="filtered")
    assert sum(figures.splits.values()) == figures.clips == len(filtered()) == 930
