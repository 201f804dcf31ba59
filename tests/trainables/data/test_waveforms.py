"""Data for models that read waveforms and for Whisper: what the cache keeps, and the batches made of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile
import torch

from petl.errors import ConfigError
from petl.frontend import AstFrontEnd, FrontEnd, WaveformFrontEnd, WhisperFrontEnd, clip_features
from tests.trainables.data.sounds import class_folders, tone
from trainables.augment import augmented, check
from trainables.config import AugOptions, DataOptions
from trainables.data import AudioData, open_data
from trainables.data.clips import Clip
from trainables.data.features import MAX_FRAMES, extract, packed


def _open(path: Path, front_end: FrontEnd, **more: object) -> AudioData:
    options = DataOptions(dataset="folder", path=str(path), **more)  # type: ignore[arg-type]
    return open_data(options, front_end, cache_root=path.parent / "cache", workers=2)


def _clip(path: Path) -> Clip:
    return Clip(path=path, name=path.name, label="x")


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_U8"])
def test_recordings_of_up_to_16_bits_keep_every_bit(tmp_path: Path, subtype: str) -> None:
    draw = np.random.default_rng(0)
    wave = np.concatenate([[-1.0, 1.0, 0.0, 2**-15], draw.uniform(-1, 1, 4000)])
    soundfile.write(tmp_path / "a.wav", wave, 16000, subtype=subtype)
    row = extract(_clip(tmp_path / "a.wav"), WaveformFrontEnd())
    exact = clip_features(tmp_path / "a.wav", WaveformFrontEnd())
    assert row.features_TM.dtype == np.int16 and row.scale == 2**-15
    assert torch.equal(torch.from_numpy(row.features_TM).float() * row.scale, exact)


@pytest.mark.parametrize("gain", [1e-4, 0.3, 7.0])
def test_other_recordings_are_divided_finely_enough(tmp_path: Path, gain: float) -> None:
    """Quiet ones are not drowned, loud ones not clipped: 96 dB below the clip's own peak."""
    wave = np.random.default_rng(0).normal(0, gain, 8000).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", wave, 16000, subtype="FLOAT")
    row = extract(_clip(tmp_path / "a.wav"), WaveformFrontEnd())
    back = row.features_TM[:, 0] * row.scale
    assert np.abs(back - wave).max() <= np.abs(wave).max() / 65534 * 1.01


@pytest.mark.parametrize("front_end", [WaveformFrontEnd(), AstFrontEnd(), WhisperFrontEnd()], ids=lambda f: f.kind)
def test_recordings_too_loud_for_float32_are_bad_files(front_end: FrontEnd, tmp_path: Path) -> None:
    wave = np.random.default_rng(0).normal(0, 1e30, 8000).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", wave, 16000, subtype="FLOAT")
    row = extract(_clip(tmp_path / "a.wav"), front_end)
    assert row.reason == "not finite" and len(row.features_TM) == 0


def test_what_is_too_quiet_to_be_divided_is_silence(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(8000, 1e-42, np.float32), 16000, subtype="FLOAT")
    row = extract(_clip(tmp_path / "a.wav"), WaveformFrontEnd())
    assert row.reason == "" and not row.features_TM.any() and row.scale == 2**-15


def test_silence_and_full_scale_can_be_packed() -> None:
    stored, scale = packed(torch.zeros(5, 1), "int16")
    assert not stored.any() and scale == 2**-15
    stored, scale = packed(torch.tensor([[1.0], [-1.0]]), "int16")  # +1 has no place among 16-bit samples
    assert stored.flatten().tolist() == [32767, -32767] and scale == pytest.approx(1 / 32767)


def test_batches_are_what_the_front_end_makes_of_the_files(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data")
    tone(root / "class0" / "longer.wav", 0.5)
    data = _open(root, WaveformFrontEnd())
    assert data.front_end == WaveformFrontEnd(frames=50, masks=True)
    for split in ("train", "val", "test"):
        x = data.batch(split, range(data.size(split)))
        rows = [clip_features(path, data.front_end) for path in data.paths(split)]
        expected = data.front_end.collate(rows)
        assert torch.equal(x.values, expected.values)
        assert (x.mask is None) == (expected.mask is None)
        if x.mask is not None and expected.mask is not None:
            assert torch.equal(x.mask, expected.mask)
    described = data.describe()
    assert described["longest_frames"] == 50 and described["cut_clips"] == 0
    assert described["front_end"] == "Wav2Vec2FeatureExtractor" and described["normalize"] == "backbone"


def test_lengths_are_of_10_ms_whatever_the_backbone(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data", classes=2, clips=4, seconds=0.5)
    for front_end in (AstFrontEnd(), WaveformFrontEnd(), WhisperFrontEnd()):
        data = _open(root, front_end, frames=20)
        assert data.front_end.frames == 20 and data.describe()["cut_clips"] == 8
        x = data.batch("train", [0, 1])
        assert x.mask is None
        shapes = {"AST": (2, 20, 128), "Wav": (2, 3200), "Whi": (2, 80, 20)}
        assert x.values.shape == shapes[front_end.kind[:3]]
    assert len({p.name for p in (tmp_path / "cache" / "features").iterdir() if p.is_dir()}) == 3


def test_padding_as_asked(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data", classes=2, clips=4, seconds=0.2)
    tone(root / "class0" / "longer.wav", 0.5)
    own = WaveformFrontEnd(masks=False)
    assert _open(root, own).front_end == WaveformFrontEnd(frames=50, masks=True)
    assert _open(root, own, padding="checkpoint").front_end == WaveformFrontEnd(frames=50)
    assert _open(root, own, padding="fixed").front_end == WaveformFrontEnd(frames=50, fixed=True)
    short = [i for i, path in enumerate(_open(root, own).paths("train")) if path.name != "longer.wav"][:1]
    assert _open(root, own).batch("train", short).values.shape == (1, 3200)
    x = _open(root, own, padding="fixed").batch("train", short)
    assert x.values.shape == (1, 8000) and x.mask is not None and int(x.mask.sum()) == 3200


def test_whisper_batches(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data", seconds=0.25)
    data = _open(root, WhisperFrontEnd())
    assert data.front_end == WhisperFrontEnd(frames=26)  # 25 frames, made even
    x = data.batch("val", range(data.size("val")))
    rows = [clip_features(path, data.front_end) for path in data.paths("val")]
    torch.testing.assert_close(x.values, data.front_end.collate(rows).values, atol=2e-3, rtol=0)
    assert x.mask is not None and x.mask.sum(1).tolist() == [25] * len(rows)
    with pytest.raises(ConfigError, match=r"data\.frames is 3002, but the backbone has positions for 3000"):
        _open(root, WhisperFrontEnd(), frames=3002)


def test_long_recordings_are_kept_as_far_as_any_model_reads(tmp_path: Path) -> None:
    path = tone(tmp_path / "long.wav", seconds=45, rate=16000)
    assert extract(_clip(path), WaveformFrontEnd()).features_TM.shape == (MAX_FRAMES * 160, 1)
    row = extract(_clip(path), WhisperFrontEnd())
    assert row.frames == 3000 and row.features_TM.shape == (3002, 80)


def test_bad_files_are_named_for_waveforms_too(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "short.wav", np.zeros(100), 16000)
    row = extract(_clip(tmp_path / "short.wav"), WaveformFrontEnd())
    assert row.reason == "too short" and row.features_TM.shape == (0, 1)


def test_the_waveform_cache_is_arrow_too_and_guards_its_format(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data", classes=2, clips=3)
    first = _open(root, WaveformFrontEnd()).batch("train", [0]).values
    [folder] = [p for p in (tmp_path / "cache" / "features").iterdir() if p.is_dir()]
    [shard] = folder.glob("0*.arrow")
    assert pa.ipc.open_file(str(shard)).schema.field("features").type == pa.list_(pa.int16())
    index = pa.ipc.open_file(str(folder / "index.arrow"))
    notes = index.schema.metadata[b"petl"]
    wrong = index.read_all().replace_schema_metadata({b"petl": notes.replace(b"int16", b"float16")})
    with pa.ipc.new_file(str(folder / "other"), wrong.schema) as writer:
        writer.write_table(wrong)
    (folder / "other").replace(folder / "index.arrow")  # damaged: it is written again
    assert torch.equal(_open(root, WaveformFrontEnd()).batch("train", [0]).values, first)
    assert pa.ipc.open_file(str(folder / "index.arrow")).schema.metadata[b"petl"] == notes


def test_spec_augment_is_for_spectrograms(tmp_path: Path) -> None:
    for name in ("freq_mask", "time_mask"):
        with pytest.raises(ConfigError, match=rf"aug\.{name} is 8, .* reads waveforms.*backbone_mode: train"):
            check(AugOptions(**{name: 8}), WaveformFrontEnd())
        check(AugOptions(**{name: 8}), WhisperFrontEnd())
    check(AugOptions(), WaveformFrontEnd())
    x = WhisperFrontEnd(frames=30).collate([torch.randn(32, 80) for _ in range(2)])
    options = AugOptions(freq_mask=20, time_mask=10)
    found = augmented(x, options, WhisperFrontEnd(frames=30), torch.Generator().manual_seed(0))
    hidden_BMT = (found.values == 0) & (x.values != 0)
    assert found.values.shape == x.values.shape
    assert bool(hidden_BMT[0].all(dim=1).any()) and bool(hidden_BMT[0].all(dim=0).any())
    assert augmented(x, AugOptions(), WhisperFrontEnd(frames=30), torch.Generator()) is x
