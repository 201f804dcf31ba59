"""The data sets by name: what each says about itself, and what is said when something else was meant."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from petl.errors import ConfigError
from tests.trainables.data.datasets.reading import complaint
from tests.trainables.data.sounds import tone
from trainables.config import DATASETS, EMBEDDED, DataOptions
from trainables.data.clips import SPLITS
from trainables.data.datasets import chosen, dataset, datasets, read_clips

_WITH_LAYOUT = [name for name in DATASETS if name != EMBEDDED]
_VAGUE = ("folder", "manifest")  # what people's own data look like; nearly everything looks like a folder


def test_a_path_that_is_not_there_says_which_part_is(tmp_path: Path) -> None:
    for name in _WITH_LAYOUT:
        said = complaint(name, tmp_path / "no" / "where")
        assert f"{tmp_path / 'no' / 'where'} does not exist ('{tmp_path}' does)" in said


def test_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match=r"\(did you mean 'esc50'\?\); allowed: embedded, audioset, audio_snips, esc50"
    ):
        dataset("esc5")


def test_every_data_set_describes_itself() -> None:
    assert {entry.name for entry in datasets()} == set(DATASETS)
    for entry in datasets():
        assert dataset(entry.name) is entry
        assert entry.summary and entry.layout and entry.targets and "standard" in entry.protocols
        assert not entry.protocols["standard"].reads_test
        assert all(len(line) <= 120 for line in entry.layout.splitlines())
        for figures in entry.expected:
            assert figures.source
            assert figures.target in ("", *entry.targets) and figures.subset in ("", *entry.subsets)
            assert set(figures.splits) <= set(SPLITS)
            if figures.clips and figures.splits:
                assert sum(figures.splits.values()) == figures.clips
            if figures.clips and figures.folds:
                assert sum(figures.folds.values()) == figures.clips


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"target": "sond"}, r"data.target is 'sond' \(did you mean 'sound'\?\); 'esc50' has sound"),
        ({"subset": "esc5"}, r"data.subset is 'esc5' \(did you mean 'esc50'\?\); 'esc50' has esc50, esc10"),
        ({"protocol": "sure"}, r"data.protocol is 'sure'; 'esc50' has standard, petl_ast, aat"),
    ],
)
def test_what_a_data_set_does_not_have(asked: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        chosen(DataOptions.model_validate({"dataset": "esc50", "path": "x", **asked}))


@pytest.mark.parametrize("name", _WITH_LAYOUT)
def test_a_copy_looks_like_its_own_data_set_and_can_be_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PETL_CACHE", str(tmp_path / "cache"))
    root = import_module(f"tests.trainables.data.layouts.{name}").write(tmp_path / "copy", audio=False)
    looks = {other for other in _WITH_LAYOUT if dataset(other).looks_like(root)}
    assert name in looks and looks - {name} <= {*_VAGUE}
    asked = DataOptions.model_validate({"dataset": name, "path": str(root)})
    clips = read_clips(asked, root)
    assert clips == read_clips(asked, root)
    assert len({clip.order for clip in clips}) == len(clips)


def test_listing_needs_no_torch(tmp_path: Path) -> None:
    tone(tmp_path / "a" / "x.wav", 0.1)
    code = (
        "import sys; from pathlib import Path; from trainables.config import DataOptions; "
        "from trainables.data.datasets import datasets, read_clips; datasets(); "
        f"p = {str(tmp_path)!r}; read_clips(DataOptions(dataset='folder', path=p), Path(p)); "
        "sys.exit('torch' in sys.modules or 'ray' in sys.modules or 'datasets' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
