"""From files on disk to batches, through the public door."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from petl.errors import UserError
from petl.frontend import AstFrontEnd, clip_features
from tests.trainables.data.sounds import class_folders, esc50, tone
from trainables.config import DataOptions
from trainables.data import SPLITS, AudioData, BadFiles, open_data, plan

ESC10 = Path(__file__).parents[4] / "shared" / "data" / "esc10"


def _options(path: Path, dataset: str = "folder", **more: object) -> DataOptions:
    return DataOptions(dataset=dataset, path=str(path), **more)  # type: ignore[arg-type]


def _open(path: Path, dataset: str = "folder", front_end: AstFrontEnd | None = None, **more: object) -> AudioData:
    cache = path.parent / "cache"
    return open_data(_options(path, dataset, **more), front_end or AstFrontEnd(), cache_root=cache, workers=2)


def test_batches_are_the_model_inputs(tmp_path: Path) -> None:
    data = _open(class_folders(tmp_path / "data"))
    assert data.labels == ("class0", "class1", "class2")
    assert [data.size(split) for split in SPLITS] == [12, 3, 3]
    for split in SPLITS:
        x_BTM = data.batch(split, range(data.size(split))).values
        assert x_BTM.shape == (data.size(split), data.front_end.frames, 128)
        assert x_BTM.dtype == torch.float32
        for x_TM, path, target in zip(
            x_BTM, data.paths(split), [data.labels.index(clip.label) for clip in data.clips(split)], strict=True
        ):
            exact_TM = data.front_end.collate([clip_features(path, data.front_end)]).values[0]
            # Half precision keeps 11 bits: of values up to 16, that is 1/256.
            assert (x_TM - exact_TM).abs().max() <= 1 / 256 / (2 * data.front_end.std)
            assert path.parent.name == data.labels[target]
    shuffled = [2, 0, 2]
    expected = data.batch("val", range(3)).values[shuffled]
    assert torch.equal(data.batch("val", shuffled).values, expected)
    assert torch.equal(data.batch("val", torch.tensor(shuffled)).values, expected)


def test_a_batch_belongs_to_whoever_asked(tmp_path: Path) -> None:
    data = _open(class_folders(tmp_path / "data"))
    first = data.batch("train", [0]).values
    kept = first.clone()
    first.fill_(0)
    assert torch.equal(data.batch("train", [0]).values, kept)


def test_normalised_by_the_training_clips_or_by_the_backbone(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data")
    data = _open(root)
    features = torch.cat([clip_features(p, data.front_end).double().flatten() for p in data.paths("train")])
    assert data.front_end.mean == pytest.approx(float(features.mean()), abs=1e-3)
    assert data.front_end.std == pytest.approx(float(features.std()), abs=1e-3)
    x_BTM = data.batch("train", range(data.size("train"))).values
    assert float(x_BTM.mean()) == pytest.approx(0.0, abs=1e-2)
    assert float(x_BTM.std()) == pytest.approx(0.5, abs=1e-2)
    own = _open(root, front_end=AstFrontEnd(mean=-3.0, std=2.0), normalize="backbone")
    assert (own.front_end.mean, own.front_end.std) == (-3.0, 2.0)
    expected = x_BTM[0] * 2 * data.front_end.std + data.front_end.mean
    torch.testing.assert_close(own.batch("train", [0]).values[0], (expected + 3.0) / 4.0)


def test_the_length_follows_the_clips_unless_it_is_given(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data", clips=5)
    assert _open(root).front_end.frames == 18  # 0.2 s
    tone(root / "class0" / "longer.wav", 0.5)
    data = _open(root)
    assert data.front_end.frames == data.describe()["longest_frames"] == 48
    fixed = _open(root, frames=20)
    assert fixed.batch("train", [0]).values.shape == (1, 20, 128)
    assert fixed.describe()["cut_clips"] == 1


def test_short_clips_are_padded_to_one_patch(tmp_path: Path) -> None:
    data = _open(class_folders(tmp_path / "data", seconds=0.05))
    assert data.front_end.frames == 16
    x_TM = data.batch("train", [0]).values[0]
    padding = torch.tensor(-data.front_end.mean) / (2 * data.front_end.std)
    torch.testing.assert_close(x_TM[4:], padding.expand(12, 128))


def test_a_few_long_clips_do_not_make_all_others_longer(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data", classes=2, clips=75, seconds=0.2)
    tone(root / "class0" / "long.wav", 3.0)
    data = _open(root)
    assert data.front_end.frames == 18
    assert data.describe()["cut_clips"] == 1
    assert data.describe()["longest_frames"] == 298


def test_every_kind_of_file_in_one_data_set(tmp_path: Path) -> None:
    number = 0
    for suffix in ("wav", "flac", "ogg", "mp3"):
        for rate in (8000, 22050, 44100, 48000):
            for channels in (1, 2):
                label = f"class{number % 2}"
                tone(tmp_path / "data" / label / f"{number}.{suffix}", 0.3, rate, channels, seed=number)
                number += 1
    data = _open(tmp_path / "data")
    assert sum(data.size(split) for split in SPLITS) == 32
    assert torch.isfinite(data.batch("train", range(data.size("train"))).values).all()
    assert data.describe()["splits"]["train"]["seconds"] == pytest.approx(0.3 * data.size("train"), abs=1.5)


def test_parts_of_recordings(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    lines = ["path,label,start,end"]
    for i in range(10):
        tone(tmp_path / "data" / f"{i}.wav", 1.0, seed=i)
        lines += [f"{i}.wav,a,0,0.5", f"{i}.wav,b,0.5,"]
    (tmp_path / "data" / "manifest.csv").write_text("\n".join(lines))
    data = _open(tmp_path / "data", "manifest")
    files = [{p.name for p in data.paths(split)} for split in SPLITS]
    assert not (files[0] & files[1] or files[0] & files[2] or files[1] & files[2])
    assert data.describe()["copies_of_train_clips"] == 0
    for i, clip in enumerate(data.clips("val")):
        exact_TM = data.front_end.collate([clip_features(clip.path, data.front_end, clip.start, clip.end)]).values[0]
        torch.testing.assert_close(data.batch("val", [i]).values[0], exact_TM, atol=1e-3, rtol=0)


def test_the_description_holds_what_a_report_needs(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data", classes=2)
    for name in ("class0", "class1"):
        soundfile.write(root / name / "silent.wav", np.zeros(3200), 16000)
    told = _open(root).describe()
    assert told["dataset"] == "folder"
    assert told["classes"] == 2
    assert told["splits"]["train"]["per_class"] == {"class0": 5, "class1": 5}
    assert told["splits"]["train"]["seconds"] == pytest.approx(2.0)
    assert len(told["digest"]) == 64
    assert told["silent_clips"] == 2
    assert "drawn per class" in told["protocol"]


def test_copies_across_splits_are_counted(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data" / "train", classes=2).parent
    for label in ("class0", "class1"):
        for split, name in (("val", "v.wav"), ("test", "t.wav")):
            (root / split / label).mkdir(parents=True)
            shutil.copy(root / "train" / label / "clip0.wav", root / split / label / name)
    tone(root / "test" / "class0" / "new.wav", 0.2, seed=999)
    assert _open(root).describe()["copies_of_train_clips"] == 4


# bad files


def _spoil(root: Path) -> None:
    (root / "class0" / "text.wav").write_text("no sound here" * 9)
    (root / "class0" / "zero.wav").touch()
    soundfile.write(root / "class1" / "short.flac", np.zeros(100), 16000)
    wave_S = np.zeros(8000, np.float32)
    wave_S[5] = np.nan
    soundfile.write(root / "class1" / "nan.wav", wave_S, 16000, subtype="FLOAT")
    soundfile.write(root / "class2" / "loud.wav", np.full(8000, 1e30, np.float32) * np.arange(8000), 16000, "FLOAT")


def test_all_bad_files_are_listed_with_their_reasons(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data")
    _spoil(root)
    with pytest.raises(BadFiles) as caught:
        _open(root)
    said = str(caught.value)
    assert said.startswith(f"5 of 23 clips in {root} cannot be used:")
    for line in (
        "class0/text.wav: unreadable (Format not recognised",
        "class0/zero.wav: empty (the file has 0 bytes)",
        "class1/nan.wav: not finite (1 of 8000 samples are NaN or infinite)",
        "class1/short.flac: too short (6.2 ms; features need at least 25 ms)",
        "class2/loud.wav: not finite (its samples are so large that the features overflow)",
        "--skip-bad-files",
    ):
        assert line in said
    assert [f.reason for f in caught.value.files] == [
        "unreadable",
        "empty",
        "not finite",
        "too short",
        "not finite",
    ]
    assert pickle.loads(pickle.dumps(caught.value)).files == caught.value.files


def test_bad_files_can_be_left_out_and_are_remembered(tmp_path: Path) -> None:
    clean = _open(class_folders(tmp_path / "data"))
    names = {split: clean.paths(split) for split in SPLITS}
    _spoil(tmp_path / "data")
    data = _open(tmp_path / "data", skip_bad_files=True)
    assert {split: data.paths(split) for split in SPLITS} == names  # left out before the split is drawn
    assert len(data.bad_files) == 5
    assert {"file": "class0/zero.wav", "reason": "empty", "detail": "the file has 0 bytes"} in data.describe()[
        "bad_files"
    ]
    assert data.digest != clean.digest
    torch.testing.assert_close(data.batch("val", range(3)).values, clean.batch("val", range(3)).values)


def test_long_lists_of_bad_files_are_cut(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data", classes=2)
    for i in range(25):
        (root / "class0" / f"bad{i:02d}.wav").touch()
    with pytest.raises(BadFiles) as caught:
        _open(root)
    assert "bad19.wav" in str(caught.value)
    assert "bad20.wav" not in str(caught.value)
    assert "… and 5 more" in str(caught.value)
    assert len(caught.value.files) == 25


def test_a_class_that_is_all_bad_is_too_small_to_split(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data", classes=2, clips=4)
    for i in range(2):
        (root / "class1" / f"clip{i}.wav").write_bytes(b"")
    with pytest.raises(UserError, match="class 'class1' has 2 clips; each class needs at least 3"):
        _open(root, skip_bad_files=True)


def test_missing_files_are_all_listed_before_any_work(tmp_path: Path) -> None:
    root = esc50(tmp_path / "data")
    for name in ("1-1001-A-0.wav", "3-3101-B-1.wav"):
        (root / "audio" / name).unlink()
    with pytest.raises(BadFiles) as caught:
        plan(_options(root, "esc50"))
    assert "2 of 40 clips" in str(caught.value)
    assert "audio/3-3101-B-1.wav: missing (there is no such file)" in str(caught.value)
    planned = plan(_options(root, "esc50", skip_bad_files=True))
    assert [f.reason for f in planned.bad_files] == ["missing", "missing"]
    data = _open(root, "esc50", skip_bad_files=True)
    assert [f.name for f in data.bad_files] == ["audio/1-1001-A-0.wav", "audio/3-3101-B-1.wav"]
    assert [data.size(split) for split in SPLITS] == [planned.size(split) for split in SPLITS]


def test_training_clips_without_any_sound_cannot_be_normalised(tmp_path: Path) -> None:
    for label in ("a", "b"):
        for i in range(4):
            (tmp_path / "data" / label).mkdir(parents=True, exist_ok=True)
            soundfile.write(tmp_path / "data" / label / f"{i}.wav", np.zeros(3200), 16000)
    with pytest.raises(UserError, match=r"every training clip holds the same constant sound .*normalize=backbone"):
        _open(tmp_path / "data")


def test_unknown_splits_are_refused(tmp_path: Path) -> None:
    data = _open(class_folders(tmp_path / "data"))
    for call in (data.size, data.paths, data.clips, lambda split: data.batch(split, [0]).values):
        with pytest.raises(UserError, match="there is no split 'dev'; the splits are train, val, test"):
            call("dev")


def test_a_whole_data_set_for_evaluation(tmp_path: Path) -> None:
    """One clip of a class is enough, and the numbers are those of the trained model's front end."""
    root = class_folders(tmp_path / "data", classes=1, clips=3)
    tone(root / "other" / "x.wav", 0.2)
    front_end = AstFrontEnd(frames=30, mean=-5.0, std=4.0)
    data = open_data(_options(root, frames=30), front_end, cache_root=tmp_path / "cache", whole=True)
    assert [data.size(split) for split in SPLITS] == [0, 0, 4]
    assert data.front_end == front_end
    assert data.batch("test", range(4)).values.shape == (4, 30, 128)
    assert data.describe()["protocol"] == "all clips, for evaluation"


# plans and repetition


def test_a_plan_is_what_opening_gives_and_needs_no_torch(tmp_path: Path) -> None:
    root = esc50(tmp_path / "data")
    options = _options(root, "esc50", protocol="petl_ast", fold=2)
    planned = plan(options)
    data = open_data(options, AstFrontEnd(), cache_root=tmp_path / "cache")
    assert data.plan == planned
    told = planned.describe()
    assert told["splits"]["val"] == {"clips": 8, "per_class": {"kind0": 4, "kind1": 4}}
    code = (
        "import sys; from trainables.config import DataOptions; from trainables.data import plan\n"
        f"plan(DataOptions(dataset='esc50', path={str(root)!r})); plan.__name__\n"
        "import trainables.data; assert callable(trainables.data.plan)\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_order_of_the_directory_does_not_matter(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "a" / "data", classes=2, clips=6)
    files = sorted(p for p in root.rglob("*.wav"))
    for path in reversed(files):  # most file systems then list them in another order
        target = tmp_path / "b" / "data" / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    one, other = _open(root), _open(tmp_path / "b" / "data")
    assert one.digest == other.digest
    for split in SPLITS:
        assert [p.name for p in one.paths(split)] == [p.name for p in other.paths(split)]
        everything = range(one.size(split))
        assert torch.equal(one.batch(split, everything).values, other.batch(split, everything).values)


def test_the_embedded_task_is_made_below_the_cache(tmp_path: Path) -> None:
    data = open_data(DataOptions(), AstFrontEnd(), cache_root=tmp_path)
    assert data.name == "embedded"
    assert len(data.labels) >= 8
    assert min(data.size(split) for split in SPLITS) >= 100
    assert all(tmp_path in path.parents for path in data.paths("test"))
    assert open_data(DataOptions(), AstFrontEnd(), cache_root=tmp_path).digest == data.digest


def test_opening_again_is_quick(tmp_path: Path) -> None:
    """2,000 clips: links to twenty files, for the time of an opening goes by the clips listed."""
    root = tmp_path / "data"
    for i in range(20):
        tone(tmp_path / "sounds" / f"{i}.wav", 0.1, seed=i)
    for i in range(2000):
        target = root / f"class{i % 10}" / f"{i}.wav"
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(tmp_path / "sounds" / f"{i % 20}.wav", target)
    _open(root)
    seconds = []
    for _ in range(3):
        start = time.process_time()
        assert _open(root).size("train") > 1000
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.3


@pytest.mark.skipif(not ESC10.is_dir(), reason="the ESC-10 recordings are not here")
def test_the_esc10_recordings(tmp_path: Path) -> None:
    options = _options(ESC10, "esc50", fold=3)
    data = open_data(options, AstFrontEnd(), cache_root=tmp_path)
    assert len(data.labels) == 10
    assert [data.size("train") + data.size("val"), data.size("test")] == [320, 80]
    told = data.describe()
    assert set(told["splits"]["test"]["per_class"].values()) == {8}
    assert not data.bad_files
    groups = [{clip.group for clip in data.clips(split)} for split in ("train", "val")]
    assert not groups[0] & groups[1]
    assert torch.isfinite(data.batch("test", range(80)).values).all()
    assert -8 < data.front_end.mean < -5
