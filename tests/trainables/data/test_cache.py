"""The feature cache: built once, whole or not at all, shared, and rebuilt when damaged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from petl.frontend import AstFrontEnd, clip_features
from tests.trainables.data.sounds import class_folders, tone
from trainables.data import CacheError, Clip
from trainables.data import cache as cache_module
from trainables.data.cache import FeatureCache, open_cache
from trainables.data.digest import content_hashes, data_digest
from trainables.data.features import MAX_FRAMES, extract
from trainables.data.formats import read_clips
from trainables.data.places import check_room, default_cache_root

FRONT_END = AstFrontEnd()


@pytest.fixture
def clips(tmp_path: Path) -> list[Clip]:
    return read_clips("folder", class_folders(tmp_path / "data", classes=2, clips=5))


def _open(clips: list[Clip], tmp_path: Path, **more: object) -> FeatureCache:
    return open_cache(clips, "d" * 64, FRONT_END, tmp_path / "cache", **more)  # type: ignore[arg-type]


def _folder(tmp_path: Path) -> Path:
    [folder] = [f for f in (tmp_path / "cache" / "features").iterdir() if f.is_dir()]
    return folder


def test_rows_are_the_features_in_half_precision(clips: list[Clip], tmp_path: Path) -> None:
    cache = _open(clips, tmp_path)
    assert len(cache.features) == len(clips)
    for row, clip in enumerate(clips):
        exact_TM = clip_features(clip.path, FRONT_END)
        assert torch.equal(cache.features.row(row), exact_TM.half())
        assert torch.equal(cache.features.row(row, 7), exact_TM[:7].half())
        assert cache.facts[row].frames == cache.features.rows(row) == len(exact_TM)
        assert cache.facts[row].seconds == pytest.approx(0.2)


def test_any_reader_of_arrow_can_read_it(clips: list[Clip], tmp_path: Path) -> None:
    cache = _open(clips, tmp_path)
    table = pa.ipc.open_file(str(cache.folder / "features.arrow")).read_all()
    assert table.column("name").to_pylist() == [clip.name for clip in clips]
    assert table.column("label").to_pylist() == [clip.label for clip in clips]
    assert table.column("features")[3].values.to_numpy().tolist() == cache.features.row(3).flatten().tolist()
    index = json.loads((cache.folder / "index.json").read_text())
    assert index["labels"] == ["class0", "class1"]


def test_statistics_are_those_of_the_stored_frames(clips: list[Clip], tmp_path: Path) -> None:
    cache = _open(clips, tmp_path)
    rows = [1, 4, 7]
    stored = torch.cat([cache.features.row(row).double().flatten() for row in rows])
    mean, std = cache.mean_std(rows)
    assert mean == pytest.approx(float(stored.mean()), abs=1e-9)
    assert std == pytest.approx(float(stored.std(correction=0)), abs=1e-9)
    assert cache.mean_std(rows[::-1]) == (mean, std)


def test_threads_change_nothing_but_the_time(clips: list[Clip], tmp_path: Path) -> None:
    before = torch.get_num_threads()
    one = _open(clips, tmp_path / "1", workers=1).folder / "features.arrow"
    four = _open(clips, tmp_path / "4", workers=4).folder / "features.arrow"
    assert one.read_bytes() == four.read_bytes()
    assert torch.get_num_threads() == before


def test_many_batches_are_one_table(clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _open(clips, tmp_path / "whole")
    monkeypatch.setattr("trainables.data.arrow_file._BATCH_BYTES", 10_000)  # three clips
    parts = _open(clips, tmp_path / "parts")
    assert pa.ipc.open_file(str(parts.folder / "features.arrow")).num_record_batches == 4
    for row in range(len(clips)):
        assert torch.equal(parts.features.row(row), whole.features.row(row))


def test_progress_is_told_clip_by_clip_and_only_when_building(clips: list[Clip], tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    _open(clips, tmp_path, progress=lambda done, total: told.append((done, total)))
    assert told == [(i + 1, 10) for i in range(10)]
    _open(clips, tmp_path, progress=lambda done, total: told.append((done, total)))
    assert len(told) == 10


def test_very_long_recordings_are_kept_as_far_as_any_model_reads(tmp_path: Path) -> None:
    path = tone(tmp_path / "long.wav", seconds=45, rate=22050)
    row = extract(Clip(path=path, name="long.wav", label="x"), FRONT_END)
    assert row.frames == MAX_FRAMES
    assert torch.equal(torch.from_numpy(row.features_TM), clip_features(path, FRONT_END)[:MAX_FRAMES].half())


def test_two_processes_build_once(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data", classes=2, clips=20, seconds=0.5)
    code = (
        "import sys; from pathlib import Path; from petl.frontend import AstFrontEnd\n"
        "from trainables.config import DataOptions; from trainables.data import open_data\n"
        "told = []\n"
        f"options = DataOptions(dataset='folder', path={str(root)!r})\n"
        f"data = open_data(options, AstFrontEnd(), cache_root=Path({str(tmp_path / 'cache')!r}), workers=1,\n"
        "                 progress=lambda done, total: told.append(done))\n"
        "print(len(told), data.digest, float(data.batch('train', [0, 1]).values.sum()))"
    )
    started = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = [process.communicate(timeout=120)[0].split() for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert sorted(int(words[0]) for words in printed) == [0, 40]
    assert printed[0][1:] == printed[1][1:]


def test_many_threads_build_once(clips: list[Clip], tmp_path: Path) -> None:
    told: list[int] = []
    opened: list[FeatureCache] = []

    def work() -> None:
        opened.append(_open(clips, tmp_path, workers=1, progress=lambda done, _: told.append(done)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 4
    assert len(told) == len(clips)


def _truncate(folder: Path) -> None:
    path = folder / "features.arrow"
    path.write_bytes(path.read_bytes()[:-1000])


def _same_size_but_no_footer(folder: Path) -> None:
    path = folder / "features.arrow"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[: size // 2] + bytes(size - size // 2))


def _spoil_index(folder: Path) -> None:
    (folder / "index.json").write_text((folder / "index.json").read_text()[:-50])


def _other_version(folder: Path) -> None:
    index = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps({**index, "version": 0}))


def _no_features(folder: Path) -> None:
    (folder / "features.arrow").unlink()


@pytest.mark.parametrize("damage", [_truncate, _same_size_but_no_footer, _spoil_index, _other_version, _no_features])
def test_a_damaged_cache_is_built_again(clips: list[Clip], tmp_path: Path, damage: object) -> None:
    good = _open(clips, tmp_path).features.row(4).clone()
    damage(_folder(tmp_path))  # type: ignore[operator]
    told: list[int] = []
    again = _open(clips, tmp_path, progress=lambda done, _: told.append(done))
    assert len(told) == len(clips)
    assert torch.equal(again.features.row(4), good)


def test_an_interrupted_build_leaves_nothing_that_looks_whole(clips: list[Clip], tmp_path: Path) -> None:
    def stop(done: int, _: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _open(clips, tmp_path, progress=stop)
    assert [f.name for f in (tmp_path / "cache" / "features").iterdir() if f.is_dir()] == []
    assert len(_open(clips, tmp_path).features) == len(clips)


def test_what_a_killed_build_left_is_swept_away(clips: list[Clip], tmp_path: Path) -> None:
    left = tmp_path / "cache" / "features" / f"{'d' * 32}-{FRONT_END.digest()}.99999.tmp"
    left.mkdir(parents=True)
    (left / "features.arrow").write_bytes(b"half")
    _open(clips, tmp_path)
    assert not left.exists()


def test_a_full_disk_is_said_before_the_work(
    clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CacheError, match=r"needs 1024\.0 GiB in .*only .* are free.*PETL_CACHE"):
        check_room(tmp_path, 1 << 40)
    asked: list[int] = []
    monkeypatch.setattr(cache_module, "check_room", lambda _, needed: asked.append(needed))
    cache = _open(clips, tmp_path)
    size = (cache.folder / "features.arrow").stat().st_size
    assert 0.9 * size < asked[0] < 1.3 * size


def test_a_disk_that_fills_up_meanwhile(clips: list[Clip], tmp_path: Path) -> None:
    """A file size limit stands for the full disk: writing fails in the middle."""
    code = (
        "import resource, signal; from pathlib import Path; from petl.frontend import AstFrontEnd\n"
        "from trainables.data import CacheError; from trainables.data.cache import open_cache\n"
        "from trainables.data.formats import read_clips\n"
        "import torch, torchaudio, pyarrow, soundfile\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"clips = read_clips('folder', Path({str(tmp_path / 'data')!r}))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "try:\n"
        f"    open_cache(clips, 'd' * 64, AstFrontEnd(), Path({str(tmp_path / 'cache')!r}))\n"
        "except CacheError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "failed: File too large. Nothing half-written is left behind" in done.stdout
    assert [f for f in (tmp_path / "cache" / "features").iterdir() if f.is_dir()] == []


def test_a_cache_root_that_cannot_be(clips: list[Clip], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CacheError, match=r"cannot be made .*set PETL_CACHE to a folder that can be written"):
        open_cache(clips, "d" * 64, FRONT_END, tmp_path / "file")


def test_the_cache_root_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PETL_CACHE", str(tmp_path / "here"))
    assert default_cache_root() == tmp_path / "here"
    monkeypatch.delenv("PETL_CACHE")
    assert default_cache_root().name == "petl-search"


# digests


def test_the_digest_follows_bytes_labels_and_places(clips: list[Clip], tmp_path: Path) -> None:
    def digest(changed: list[Clip]) -> str:
        return data_digest(changed, content_hashes(changed, tmp_path / "data", tmp_path / "cache"))

    first = digest(clips)
    assert digest(clips[::-1]) == first
    assert len(first) == 64
    variants = [
        {"label": "x"},
        {"split": "train"},
        {"fold": 1},
        {"group": "g"},
        {"start": 0.1},
        {"end": 0.1},
        {"name": "other.wav"},
    ]
    changed = {digest([replace(clips[0], **v), *clips[1:]]) for v in variants}  # type: ignore[arg-type]
    assert len(changed | {first}) == len(variants) + 1
    assert digest(clips[1:]) != first

    tone(clips[0].path, 0.2, seed=77)
    assert digest(clips) != first


def test_the_digest_is_the_same_wherever_the_data_lie(tmp_path: Path) -> None:
    digests = set()
    for place in ("here", "there"):
        clips = read_clips("folder", class_folders(tmp_path / place, classes=2, clips=3))
        digests.add(data_digest(clips, content_hashes(clips, tmp_path / place, tmp_path / "cache")))
    assert len(digests) == 1


def test_files_are_read_again_only_when_size_or_time_change(clips: list[Clip], tmp_path: Path) -> None:
    def hashes() -> list[str]:
        return content_hashes(clips, tmp_path / "data", tmp_path / "cache")

    before = hashes()
    path = clips[0].path
    stat = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert hashes() == before  # not read: same size, same time
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert hashes()[0] != before[0]
    assert hashes()[1:] == before[1:]
    for store in (tmp_path / "cache" / "content").iterdir():
        store.write_text("{broken")
    assert hashes()[1:] == before[1:]
