"""Running out of memory: batches are cut, the training stays the same, and nothing of the failure stays behind."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainables.small_trials import flat_of
from trainables.checkpoints import CheckpointStore
from trainables.memory import OutOfMemory, is_out_of_memory, noticing, pieces
from trainables.session import Session

_ROOT = Path(__file__).parents[2]
_UNOBTAINABLE = 1 << 60  # bytes


def _session(place: Path) -> Session:
    return Session(CheckpointStore(str(place)), torch.device("cpu"), None, ("val/accuracy", "max"))


def _numbers(report: Mapping[str, Any]) -> dict[str, float]:
    return {k: v for k, v in report.items() if "/" in k and "data_wait" not in k}


@settings(max_examples=50)
@given(st.integers(1, 70), st.integers(1, 80), st.integers(0, 3))
def test_pieces_hold_every_clip_once(held: int, parts: int, more: int) -> None:
    cut = pieces(held, parts, held + more)
    clips = list(range(held))
    assert [clip for piece in cut if piece.counts for clip in clips[piece.clips]] == clips
    assert len(cut) == min(parts, held + more)  # as many as the others have
    sizes = [len(clips[piece.clips]) for piece in cut if piece.counts]
    assert max(sizes) - min(sizes) <= 1
    assert all(clips[piece.clips] for piece in cut)  # no backbone takes an empty batch
    assert [piece.last for piece in cut] == [False] * (len(cut) - 1) + [True]


def test_real_failures_are_known_for_what_they_are() -> None:
    said = r"out of memory while judging on 3 clips at a time: .*alloc"
    for allocate in (lambda: torch.empty(_UNOBTAINABLE), lambda: np.empty(_UNOBTAINABLE, np.int8)):
        with pytest.raises(OutOfMemory, match=said) as caught, noticing(3, "judging"):
            allocate()
        assert caught.value.clips == 3 and "\n" not in str(caught.value)
    with pytest.raises(RuntimeError) as other, noticing(3, "judging"):
        torch.ones(2, 3) @ torch.ones(2, 3)
    assert not is_out_of_memory(other.value)


_SCALED = {"optim.eps": 1.0, "optim.lr": 0.3, "train.grad_clip": 1.0}  # a wrong scale of the gradients shows
_CUT = [
    pytest.param("tiny_ast", {"aug.time_mask": 8, "aug.mixup": 0.5, **_SCALED}, id="augmented"),
    pytest.param("tiny_wave", {"train.accumulate": 2, "train.batching": "bucketed", **_SCALED}, id="padded"),
]


@pytest.mark.parametrize(("backbone", "more"), _CUT)
def test_parts_change_nothing(
    backbone: str, more: dict[str, Any], uneven: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    flat = flat_of(uneven, request.getfixturevalue(backbone), **{"epochs": 2, "train.batch_size": 7, **more})
    if backbone == "tiny_wave":
        flat = {k: v for k, v in flat.items() if k != "lora.rank"} | {"method": "adapter", "adapter.reduction": 4}
    session = _session(tmp_path)
    found = {}
    for parts in (1, 2, 100):
        reports = [session.epoch(f"t{parts}", flat, parts=parts) for _ in range(2)]
        assert [report.get("parts", 1) for report in reports] == [parts, parts]
        last = CheckpointStore(str(tmp_path)).read(f"t{parts}", "last")
        assert last is not None
        found[parts] = [_numbers(report) for report in reports], last.part("model")
    for parts in (2, 100):
        for one, other in zip(found[1][0], found[parts][0], strict=True):
            assert other == pytest.approx(one, rel=1e-4, abs=1e-5)
        for name, tensor in found[1][1].items():
            torch.testing.assert_close(found[parts][1][name], tensor, rtol=1e-3, atol=1e-5)


class _Greedy:
    """Has a backbone ask for memory that no machine has, when it is given more clips than `most`."""

    def __init__(self, session: Session, most: int) -> None:
        self.most = most
        self.seen: list[weakref.ref[torch.Tensor]] = []
        (backbone,) = session._backbones.values()
        backbone.register_forward_pre_hook(self._ask, with_kwargs=True)

    def _ask(self, _: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        values = next(v for v in (*given, *named.values()) if isinstance(v, torch.Tensor))
        if len(values) > self.most:
            self.seen.append(weakref.ref(values))
            torch.empty(_UNOBTAINABLE)


def test_memory_that_runs_out_is_answered_and_survived(uneven: Path, tiny_ast: Path, tmp_path: Path) -> None:
    flat = flat_of(uneven, tiny_ast, **{"epochs": 3, "train.batch_size": 14, "train.eval_batch_size": 4})
    plain = _session(tmp_path / "plain")
    wanted = [_numbers(plain.epoch("t", flat)) for _ in range(3)]
    session = _session(tmp_path / "greedy")
    assert session.prepare(flat) == {"prepared": True}
    greedy = _Greedy(session, most=7)
    answer = session.epoch("t", flat, fresh=True)
    assert answer["oom"].startswith("out of memory while training on 14 clips at a time: ")
    assert (answer["micro"], answer["parts"]) == (14, 1)
    assert [seen() for seen in greedy.seen] == [None], "frames of the failure are still there"
    report = session.epoch("t", flat, fresh=True, parts=2)
    assert (report["epoch"], report["parts"]) == (1, 2)
    assert report["notes"] == ["memory ran out: what is computed at a time is cut into 2 parts"]
    assert _numbers(report) == pytest.approx(wanted[0], rel=1e-4, abs=1e-5)
    greedy.most = 4  # in the middle of the trial: the epoch is trained again from the one before
    answer = session.epoch("t", flat, parts=2)
    assert (answer["micro"], answer["parts"]) == (7, 2)
    report = session.epoch("t", flat, parts=4)
    assert _numbers(report) == pytest.approx(wanted[1], rel=1e-4, abs=1e-5)
    assert (report["epoch"], report["parts"]) == (2, 4)
    gc.collect()
    assert all(seen() is None for seen in greedy.seen)
    # Who goes on elsewhere knows, even if nobody says so; and so does the evaluation.
    other = _session(tmp_path / "greedy")
    other.prepare(flat)
    _Greedy(other, most=4)
    again = other.epoch("t", flat, fresh=True)
    assert (again["epoch"], again["parts"]) == (2, 4)
    report = other.epoch("t", flat)
    assert (report["epoch"], report["parts"], report["done"]) == (3, 4, True)
    assert _numbers(report) == pytest.approx(wanted[2], rel=1e-4, abs=1e-5)
    assert other.evaluate("t", flat, "test")["metrics"] == pytest.approx(
        plain.evaluate("t", flat, "test")["metrics"], abs=1e-5
    )


def test_judging_is_cut_too_and_a_single_clip_is_the_end(uneven: Path, tiny_ast: Path, tmp_path: Path) -> None:
    flat = flat_of(uneven, tiny_ast, **{"epochs": 1, "train.batch_size": 2})
    session = _session(tmp_path)
    session.prepare(flat)
    greedy = _Greedy(session, most=2)
    answer = session.epoch("t", flat)
    assert answer["oom"].startswith("out of memory while judging on 4 clips at a time: ")
    report = session.epoch("t", flat, parts=2)
    assert report["done"] and report["parts"] == 2
    greedy.most = 1
    answer = session.evaluate("t", flat, "test")
    assert (answer["micro"], answer["parts"]) == (2, 2)
    greedy.most = 0
    answer = session.evaluate("t", flat, "test", parts=8)
    assert set(answer) == {"error"} and answer["error"].endswith("it needs a device with more memory")
    answer = session.epoch("u", flat, parts=2)
    assert "while training on 1 clip at a time" in answer["error"]
    greedy.most = 99
    assert session.epoch("v", flat)["done"]  # the backbone is as it was


_LIMITED = """
import json, resource, sys
from pathlib import Path
import torch
from tests.trainables.test_memory import _numbers, _session
flat, place = json.loads(sys.argv[1]), Path(sys.argv[2])
torch.set_num_threads(1)

def used(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) << 10

session = _session(place)
halves = session.epoch("halves", flat, parts=2)
peak_of_halves = used("VmPeak")
whole = session.epoch("whole", flat)
peak_of_whole = used("VmPeak")
session.close()
assert peak_of_whole > peak_of_halves + (80 << 20), "not clear-cut"
limit = (peak_of_halves + peak_of_whole) // 2
assert used("VmSize") < peak_of_halves
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
answers = [session.epoch("t", flat, fresh=True), session.epoch("t", flat, fresh=True, parts=2)]
answers += [session.evaluate("t", flat, "test"), session.evaluate("t", flat, "test", parts=2)]
print("RESULT", json.dumps({"whole": whole, "answers": answers}))
"""


_TWO = """
import json, os, sys
from pathlib import Path
import torch.distributed as dist
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method=sys.argv[2], rank=rank, world_size=2)
from tests.trainables.test_memory import _numbers, _session
place, found = Path(sys.argv[4]), []
for name, (flat, parts) in json.loads(sys.argv[3]).items():
    session = _session(place)
    found.append([_numbers(session.epoch(name, flat, parts=parts))])
    if rank == 0:
        (place / name).rename(place / "aside")
        (place / name).write_text("in the way")
    dist.barrier()
    assert set(session.epoch(name, flat)) == {"storage"}
    if rank == 0:
        (place / name).unlink()
        (place / "aside").rename(place / name)
    dist.barrier()
    found[-1].append(_numbers(session.epoch(name, flat)))
    session.close()
print("RESULT", json.dumps(found), flush=True)
dist.barrier()
os._exit(0)  # gloo's threads may abort the interpreter's end
"""


@pytest.mark.slow
def test_workers_cut_alike_and_wait_for_each_other(uneven: Path, tiny_ast: Path, tmp_path: Path) -> None:
    """Batches of 7 clips, 4 and 3 for the two: in 4 parts one of them has a part without clips."""
    method = {"method": "adapter", "adapter.reduction": 4, "epochs": 2, "train.batch_size": 7}
    flat = {k: v for k, v in flat_of(uneven, tiny_ast, **method).items() if k != "lora.rank"}
    norms = {"adapter.block": "conformer", "adapter.kernel": 3}  # BatchNorm: the workers meet in every part
    asked = {"a": (flat | _SCALED, 4), "b": (flat | _SCALED, 3), "c": (flat | norms, 4)}
    place = tmp_path / "kept"
    together = [
        subprocess.Popen(
            [sys.executable, "-c", _TWO, str(rank), f"file://{tmp_path / 'meet'}", json.dumps(asked), str(place)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=_ROOT,
        )
        for rank in range(2)
    ]
    alone = _session(tmp_path / "alone")
    wanted = [_numbers(alone.epoch("a", flat | _SCALED)) for _ in range(2)]
    outputs = [process.communicate(timeout=200)[0] for process in together]
    assert [process.returncode for process in together] == [0, 0]
    found = [json.loads(next(x for x in output.splitlines() if x.startswith("RESULT"))[7:]) for output in outputs]
    assert found[0] == found[1]
    for reports in found[0][:2]:
        for one, other in zip(wanted, reports, strict=True):
            assert other == pytest.approx(one, rel=1e-4, abs=1e-5)


# What is freed goes back to the system at once: the limit is then on what is in use.
_MALLOC = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": str(1 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 20)}


@pytest.mark.slow
def test_a_process_that_may_not_have_more_memory_trains_on(tones: Path, tmp_path: Path) -> None:
    """The limit is between what whole batches took and what halves did, in the same process."""
    from transformers import ASTConfig, ASTFeatureExtractor, ASTModel

    torch.manual_seed(0)
    config = ASTConfig(
        hidden_size=64,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=4096,
        frequency_stride=16,
        time_stride=4,
        max_length=64,
    )
    ASTModel(config).save_pretrained(tmp_path / "ast")
    ASTFeatureExtractor(max_length=64).save_pretrained(tmp_path / "ast")
    flat = {
        "backbone": str(tmp_path / "ast"),
        "dataset": "folder",
        "data": str(tones),
        "method": "adapter",
        "adapter.reduction": 4,
        "epochs": 1,
        "train.batch_size": 36,
        "train.precision": "float32",
    }
    finished = subprocess.run(
        [sys.executable, "-c", _LIMITED, json.dumps(flat), str(tmp_path / "kept")],
        env={**os.environ, **_MALLOC, "OMP_NUM_THREADS": "1"},
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    found = json.loads(next(x for x in finished.stdout.splitlines() if x.startswith("RESULT"))[7:])
    failed, trained, _, judged = found["answers"]
    assert failed["micro"] == 36 and "DefaultCPUAllocator" in failed["oom"]
    assert trained["parts"] == 2
    assert _numbers(trained) == pytest.approx(_numbers(found["whole"]), rel=1e-4, abs=1e-5)
    assert judged["epoch"] == 1 and judged["metrics"]
