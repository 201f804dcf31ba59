from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.trainables.data.datasets.reading import clips_of, complaint, edit, published, sizes, splits_of
from tests.trainables.data.layouts import fluent_speech_commands as layout
from trainables.data.datasets import dataset

NAME = "fluent_speech_commands"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return layout.write(tmp_path_factory.mktemp("fsc"), audio=False)


def test_intents(root: Path) -> None:
    parts = splits_of(NAME, root)
    assert sizes(parts) == (16, 8, 8)
    assert Counter(clip.label for clip in parts["train"]) == {
        "change language, none, none": 4,
        "activate, lights, kitchen": 4,
        "deactivate, lights, bedroom": 4,
        "increase, volume, none": 4,
    }
    assert {clip.speaker for clip in parts["train"]} == set(layout.SPEAKERS["train"])
    first = parts["val"][0]
    assert first.name == "wavs/speakers/5o9BvRGEGvhaeBwA/00000000-4474-11e9-a9a5-5dbec3b8816a.wav"
    assert first.path.is_file()
    assert (first.labels, first.text) == ((), None)


def test_slots_in_the_order_of_the_target(root: Path) -> None:
    clips = clips_of(NAME, root, target="slots", protocol="sure")
    assert dataset(NAME).targets["slots"].slots == ("action", "object", "location")
    assert {clip.labels for clip in clips} == {tuple(values) for _, *values in layout.SAID}
    assert {clip.label for clip in clips} == {""}


def test_the_unpacked_folder_itself_will_do(root: Path) -> None:
    assert clips_of(NAME, root / "fluent_speech_commands_dataset") == clips_of(NAME, root)


def test_published_figures() -> None:
    assert sum(published(NAME, "intent").splits.values()) == 30043


def test_tables_that_are_missing_or_wrong(tmp_path: Path) -> None:
    home = layout.write(tmp_path, audio=False) / "fluent_speech_commands_dataset"
    edit(home / "data" / "train_data.csv", "activate,lights", "activate,light")
    edit(home / "data" / "train_data.csv", "Turn it up,increase", "Turn it up,")
    said = complaint(NAME, tmp_path)
    assert "row 3: 'object' is 'light', which is not known (did you mean 'lights'?)" in said
    assert "row 5: 'action' is missing or blank" in said
    (home / "data" / "valid_data.csv").unlink()
    said = complaint(NAME, tmp_path)
    assert f"{home} is not a copy of '{NAME}': there is no data/valid_data.csv" in said
