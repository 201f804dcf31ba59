"""Rows of single clips: what is wrong with a file is found out, told, and ends nothing."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from petl.frontend import AstFrontEnd, AudioError, decode
from petl.frontend.audio import _ratio
from tests.trainables.data.sounds import tone
from tests.trainables.data.test_cache import opened
from trainables.data import features
from trainables.data.clips import BadFile, Clip
from trainables.data.features import Row, computed, extract

FRONT_END = AstFrontEnd()


def _row(path: Path, start: float | None = None, end: float | None = None) -> Row:
    return extract(Clip(path=path, name=path.name, label="x", start=start, end=end), FRONT_END)


def _cut(path: Path, share: float) -> Path:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    return path


@pytest.mark.parametrize("suffix", ["wav", "aiff", "au", "w64", "mp3"])
def test_files_that_were_cut_short_are_used_and_noted(tmp_path: Path, suffix: str) -> None:
    path = tone(tmp_path / f"a.{suffix}", 2.0)
    assert not _row(path).truncated
    row = _row(_cut(path, 0.5))
    assert row.truncated and row.reason == ""
    assert row.seconds == pytest.approx(1.0, abs=0.15) and row.frames == len(row.features_TM) > 80


def test_parts_are_noted_when_something_of_them_is_missing(tmp_path: Path) -> None:
    path = _cut(tone(tmp_path / "a.wav", 2.0), 0.5)
    assert not _row(path, 0.2, 0.8).truncated
    assert _row(path, 0.2, 1.5).truncated
    assert not _row(tone(tmp_path / "b.wav", 1.0), 0.5, 3.0).truncated  # an end behind the end is the end
    assert _row(path, 1.5, 1.8).reason == "empty"


def test_what_is_left_has_to_be_a_window_long(tmp_path: Path) -> None:
    path = _cut(tone(tmp_path / "a.wav", 2.0), 0.01)
    assert _row(path).reason == "too short"


def test_writers_to_pipes_do_not_know_the_length(tmp_path: Path) -> None:
    path = tone(tmp_path / "a.wav", 0.5)
    content = bytearray(path.read_bytes())
    content[4:8] = struct.pack("<I", 0xFFFFFFFF)
    place = content.index(b"data") + 4
    content[place : place + 4] = struct.pack("<I", 0xFFFFFFFF - 36)
    path.write_bytes(content)
    row = _row(path)
    assert row.seconds == pytest.approx(0.5) and not row.truncated


def test_every_kind_of_bad_file_is_told_and_none_ends_the_build(tmp_path: Path) -> None:
    root = tmp_path / "data"
    tone(root / "good.wav")
    (root / "zero.wav").touch()
    (root / "text.wav").write_text("no sound here" * 9)
    soundfile.write(root / "none.wav", np.zeros(0), 16000)
    soundfile.write(root / "short.flac", np.zeros(100), 16000)
    soundfile.write(root / "silent.flac", np.zeros(8000), 16000)
    soundfile.write(root / "nan.wav", np.where(np.arange(8000) == 5, np.nan, 0.0), 16000, subtype="FLOAT")
    _cut(tone(root / "half.flac", 1.0), 0.5)
    names = ["good.wav", "zero.wav", "text.wav", "none.wav", "short.flac", "silent.flac", "nan.wav", "half.flac"]
    clips = [Clip(path=root / name, name=name, label="x") for name in names]
    clips.append(Clip(path=root / "good.wav", name="good.wav", label="x", start=5.0))
    for cache in (opened(clips, tmp_path), opened(clips, tmp_path)):
        assert {row: (found.name, found.reason) for row, found in cache.bad.items()} == {
            1: ("zero.wav", "empty"),
            2: ("text.wav", "unreadable"),
            3: ("none.wav", "empty"),
            4: ("short.flac", "too short"),
            6: ("nan.wav", "not finite"),
            7: ("half.flac", "unreadable"),
            8: ("good.wav [5 s to end]", "empty"),
        }
        assert cache.bad[4] == BadFile("short.flac", "too short", "6.2 ms; features need at least 25 ms")
        assert cache.facts.silent.tolist() == [row == 5 for row in range(9)]
        assert cache.row(2).shape == (0, 128)
    renamed = [Clip(path=clip.path, name=f"moved/{clip.name}", label="x") for clip in clips]
    assert opened(renamed, tmp_path).bad[1].name == "moved/zero.wav"


def test_a_decoder_that_breaks_is_a_bad_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = [Clip(path=tone(tmp_path / f"{i}.wav"), name=f"{i}.wav", label="x") for i in range(3)]
    real = features.decode

    def broken(path: Path, *more: object) -> object:
        if path.name == "1.wav":
            raise RuntimeError("assertion failed in\n  some_codec.c " + "x" * 500)
        return real(path, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(features, "decode", broken)
    cache = opened(clips, tmp_path)
    assert list(cache.bad) == [1] and cache.bad[1].reason == "unreadable"
    assert cache.bad[1].detail.startswith("RuntimeError: assertion failed in some_codec.c xxx")
    assert len(cache.bad[1].detail) == 200


def test_jobs_are_begun_a_few_ahead_and_not_at_all_after_the_end() -> None:
    begun: list[int] = []
    nothing = Row(np.zeros((0, 1), np.float16))

    def job(number: int) -> Row:
        begun.append(number)
        return nothing

    rows = computed((lambda n=n: job(n) for n in range(1000)), workers=2)  # type: ignore[misc]
    for _ in range(10):
        next(rows)
    rows.close()
    assert len(begun) <= 10 + 2 * features._AHEAD
    assert len(list(computed((lambda: nothing for _ in range(9)), workers=3))) == 9


def test_rates_without_common_factors(tmp_path: Path) -> None:
    """A filter for every phase would take gigabytes: the ratio is taken for one nearby."""
    for rate in (44_101, 192_001, 767_999, 11_127):
        given, wanted = _ratio(rate, 16_000)
        assert given / wanted == pytest.approx(rate / 16_000, rel=1e-5) and given * wanted < 20_000_000
    assert _ratio(44_100, 16_000) == (441, 160) and _ratio(16_000, 16_000) == (1, 1)
    path = tone(tmp_path / "odd.wav", 0.5, rate=48_017)
    odd_S = decode(path, 16_000)
    assert len(odd_S) == pytest.approx(8_000, abs=1)
    # Still the tone it was: 440 Hz is the 220th line of half a second.
    assert int(torch.fft.rfft(odd_S).abs().argmax()) == 220
    with pytest.raises(AudioError, match="1 Hz cannot be resampled to 768,000 Hz; convert it"):
        _ratio(1, 768_000)
