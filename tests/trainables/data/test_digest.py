"""Digests: what changes them, what does not, and what is not read again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainables.data.sounds import class_folders, tone
from tests.trainables.data.test_cache import clips, clips_in
from trainables.data import digest as digest_module
from trainables.data.clips import Clip
from trainables.data.digest import clip_keys, content_hashes, data_digest, features_digest

__all__ = ["clips"]

# Two values of every field that differ from each other and from its default.
_VALUES: dict[str, tuple[object, object]] = {
    "name": ("a.wav", "b.wav"),
    "label": ("x", "y"),
    "split": ("train", "test"),
    "fold": (1, 2),
    "group": ("g", "h"),
    "start": (0.1, 0.2),
    "end": (1.0, 2.0),
    "labels": (("x",), ("x", "y")),
    "negatives": ((), ("x",)),
    "text": ("", "hello"),
    "speaker": ("s", "t"),
}


def test_the_digest_follows_every_field_but_the_path() -> None:
    names = [field.name for field in dataclasses.fields(Clip) if field.name != "path"]
    assert set(names) == set(_VALUES), "a field is new: give two values of it here"
    plain = Clip(path=Path("somewhere"), name="c.wav", label="z")
    found = [data_digest([plain], ["1"]), data_digest([plain], ["2"])]
    for name, values in _VALUES.items():
        found += [data_digest([replace(plain, **{name: value})], ["1"]) for value in values]  # type: ignore[arg-type]
    assert len(set(found)) == 2 + 2 * len(names)
    assert all(len(digest) == 64 for digest in found)
    assert data_digest([replace(plain, path=Path("elsewhere"))], ["1"]) == found[0]


def test_sets_have_no_order_and_what_has_no_plain_form_is_refused() -> None:
    plain = Clip(path=Path("p"), name="c.wav")
    given_sets = [frozenset(order) for order in (("b", "a", "c"), ("c", "b", "a"))]
    found = {data_digest([replace(plain, labels=labels)], ["1"]) for labels in given_sets}  # type: ignore[arg-type]
    assert found == {data_digest([replace(plain, labels=("a", "b", "c"))], ["1"])}
    with pytest.raises(TypeError, match="a clip holds a PosixPath, which cannot be digested"):
        data_digest([replace(plain, text=Path("p"))], ["1"])  # type: ignore[arg-type]


def test_a_new_field_changes_nothing_for_data_that_do_not_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True)
    class Later(Clip):
        room: str | None = None

    before = data_digest([Clip(Path("p"), "c.wav", "x", fold=2)], ["1"])
    monkeypatch.setattr(digest_module, "Clip", Later)
    assert data_digest([Later(Path("p"), "c.wav", "x", fold=2)], ["1"]) == before
    assert data_digest([Later(Path("p"), "c.wav", "x", fold=2, room="hall")], ["1"]) != before


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xy"), st.sampled_from("12")), max_size=5))
def test_the_digest_is_that_of_a_set_with_repetitions(rows: list[tuple[str, str, str]]) -> None:
    def digest(rows: list[tuple[str, str, str]]) -> str:
        return data_digest([Clip(Path(), name, label) for name, label, _ in rows], [content for *_, content in rows])

    assert digest(rows) == digest(rows[::-1]) == digest(sorted(rows))
    if rows:
        assert len({digest(rows), digest(rows[1:]), digest([*rows, rows[0]])}) == 3


def test_features_follow_bytes_parts_and_order_only() -> None:
    clips = [Clip(Path(), name, "x") for name in "ab"]
    plain = features_digest(clips, ["1", "2"])
    for name, values in _VALUES.items():
        same = features_digest([replace(clips[0], **{name: values[1]}), clips[1]], ["1", "2"])  # type: ignore[arg-type]
        assert (same == plain) == (name not in ("start", "end"))
    assert features_digest(clips, ["2", "1"]) != plain != features_digest(clips, ["1", "3"])
    assert features_digest([replace(clips[0], start=0.0), clips[1]], ["1", "2"]) == plain
    assert [len(key) for key in clip_keys(clips, ["1", "2"])] == [16, 16]


def test_the_digest_follows_the_bytes(clips: list[Clip], tmp_path: Path) -> None:
    def digest() -> str:
        return data_digest(clips, content_hashes(clips, tmp_path / "data", tmp_path / "cache"))

    first = digest()
    tone(clips[0].path, 0.2, seed=77)
    assert digest() != first


def test_the_digest_is_the_same_wherever_the_data_lie(tmp_path: Path) -> None:
    digests = set()
    for place in ("here", "there"):
        clips = clips_in(class_folders(tmp_path / place, classes=2, clips=3))
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


def _changed_unseen(path: Path) -> None:
    """Other bytes, same size and time."""
    stat = path.stat()
    path.write_bytes(bytes(stat.st_size))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_a_subset_does_not_make_the_rest_forgotten(clips: list[Clip], tmp_path: Path) -> None:
    def hashes(chosen: list[Clip]) -> list[str]:
        return content_hashes(chosen, tmp_path / "data", tmp_path / "cache")

    before = hashes(clips)
    tone(clips[0].path, 0.3)
    hashes(clips[:1])
    for clip in clips[1:]:
        _changed_unseen(clip.path)
    assert hashes(clips)[1:] == before[1:]


def test_hashes_outlive_an_interruption(clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = content_hashes(clips, tmp_path / "data", tmp_path / "other")
    real = digest_module._hash_file

    def interrupted(path: Path) -> str:
        if path == clips[7].path:
            raise KeyboardInterrupt
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(digest_module, "_hash_file", interrupted)
        with pytest.raises(KeyboardInterrupt):
            content_hashes(clips, tmp_path / "data", tmp_path / "cache")
    for clip in clips[:7]:
        _changed_unseen(clip.path)
    assert content_hashes(clips, tmp_path / "data", tmp_path / "cache") == before


def test_faults_of_the_disk_are_not_remembered(tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    (root / "empty.wav").touch()
    os.utime(root / "empty.wav", ns=(0, 0))
    (root / "away.wav").mkdir()  # cannot be read as a file
    clips = [Clip(root / name, name) for name in ("empty.wav", "away.wav")]
    empty, away = content_hashes(clips, root, tmp_path / "cache")
    assert empty == hashlib.sha256(b"").hexdigest() and away.startswith("unreadable")
    [store] = (tmp_path / "cache" / "content").iterdir()
    held = json.loads(store.read_text())
    stat = (root / "empty.wav").stat()
    held["empty.wav"] = [stat.st_size, stat.st_mtime_ns, "unreadable 5"]
    store.write_text(json.dumps(held))
    assert content_hashes(clips, root, tmp_path / "cache")[0] == empty
