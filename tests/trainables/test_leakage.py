"""What is tested is not learned from, nor chosen by: for every way to use a data set whose protocol promises that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from tests.trainables.miniatures import Case, cases, write
from trainables.config import DataOptions
from trainables.data import AudioData
from trainables.data.clips import SPLITS, Clip, leave_out_missing
from trainables.data.datasets import dataset
from trainables.data.datasets.protocols import petl_ast
from trainables.data.planning import DataPlan, make_plans, plan
from trainables.data.splits import folds_of
from trainables.session import Session

_CASES = cases()
_HONEST = [case for case in _CASES if not case.reads_test]


def _plans(case: Case, root: Path, **more: Any) -> list[DataPlan]:
    """The plans of every fold, where there are folds."""
    options = case.options(root, **more)
    clips, _ = leave_out_missing(plan(options).clips, False, root)
    if folds_of(clips):
        options = options.model_copy(update={"fold": "all"})
    return [make_plans(one, root, list(clips), [])[0] for one in _one_by_one(options, clips)]


def _one_by_one(options: DataOptions, clips: Sequence[Clip]) -> list[DataOptions]:
    folds = folds_of(clips) if options.fold == "all" else [options.fold]
    return [options.model_copy(update={"fold": fold}) for fold in folds]


def _parts(found: DataPlan, key: Callable[[Clip], Any]) -> dict[str, set[Any]]:
    return {split: {key(found.clips[i]) for i in found.splits.of(split)} - {None} for split in SPLITS}


def _apart(parts: dict[str, set[Any]]) -> bool:
    return not (parts["train"] & parts["val"] or parts["train"] & parts["test"] or parts["val"] & parts["test"])


@pytest.mark.parametrize("case", _HONEST, ids=str)
def test_splits_share_nothing(case: Case, miniature: Callable[[Case], Path]) -> None:
    own = case.name in ("folder", "manifest", "huggingface")  # whose voices are where is up to whoever brings them
    recur = own or dataset(case.name).targets[case.target].speakers_recur
    for found in _plans(case, miniature(case)):
        assert not found.splits.reads_test and not found.describe()["reads_test"]
        assert _apart(_parts(found, lambda clip: clip.order))
        assert _apart(_parts(found, lambda clip: (clip.path, clip.start, clip.end)))
        assert _apart(_parts(found, lambda clip: clip.group))
        speakers = _parts(found, lambda clip: clip.speaker)
        if not recur:
            assert not speakers["test"] & (speakers["train"] | speakers["val"])
        if not recur and case.protocol == "standard":  # SURE validates on voices that it trains on
            assert not speakers["train"] & speakers["val"]


@pytest.mark.parametrize("case", [case for case in _CASES if case.reads_test], ids=str)
def test_protocols_that_choose_epochs_on_the_test_say_so(case: Case, miniature: Callable[[Case], Path]) -> None:
    for found in _plans(case, miniature(case)):
        described = found.describe()
        assert described["reads_test"] is True
        assert set(found.splits.val) & set(found.splits.test)
        assert not set(found.splits.train) & set(found.splits.test)
        assert case.protocol in described["protocol"] and "epochs chosen on the same clips" in described["protocol"]


def _otherwise(clips: Sequence[Clip], test: Sequence[int]) -> list[Clip]:
    """The clips, the test ones with what other test clips are, and with texts that nobody has."""
    changed = list(clips)
    for i, other in zip(test, [*test[1:], test[0]], strict=True):
        clip, there = clips[i], clips[other]
        text = None if clip.text is None else f"{there.text} ÿ"
        changed[i] = replace(clip, label=there.label, labels=there.labels, negatives=there.negatives, text=text)
    return changed


@pytest.mark.parametrize("case", _HONEST, ids=str)
def test_what_test_clips_are_changes_neither_answers_nor_what_is_learned(
    case: Case, miniature: Callable[[Case], Path]
) -> None:
    root = miniature(case)
    before = plan(case.options(root))
    listed = before.clips[0].split is not None or before.clips[0].fold is not None
    if not listed and not case.sequence:
        pytest.skip("drawn by class: other classes are another draw")
    asked = [case.options(root)]
    if case.task in ("classification", "verification"):
        asked += [case.options(root, shots=1), case.options(root, shots=1, draw=2)]
    for options in asked:
        before = plan(options)
        (after,) = make_plans(options, root, _otherwise(before.clips, before.splits.test), [])
        assert after.clips != before.clips
        assert after.output == before.output
        assert (after.splits.train, after.splits.val) == (before.splits.train, before.splits.val)


_TRAINED = [
    ("esc50", "sound", {"data.fold": 2, "data.shots": 3}),
    ("librispeech", "text", {}),
    ("vctk", "verification", {}),
    ("manifest", "labels", {}),
    ("fluent_speech_commands", "slots", {}),
    ("timit", "phonemes", {}),
]


@pytest.mark.parametrize(("name", "target", "more"), _TRAINED, ids=[f"{name}-{target}" for name, target, _ in _TRAINED])
def test_other_recordings_in_the_test_give_the_same_training(
    name: str,
    target: str,
    more: dict[str, Any],
    tiny_ast: Path,
    tiny_wave: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Noise of another length for every test clip, and a test that nobody may read: bit for bit the same epochs."""
    case = next(c for c in _CASES if (c.name, c.target) == (name, target))
    root = write(case.copy, tmp_path / "data")
    waves = case.sequence
    flat = {
        **case.flat(root),
        "backbone": str(tiny_wave if waves else tiny_ast),
        "method": "linear",
        "epochs": 2,
        "train.batch_size": 16,
        "train.precision": "float32",
        **more,
    }

    def trained() -> tuple[list[dict[str, Any]], AudioData]:
        session = Session(None, torch.device("cpu"), None, case.monitor)
        reports = [session.epoch("t", flat) for _ in range(2)]
        timed = ("seconds", "began", "first_step", "ended", "train/data_wait")
        data = next(iter(session._data.values()))[0]
        return [{k: v for k, v in report.items() if k not in timed} for report in reports], data

    before, data = trained()
    front_end = data.front_end
    draw = np.random.default_rng(1)
    for path in {clip.path for clip in data.clips("test")}:
        form = "NIST" if name == "timit" else None
        noise_S = draw.standard_normal(20000) * 0.3
        soundfile.write(path, noise_S, 16000, format=form, subtype="PCM_16" if form else None)
    batch = AudioData.batch

    def guarded(self: AudioData, split: str, indices: Any) -> Any:
        assert split != "test"
        return batch(self, split, indices)

    monkeypatch.setattr(AudioData, "batch", guarded)
    after, changed = trained()
    assert changed.digest != data.digest
    assert after == before
    assert (changed.front_end == front_end) or waves
    if waves:  # nothing is padded to the longest input
        assert replace(changed.front_end, frames=front_end.frames) == front_end


def test_a_fold_that_is_tested_is_validated_on_in_none_of_its_repeats(miniature: Callable[[Case], Path]) -> None:
    case = Case("esc50", "sound", "esc50", "petl_ast")
    clips = plan(case.options(miniature(case))).clips
    for fold in range(1, 6):
        splits = petl_ast(clips, case.options(miniature(case), fold=fold))
        assert {clips[i].fold for i in splits.test} == {fold}
        assert {clips[i].fold for i in splits.val} == {(fold - 2) % 5 + 1}
