"""Building: goes on where it was interrupted, once for all who wait, and again for what is damaged only."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from petl.frontend import clip_features
from tests.trainables.data.sounds import class_folders
from tests.trainables.data.test_cache import FRONT_END, clips, clips_in, opened, small_shards
from trainables.data.cache import FeatureCache
from trainables.data.clips import Clip
from trainables.data.places import CacheError

__all__ = ["clips", "small_shards"]

pytestmark = pytest.mark.usefixtures("small_shards")

SHARDS = ["000000000-000000002.arrow", "000000003-000000005.arrow", "000000006-000000008.arrow"]


def _folder(tmp_path: Path) -> Path:
    [folder] = [f for f in (tmp_path / "cache" / "features").iterdir() if f.is_dir()]
    return folder


def _names(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in _folder(tmp_path).iterdir())


def _stop_at(clip: int) -> Callable[[int, int], None]:
    def stop(done: int, _: int) -> None:
        if done == clip:
            raise KeyboardInterrupt

    return stop


def _other_process(tmp_path: Path, at_clip: int) -> subprocess.Popen[str]:
    """Another process that builds, says so at a clip, and goes on when it is written to."""
    code = (
        "import sys; from pathlib import Path; from trainables.data import cache_build\n"
        "from tests.trainables.data.test_cache import clips_in, opened\n"
        "cache_build._SHARD_BYTES = 10_000\n"
        "told = []\n"
        "def progress(done, total):\n"
        "    told.append(done)\n"
        f"    if done == {at_clip}: print('here', flush=True); sys.stdin.readline()\n"
        f"tmp_path = Path({str(tmp_path)!r})\n"
        "opened(clips_in(tmp_path / 'data'), tmp_path, workers=1, progress=progress)\n"
        "print(len(told))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "here\n"
    return process


class _Waiting(threading.Thread):
    """Opens the cache meanwhile."""

    def __init__(self, clips: list[Clip], tmp_path: Path) -> None:
        super().__init__()
        self._clips, self._tmp_path = clips, tmp_path
        self.told: list[tuple[int, int]] = []
        self.cache: FeatureCache | None = None
        self.start()

    def run(self) -> None:
        self.cache = opened(self._clips, self._tmp_path, progress=lambda *told: self.told.append(told))

    def until_told(self) -> None:
        ends = time.monotonic() + 60
        while not self.told and time.monotonic() < ends:
            time.sleep(0.02)


def _spoil(clips: list[Clip]) -> None:
    """Nobody who reads these again would get what they were."""
    for clip in clips:
        clip.path.write_bytes(b"spoilt")


def test_a_killed_build_frees_its_lock_and_is_gone_on_with(clips: list[Clip], tmp_path: Path) -> None:
    exact = [clip_features(clip.path, FRONT_END).half() for clip in clips]
    process = _other_process(tmp_path, at_clip=8)  # two shards are finished, the third has two rows
    waiting = _Waiting(clips, tmp_path)
    waiting.until_told()
    assert waiting.told == [(6, 10)]  # what the other one has finished
    assert _names(tmp_path) == [*SHARDS[:2], f"6.{process.pid}.tmp"]
    _spoil(clips[:6])
    process.kill()
    process.communicate()
    waiting.join(60)
    assert waiting.told == [(done, 10) for done in (6, 7, 8, 9, 10)]
    assert waiting.cache is not None
    for row, expected in enumerate(exact):
        assert torch.equal(waiting.cache.row(row), expected)
    assert _names(tmp_path) == [*SHARDS, "000000009-000000009.arrow", "index.arrow"]


def test_two_processes_build_once(clips: list[Clip], tmp_path: Path) -> None:
    process = _other_process(tmp_path, at_clip=4)
    waiting = _Waiting(clips, tmp_path)
    waiting.until_told()
    assert waiting.told == [(3, 10)]
    said, _ = process.communicate("go on\n", timeout=60)
    waiting.join(60)
    assert said == "10\n"
    assert all(done in (3, 6, 9, 10) for done, _ in waiting.told)  # whole shards: none of it its own work
    assert waiting.cache is not None and not waiting.cache.bad
    assert torch.equal(waiting.cache.row(9), clip_features(clips[9].path, FRONT_END).half())


def test_many_threads_build_once(clips: list[Clip], tmp_path: Path) -> None:
    told: list[int] = []
    found: list[FeatureCache] = []

    def work() -> None:
        found.append(opened(clips, tmp_path, workers=1, progress=lambda done, _: told.append(done)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(told)) == len(clips) and len(told) - len(clips) <= 3 * 4  # each waiting one hears of each shard


@pytest.mark.parametrize("at", [1, 3, 4, 9, 10])
def test_an_interrupted_build_is_gone_on_with(clips: list[Clip], tmp_path: Path, at: int) -> None:
    whole = opened(clips, tmp_path / "whole").folder
    with pytest.raises(KeyboardInterrupt):
        opened(clips, tmp_path, progress=_stop_at(at))
    finished = (at - 1) // 3
    assert _names(tmp_path) == SHARDS[:finished]  # and no index: this is no cache
    _spoil(clips[: 3 * finished])
    told: list[int] = []
    opened(clips, tmp_path, progress=lambda done, _: told.append(done))
    assert told == list(range(3 * finished + 1, 11))
    for path in whole.iterdir():
        assert path.read_bytes() == (_folder(tmp_path) / path.name).read_bytes()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def _longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


def _no_footer(path: Path) -> None:
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[: size // 2] + bytes(size - size // 2))


def _empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [_cut, _longer, _no_footer, _empty, Path.unlink])
def test_only_the_damaged_shard_is_built_again(
    clips: list[Clip], tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    before = {path.name: path.read_bytes() for path in opened(clips, tmp_path).folder.iterdir()}
    _spoil([*clips[:3], *clips[6:]])
    damage(_folder(tmp_path) / SHARDS[1])
    told: list[int] = []
    opened(clips, tmp_path, progress=lambda done, _: told.append(done))
    assert told == [8, 9, 10]
    assert {path.name: path.read_bytes() for path in _folder(tmp_path).iterdir()} == before


@pytest.mark.parametrize("damage", [_cut, _longer, _no_footer, _empty, Path.unlink])
def test_a_damaged_index_costs_no_decoding(clips: list[Clip], tmp_path: Path, damage: Callable[[Path], None]) -> None:
    before = {path.name: path.read_bytes() for path in opened(clips, tmp_path).folder.iterdir()}
    damage(_folder(tmp_path) / "index.arrow")
    _spoil(clips)
    told: list[int] = []
    opened(clips, tmp_path, progress=lambda done, _: told.append(done))
    assert told == []
    assert {path.name: path.read_bytes() for path in _folder(tmp_path).iterdir()} == before


def test_shards_of_another_version_are_built_again(
    clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = opened(clips, tmp_path).folder
    good = (folder / SHARDS[0]).read_bytes()
    (folder / "stray.arrow").write_bytes(good)
    monkeypatch.setattr("trainables.data.cache_build.VERSION", 3)
    monkeypatch.setattr("trainables.data.cache.VERSION", 3)
    told: list[int] = []
    cache = opened(clips, tmp_path, progress=lambda done, _: told.append(done))
    assert len(told) == len(clips)
    assert _names(tmp_path) == [*SHARDS, "000000009-000000009.arrow", "index.arrow"]
    assert torch.equal(cache.row(4), clip_features(clips[4].path, FRONT_END).half())


def test_a_disk_that_fills_up_meanwhile(clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file size limit stands for the full disk: writing the third shard fails."""
    monkeypatch.setattr("trainables.data.cache_build._SHARD_BYTES", 10_000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(done: int, _: int) -> None:
        if done == 7:
            resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, before[1]))

    try:
        with pytest.raises(CacheError, match=r"failed: File too large\. What was finished stays there"):
            opened(clips, tmp_path, progress=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert _names(tmp_path) == SHARDS[:2]
    told: list[int] = []
    opened(clips, tmp_path, progress=lambda done, _: told.append(done))
    assert told == [7, 8, 9, 10]


def test_what_a_killed_build_left_is_swept_away(clips: list[Clip], tmp_path: Path) -> None:
    folder = opened(clips, tmp_path).folder
    (folder / "index.arrow").unlink()
    (folder / "6.99999.tmp").write_bytes(b"half")
    (folder / "index.arrow.99999.tmp").write_bytes(b"half")
    opened(clips, tmp_path)
    assert not list(folder.glob("*.tmp"))


def test_a_cache_that_can_only_be_read(tmp_path: Path) -> None:
    """As on a cluster, where one built it for all: opening writes nothing, not even a lock."""
    clips = clips_in(class_folders(tmp_path / "data", classes=1, clips=2))
    folder = opened(clips, tmp_path).folder
    for lock in folder.parent.glob("*.lock"):
        lock.unlink()
    before = sorted(os.listdir(folder.parent))  # noqa: PTH208
    assert len(opened(clips, tmp_path)) == 2
    assert sorted(os.listdir(folder.parent)) == before  # noqa: PTH208


def test_faults_that_pass_are_not_kept(clips: list[Clip], tmp_path: Path) -> None:
    exact = [clip_features(clip.path, FRONT_END).half() for clip in clips]
    away = [clip.path.rename(clip.path.with_suffix(".away")) for clip in (clips[1], clips[4])]
    clips[9].path.write_bytes(b"no sound at all")
    before = opened(clips, tmp_path)
    said = {before.bad[row].detail for row in (1, 4)}
    assert said == {"there is no such file; tried again next time"}
    told: list[int] = []
    assert set(opened(clips, tmp_path, progress=lambda done, _: told.append(done)).bad) == {1, 4, 9} and not told
    away[0].rename(clips[1].path)
    _spoil(clips[8:])  # in another shard: not computed again
    after = opened(clips, tmp_path, progress=lambda done, _: told.append(done))
    assert set(after.bad) == {4, 9} and len(told) < 10
    for row in (0, 1, 2, 3, 5, 6, 7, 8):  # and 1, which can be read now
        assert torch.equal(after.row(row), exact[row])
    # Whoever has opened it before does not read other clips' rows from what is new.
    with pytest.raises(CacheError, match="while it was in use"):
        before.row(0)
