"""The feature cache: what it gives, to whom it tells what, and where it lies."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from petl.frontend import AstFrontEnd, WaveformFrontEnd, clip_features
from tests.trainables.data.sounds import class_folders, tone
from trainables.data import cache_build
from trainables.data.arrow_file import RowFiles
from trainables.data.cache import FeatureCache, open_cache
from trainables.data.cache_index import Index, write_index
from trainables.data.clips import Clip
from trainables.data.features import MAX_FRAMES, extract
from trainables.data.places import CacheError, check_room, default_cache_root

FRONT_END = AstFrontEnd()


def clips_in(root: Path) -> list[Clip]:
    """Every recording below a folder, labelled by its own folder."""
    paths = sorted(root.rglob("*.*"))
    return [Clip(path=path, name=path.relative_to(root).as_posix(), label=path.parent.name) for path in paths]


@pytest.fixture
def clips(tmp_path: Path) -> list[Clip]:
    return clips_in(class_folders(tmp_path / "data", classes=2, clips=5))


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_build, "_SHARD_BYTES", 10_000)  # three clips of 0.2 s


def opened(clips: list[Clip], tmp_path: Path, **more: object) -> FeatureCache:
    return open_cache(clips, "d" * 64, FRONT_END, tmp_path / "cache", **more)  # type: ignore[arg-type]


def test_rows_are_the_features_in_half_precision(clips: list[Clip], tmp_path: Path) -> None:
    cache = opened(clips, tmp_path)
    assert len(cache) == len(cache.facts) == len(clips)
    for row, clip in enumerate(clips):
        exact_TM = clip_features(clip.path, FRONT_END)
        assert torch.equal(cache.row(row), exact_TM.half())
        assert torch.equal(cache.row(row, 7), exact_TM[:7].half())
        assert cache.facts[row].frames == cache.facts.frames[row] == len(exact_TM)
        assert cache.facts[row].seconds == pytest.approx(0.2)
        assert not cache.facts[row].silent and not cache.facts[row].truncated
    assert [fact.total for fact in cache.facts[2:4]] == cache.facts.total[2:4].tolist()


def test_a_row_belongs_to_whoever_asked(clips: list[Clip], tmp_path: Path) -> None:
    cache = opened(clips, tmp_path)
    kept = cache.row(0).clone()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache.row(0).fill_(0)
    assert torch.equal(cache.row(0), kept)


def test_whole_numbers_come_back_with_their_scale(clips: list[Clip], tmp_path: Path) -> None:
    cache = open_cache(clips, "d" * 64, WaveformFrontEnd(), tmp_path / "cache")
    assert cache.stored(3).dtype == torch.int16
    assert torch.equal(cache.row(3), clip_features(clips[3].path, WaveformFrontEnd()))
    assert cache.row(3, 100).shape == (100, 1)


@pytest.mark.usefixtures("small_shards")
def test_any_reader_of_arrow_can_read_it(clips: list[Clip], tmp_path: Path) -> None:
    cache = opened(clips, tmp_path)
    names = sorted(path.name for path in cache.folder.iterdir())
    assert names == [
        *(f"00000000{first}-00000000{last}.arrow" for first, last in ((0, 2), (3, 5), (6, 8), (9, 9))),
        "index.arrow",
    ]
    shards = [pa.ipc.open_file(str(cache.folder / name)).read_all() for name in names[:-1]]
    table = pa.concat_tables([shard.replace_schema_metadata(None) for shard in shards])
    assert table.schema.field("features").type == pa.list_(pa.float16())
    for row in range(len(clips)):
        assert table["features"][row].values.to_numpy().tolist() == cache.row(row).flatten().tolist()
    index = pa.ipc.open_file(str(cache.folder / "index.arrow")).read_all()
    for name in ("key", "frames", "seconds", "total", "squares", "silent", "truncated", "scale", "reason", "detail"):
        assert index[name].to_pylist() == table[name].to_pylist()
    assert index["shard"].to_pylist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]


def test_statistics_are_those_of_the_stored_frames(clips: list[Clip], tmp_path: Path) -> None:
    cache = opened(clips, tmp_path)
    rows = [1, 4, 7]
    stored = torch.cat([cache.row(row).double().flatten() for row in rows])
    mean, std = cache.mean_std(rows)
    assert mean == pytest.approx(float(stored.mean()), abs=1e-9)
    assert std == pytest.approx(float(stored.std(correction=0)), abs=1e-9)
    assert cache.mean_std(rows[::-1]) == (mean, std)
    assert cache.mean_std([]) == (0.0, 0.0)


@pytest.mark.usefixtures("small_shards")
def test_threads_change_nothing_but_the_time(clips: list[Clip], tmp_path: Path) -> None:
    before = torch.get_num_threads()
    one = opened(clips, tmp_path / "1", workers=1).folder
    four = opened(clips, tmp_path / "4", workers=4).folder
    for path in one.iterdir():
        assert path.read_bytes() == (four / path.name).read_bytes()
    assert torch.get_num_threads() == before


def test_many_batches_are_one_table(clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = opened(clips, tmp_path / "whole")
    monkeypatch.setattr("trainables.data.arrow_file._BATCH_BYTES", 10_000)  # three clips
    parts = opened(clips, tmp_path / "parts")
    assert pa.ipc.open_file(str(parts.folder / "000000000-000000009.arrow")).num_record_batches == 4
    for row in range(len(clips)):
        assert torch.equal(parts.row(row), whole.row(row))


def test_progress_is_told_clip_by_clip_and_only_when_building(clips: list[Clip], tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    opened(clips, tmp_path, progress=lambda done, total: told.append((done, total)))
    assert told == [(i + 1, 10) for i in range(10)]
    opened(clips, tmp_path, progress=lambda done, total: told.append((done, total)))
    assert len(told) == 10


def test_very_long_recordings_are_kept_as_far_as_any_model_reads(tmp_path: Path) -> None:
    path = tone(tmp_path / "long.wav", seconds=45, rate=22050)
    row = extract(Clip(path=path, name="long.wav", label="x"), FRONT_END)
    assert row.frames == MAX_FRAMES and not row.truncated
    assert torch.equal(torch.from_numpy(row.features_TM), clip_features(path, FRONT_END)[:MAX_FRAMES].half())


def test_no_clips_are_a_cache_too(tmp_path: Path) -> None:
    assert len(opened([], tmp_path)) == 0


def test_two_million_clips_open_quickly_and_hold_no_object_each(tmp_path: Path) -> None:
    """What is in memory of the process afterwards is two flags per clip; the rest is a mapping."""
    count = 2_000_000
    frames = np.arange(count, dtype=np.int32) % 1000
    zeros = np.zeros(count)
    table = pa.table(
        {
            "key": pa.Array.from_buffers(pa.binary(16), count, [None, pa.py_buffer(bytes(16 * count))]),
            "frames": frames,
            **dict.fromkeys(("seconds", "total", "squares", "scale"), zeros),
            **dict.fromkeys(("silent", "truncated"), zeros.astype(bool)),
            **dict.fromkeys(("reason", "detail"), pa.repeat("", count)),
            **dict.fromkeys(("offset", "length"), zeros.astype(np.int64)),
        }
    )
    write_index(tmp_path / "index.arrow", [("one", 10, table)], {"version": 0})
    before = pa.total_allocated_bytes()
    index = Index(tmp_path / "index.arrow")
    assert index.facts[1_234_567].frames == 567
    assert index.bad() == {}
    for name in ("frames", "seconds", "total", "squares", "scale", "shard", "offset", "length"):
        assert not getattr(index.facts, name).flags.owndata
    assert index.facts.silent.nbytes + index.facts.truncated.nbytes == 2 * count
    assert pa.total_allocated_bytes() - before < 3 * count


def test_only_some_files_are_kept_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainables.data.arrow_file._OPEN_FILES", 8)
    paths = [tmp_path / str(number) for number in range(50)]
    for number, path in enumerate(paths):
        path.write_bytes(np.full(4, number, np.int16).tobytes())
    files = RowFiles(paths, "int16")
    fds = Path("/proc/self/fd")
    before = len(list(fds.iterdir()))
    for number in [*range(50), 0, 49, 7]:
        assert files.read(number, 2, 3).tolist() == [number] * 3
    assert len(list(fds.iterdir())) <= before + 8
    with pytest.raises(CacheError, match=r"can no longer be read \(it ends too early\).*Start again"):
        files.read(3, 4, 3)


@pytest.mark.usefixtures("small_shards")
def test_a_cache_that_is_deleted_while_in_use(clips: list[Clip], tmp_path: Path) -> None:
    cache = opened(clips, tmp_path)
    (cache.folder / "000000006-000000008.arrow").unlink()
    with pytest.raises(CacheError, match=r"000000006-000000008\.arrow.*No such file or directory.*Start again"):
        cache.row(7)
    assert opened(clips, tmp_path).row(7).shape == (18, 128)


# room and places


def test_a_full_disk_is_said_before_the_work(
    clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CacheError, match=r"needs 1024\.0 GiB in .*only .* are free.*PETL_CACHE"):
        check_room(tmp_path, 1 << 40)
    asked: list[int] = []
    monkeypatch.setattr(cache_build, "check_room", lambda _, needed: asked.append(needed))
    cache = opened(clips, tmp_path)
    size = sum(path.stat().st_size for path in cache.folder.iterdir())
    assert 0.8 * size < asked[0] < 1.3 * size


def test_a_cache_root_that_cannot_be(clips: list[Clip], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CacheError, match=r"cannot be made .*set PETL_CACHE to a folder that can be written"):
        open_cache(clips, "d" * 64, FRONT_END, tmp_path / "file")


def test_the_cache_root_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PETL_CACHE", str(tmp_path / "here"))
    assert default_cache_root() == tmp_path / "here"
    monkeypatch.delenv("PETL_CACHE")
    assert default_cache_root().name == "petl-search"


def test_a_file_that_was_written_anew_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(8))
    assert RowFiles([tmp_path / "a"], "int16", [8]).read(0, 0, 4).tolist() == [0] * 4
    with pytest.raises(CacheError, match="written anew"):
        RowFiles([tmp_path / "a"], "int16", [10]).read(0, 0, 4)
