"""Data for a model that is trained already: the same answers are asked for, in the model's order."""

from __future__ import annotations

from pathlib import Path

import pytest

from petl.errors import UserError
from petl.frontend import WaveformFrontEnd
from tests.trainables.data.layouts.recordings import text
from tests.trainables.data.sounds import tone
from trainables.config import DataOptions, TrialConfig
from trainables.data import AudioData, open_data

_SPLITS = ["train"] * 8 + ["val"] * 2 + ["test"] * 4


def _data(root: Path, header: str, rows: list[str], target: str) -> AudioData:
    for number in range(len(_SPLITS)):
        tone(root / f"{number}.wav", 0.05, pitch=300 + 50 * number, seed=number)
    lines = [f"{n}.wav,{split},{row}" for n, (split, row) in enumerate(zip(_SPLITS, rows, strict=True))]
    text(root / "manifest.csv", "\n".join([f"path,split,{header}", *lines]) + "\n")
    return open_data(DataOptions(dataset="manifest", path=str(root), target=target), WaveformFrontEnd())


def _slots(root: Path, *columns: str) -> AudioData:
    """Slots of clip n: the last bits of n, as yes and no."""
    bit = {"light": 0, "door": 1, "heating": 2}
    rows = [",".join(("no", "yes")[n >> bit[column] & 1] for column in columns) for n in range(len(_SPLITS))]
    return _data(root, ",".join(f"slot:{column}" for column in columns), rows, "slots")


def test_slots_in_another_order_are_put_into_the_models(tmp_path: Path) -> None:
    learned = _slots(tmp_path / "a", "light", "door", "heating")
    other = _slots(tmp_path / "b", "heating", "light", "door")
    assert other.clips("test")[0].labels == ("no", "no", "yes")  # 10 is 1010
    other = other.answered_with(learned.output)
    assert [clip.labels for clip in other.clips("test")] == [clip.labels for clip in learned.clips("test")]
    assert other.output == learned.output and other.plan.target.slots == ("light", "door", "heating")
    options = TrialConfig().train
    asked, right = (d.task(options).targets(d.clips("test")).values["classes"] for d in (other, learned))
    assert asked.tolist() == right.tolist()


def test_other_slots_are_refused(tmp_path: Path) -> None:
    learned = _slots(tmp_path / "a", "light", "door")
    with pytest.raises(UserError, match="labels the adapter does not know: heating=no"):
        _slots(tmp_path / "b", "light", "heating").answered_with(learned.output)
    with pytest.raises(UserError, match="has the slots door, but the adapter answers light, door"):
        _slots(tmp_path / "c", "door").answered_with(learned.output)


def test_an_adapter_of_phones_is_not_asked_for_characters(tmp_path: Path) -> None:
    rows = ["hello world,HH AH L OW"] * len(_SPLITS)
    phones = _data(tmp_path / "a", "text,phonemes", rows, "phonemes")
    letters = open_data(phones.options.model_copy(update={"target": "text"}), WaveformFrontEnd())
    with pytest.raises(UserError, match=r"learned are its characters \('text'\), but the adapter answers with phones"):
        letters.answered_with(phones.output)
    assert phones.answered_with(phones.output) is phones
