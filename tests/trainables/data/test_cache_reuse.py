"""No file is decoded again because of what is said about it, or because of the company it is in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from petl.frontend import AstFrontEnd, FrontEnd, WaveformFrontEnd, clip_features
from tests.trainables.data.sounds import class_folders, tone
from tests.trainables.data.test_cache import clips, clips_in, small_shards
from trainables.data.cache import FeatureCache, open_cache
from trainables.data.clips import Clip
from trainables.data.digest import content_hashes, features_digest

__all__ = ["clips", "small_shards"]

pytestmark = pytest.mark.usefixtures("small_shards")


class Opener:
    """Opens caches as `open_data` does, and remembers what files held before they were spoilt."""

    def __init__(self, tmp_path: Path, front_end: FrontEnd | None = None) -> None:
        self._root, self._cache = tmp_path / "data", tmp_path / "cache"
        self._front_end = front_end or AstFrontEnd()
        self._known: dict[Path, str] = {}

    def spoil(self, spoilt: Sequence[Clip]) -> None:
        """Nobody who decodes these again gets what they were."""
        for clip, content in zip(spoilt, content_hashes(spoilt, self._root, self._cache), strict=True):
            self._known[clip.path] = content
            clip.path.write_bytes(b"spoilt")

    def __call__(self, clips: Sequence[Clip]) -> tuple[FeatureCache, int]:
        """The cache, and how many rows were written for it."""
        found = content_hashes(clips, self._root, self._cache)
        contents = [self._known.get(clip.path, content) for clip, content in zip(clips, found, strict=True)]
        told: list[int] = []
        digest = features_digest(clips, contents)
        cache = open_cache(
            clips,
            digest,
            self._front_end,
            self._cache,
            contents=contents,
            progress=lambda done, _: told.append(done),
        )
        return cache, len(told)


def test_other_labels_splits_and_names_share_the_cache(clips: list[Clip], tmp_path: Path) -> None:
    opener = Opener(tmp_path)
    first, written = opener(clips)
    assert written == 10
    opener.spoil(clips)
    others = [replace(clip, label="x", split="test", fold=3, group="g", text="hello", speaker="s") for clip in clips]
    second, written = opener(others)
    assert written == 0 and second.folder == first.folder


@pytest.mark.parametrize("front_end", [AstFrontEnd(), WaveformFrontEnd()], ids=lambda f: f.kind)
def test_a_subset_and_a_grown_folder_copy_what_exists(tmp_path: Path, front_end: FrontEnd) -> None:
    clips = clips_in(class_folders(tmp_path / "data", classes=2, clips=5))
    opener = Opener(tmp_path, front_end)
    whole, _ = opener(clips[:9])
    exact = [clip_features(clip.path, front_end) for clip in clips]
    opener.spoil(clips[:9])
    chosen = [8, 9, 1, 5, 0]  # in another order, and one that is new
    part, written = opener([clips[row] for row in chosen])
    assert written == 5 and part.folder != whole.folder and not part.bad
    for row, was in enumerate(chosen):
        stored = exact[was].half() if front_end.storage == "float16" else exact[was]
        assert torch.equal(part.row(row), stored)
        if was < 9:
            assert part.facts[row] == whole.facts[was]


def test_parts_of_recordings_are_told_apart(tmp_path: Path) -> None:
    path = tone(tmp_path / "data" / "a.wav", 1.0)
    clip = Clip(path=path, name="a.wav", label="x")
    opener = Opener(tmp_path)
    opener([replace(clip, start=0.0, end=0.5), clip])
    opener.spoil([clip])
    cache, _ = opener([clip, replace(clip, start=None, end=0.5), replace(clip, start=0.25, end=0.5)])
    assert list(cache.bad) == [2]
    assert cache.facts.frames.tolist() == [98, 48, 0]


def test_clips_that_failed_are_tried_again_and_other_front_ends_are_no_help(clips: list[Clip], tmp_path: Path) -> None:
    opener = Opener(tmp_path)
    good = clips[0].path.read_bytes()
    opener.spoil(clips[:1])
    assert list(opener(clips[:2])[0].bad) == [0]
    clips[0].path.write_bytes(good)
    assert not opener(clips)[0].bad
    opener.spoil(clips)
    assert len(Opener(tmp_path, AstFrontEnd(mel_bins=64))(clips)[0].bad) == 10


def test_a_damaged_neighbour_is_no_help_and_no_hindrance(clips: list[Clip], tmp_path: Path) -> None:
    opener = Opener(tmp_path)
    exact = [clip_features(clip.path, AstFrontEnd()).half() for clip in clips]
    first, _ = opener(clips)
    (first.folder / "000000000-000000002.arrow").write_bytes(b"")
    cache, _ = opener(clips[1:5])
    assert all(torch.equal(cache.row(row), exact[row + 1]) for row in range(4))
    (first.folder / "index.arrow").write_bytes(b"")
    cache, _ = opener(clips[:3])
    assert all(torch.equal(cache.row(row), exact[row]) for row in range(3))
