"""Metrics of several repeats: their mean, deviation, and each one's own, of the validation as of the test."""

from __future__ import annotations

import pytest

from trainables.loop import mean_of


@pytest.mark.parametrize("split", ["", "val/", "test/"])
def test_every_repeat_is_reported_beside_the_mean(split: str) -> None:
    found = mean_of([{f"{split}wer": 0.2, "train/loss": 1.0}, {f"{split}wer": 0.4, "train/loss": 3.0}], ["a", "b"])
    expected = {"wer": 0.3, "wer_std": 0.1, "wer/a": 0.2, "wer/b": 0.4}
    assert found == pytest.approx({**{f"{split}{name}": v for name, v in expected.items()}, "train/loss": 2.0})
