"""A trial is a function of its configuration, its data and its seed: not of the hash seed, nor of who listed what."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainables.miniatures import Case, defaults
from trainables import batches
from trainables.config import TrialConfig
from trainables.data.clips import SPLITS
from trainables.data.planning import plan
from trainables.session import Session

_ROOT = Path(__file__).parents[2]
_TRIED: list[tuple[str, str, dict[str, Any]]] = [
    ("esc50", "sound", {"data.fold": "1,3", "data.shots": 3, "data.draw": "1,2", "train.batching": "bucketed"}),
    ("librispeech", "text", {"train.batching": "bucketed", "train.batch_seconds": 3.0}),
    ("vctk", "verification", {}),
    ("manifest", "labels", {"train.balanced": True}),
    ("huggingface", "label", {"aug.mixup": 0.5, "aug.time_mask": 8}),
    ("folder", "label", {}),
]

_ELSEWHERE = """
import json, sys
from tests.trainables.test_determinism import trained
print("FOUND", json.dumps(trained(json.loads(sys.argv[1]))))
"""


def trained(asked: list[tuple[dict[str, Any], str, str]]) -> list[dict[str, Any]]:
    """Everything that could differ, of the first epoch of some trials: configuration, metric and mode."""
    found = []
    for flat, metric, mode in asked:
        config = TrialConfig.from_flat(flat)
        session = Session(None, torch.device("cpu"), None, (metric, mode))
        report = session.epoch("t", flat)
        repeats = session.data(config)
        found.append(
            {
                "digest": [data.digest for data in repeats],
                "labels": [list(data.labels) for data in repeats],
                "splits": [{s: [list(c.order) for c in data.clips(s)] for s in SPLITS} for data in repeats],
                "batches": [[b.tolist() for b in batches.steps_of(config, data, 2)] for data in repeats],
                "front_end": [repr(data.front_end) for data in repeats],
                "report": {k: v for k, v in report.items() if "/" in k and k != "train/data_wait"},
            }
        )
        session.close()
    return found


def _reversed(source: Path, target: Path) -> Path:
    """A copy whose files were written in another order, so that the file system may list them in another one."""
    files = sorted((path for path in source.rglob("*") if path.is_file()), reverse=True)
    for path in files:
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
    return target


def test_processes_that_hash_and_list_differently_train_alike(
    miniature: Callable[[Case], Path], tiny_ast: Path, tiny_wave: Path, tmp_path: Path
) -> None:
    asked: list[list[tuple[dict[str, Any], str, str]]] = [[], []]
    for name, target, more in _TRIED:
        default = next(case for case in defaults() if case.name == name)
        case = Case(name, target, default.subset, "standard")
        common = {
            "backbone": str(tiny_wave if case.sequence else tiny_ast),
            "method": "adapter",
            "adapter.reduction": 4,
            "train.batch_size": 8,
            "train.precision": "float32",
            "epochs": 1,
            **more,
        }
        asked[0].append(({**case.flat(miniature(case)), **common}, *case.monitor))
        elsewhere = _reversed(miniature(case), tmp_path / case.copy)
        asked[1].append(({**case.flat(elsewhere), **common}, *case.monitor))
    environment = {**os.environ, "PYTHONHASHSEED": "4711", "PETL_CACHE": str(tmp_path / "cache")}
    process = subprocess.Popen(
        [sys.executable, "-c", _ELSEWHERE, json.dumps(asked[1])],
        env={**environment, "PYTHONPATH": str(_ROOT)},
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    here = json.loads(json.dumps(trained(asked[0])))
    output, errors = process.communicate(timeout=280)
    assert process.returncode == 0, errors[-2000:]
    there = json.loads(next(line for line in output.splitlines() if line.startswith("FOUND"))[6:])
    for (name, target, _), one, other in zip(_TRIED, here, there, strict=True):
        for key, value in one.items():
            assert other[key] == value, (name, target, key)
    assert len(here[0]["splits"]) == 4  # two folds of two draws
    assert here[0]["splits"][0]["train"] != here[0]["splits"][1]["train"]


@pytest.mark.parametrize("case", defaults(), ids=str)
def test_a_data_set_is_listed_alike_wherever_and_in_whatever_order_it_lies(
    case: Case, miniature: Callable[[Case], Path], tmp_path: Path
) -> None:
    root = miniature(case)
    one, other = plan(case.options(root)), plan(case.options(_reversed(root, tmp_path / "reversed")))
    assert [clip.order for clip in other.clips] == [clip.order for clip in one.clips]
    assert (other.output, other.splits) == (one.output, one.splits)


def test_what_a_session_did_before_leaves_no_trace(miniature: Callable[[Case], Path], tiny_wave: Path) -> None:
    """Sped up, more clips are too short for their transcripts: not for the trials that come after."""
    case = Case("meld", "text", "", "standard")
    flat = {**case.flat(miniature(case)), "backbone": str(tiny_wave), "method": "linear"}
    noisy = TrialConfig.from_flat({**flat, "aug.noise": 0.5})
    fast = TrialConfig.from_flat({**flat, "aug.noise": 0.5, "aug.speed": 0.45})
    session = Session(None, torch.device("cpu"), None, case.monitor)
    dropped = [len(session.data(config)[0].dropped) for config in (fast, noisy, fast)]
    assert dropped == [3, 0, 3]  # the long sentence of every dialogue
