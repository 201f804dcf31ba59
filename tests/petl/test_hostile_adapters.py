"""Adapter directories of strangers: whatever is in them, they load or are refused in one clear sentence."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from petl import AudioModel, UserError, attach, load_adapter, load_backbone, save_adapter
from petl.config import method_keys
from petl.frontend import AstFrontEnd
from tests.petl.models import LABELS, MELS, inputs, tiny_checkpoint, trained

FRAMES = 40
TENSORS, CONFIG, FRONT_END = "adapter_model.safetensors", "petl_config.json", "preprocessor_config.json"
METHODS: list[dict[str, Any]] = [
    {"method": "soft_moa", "moa.experts": 2, "moa.reduction": 8.0},
    {"method": "lora", "lora.rank": 2},  # peft's own layout
]
_LONGEST = 1500  # characters that anybody reads


def bounded(examples: int) -> Any:
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=checks)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("good")
    checkpoint = tiny_checkpoint(root / "ast")
    found = []
    for i, flat in enumerate(METHODS):
        adapted = attach(load_backbone(str(checkpoint), frames=FRAMES), flat, seed=1)
        model = AudioModel(adapted, LABELS, AstFrontEnd(mel_bins=MELS, frames=FRAMES), seed=1)
        found.append(save_adapter(root / f"adapter{i}", trained(model).eval()))
    return found


@pytest.fixture(autouse=True)
def _memory(good: list[Path]) -> Any:
    """No test here takes more than half a gigabyte on top of what was taken before."""
    load_adapter(good[0])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**19  # KiB


def _copy(good: Path, target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    return Path(shutil.copytree(good, target))


def _refusal(directory: Path) -> str:
    with pytest.raises(UserError) as refused:
        load_adapter(directory)
    said = str(refused.value)
    assert said and len(said) <= _LONGEST and all(c.isprintable() or c == "\n" for c in said)
    return said


def _loads_or_says(directory: Path) -> AudioModel | None:
    try:
        model = load_adapter(directory)
    except UserError as error:
        assert str(error) and len(str(error)) <= _LONGEST
        return None
    assert all(bool(torch.isfinite(tensor).all()) for tensor in model.stored().values())
    return model


@bounded(25)
@given(data=st.data())
def test_files_that_end_too_early(data: st.DataObject, good: list[Path], tmp_path: Path) -> None:
    directory = _copy(data.draw(st.sampled_from(good)), tmp_path / "a")
    file = directory / data.draw(st.sampled_from([TENSORS, CONFIG, FRONT_END]))
    # All but the line feed at the end of JSON.
    os.truncate(file, data.draw(st.integers(0, file.stat().st_size - 2)))
    assert file.name in _refusal(directory)


@bounded(25)
@given(data=st.data())
def test_bytes_that_changed(data: st.DataObject, good: list[Path], tmp_path: Path) -> None:
    directory = _copy(data.draw(st.sampled_from(good)), tmp_path / "a")
    file = directory / data.draw(st.sampled_from([TENSORS, CONFIG, FRONT_END]))
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, min(len(content), 3000) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(content)
    _loads_or_says(directory)


ODD = st.sampled_from(
    [
        *(None, True, False, 0, -1, 2, 10**6, 10**12, -(2**63), 10**400, 0.0, -0.5, 1e-320, 1e308),
        *(float("nan"), float("inf"), "", "a", "../../etc/passwd", "/dev/zero", "\x00", "\x1b[2J", "x" * 5000, "1e999"),
        *([], {}, [[]], [None], ["a", "b"], {"a": 1}, [[[[[[1]]]]]], {"kind": "tags"}),
        *({"kind": "tokens", "unit": "characters"}, {"kind": "slots", "slots": [["x", 3]]}, "lora+adapter", "full"),
    ]
)


@pytest.mark.slow
@bounded(40)
@given(data=st.data())
def test_values_that_nobody_saves(data: st.DataObject, good: list[Path], tmp_path: Path) -> None:
    """Anywhere in the JSON, and as any key of a method."""
    directory = _copy(data.draw(st.sampled_from(good)), tmp_path / "a")
    file = directory / data.draw(st.sampled_from([CONFIG, CONFIG, FRONT_END]))
    values = json.loads(file.read_text())
    places = [(values, key) for key in values]
    places += [(inner, key) for inner in values.values() if isinstance(inner, dict) for key in inner]
    if file.name == CONFIG:
        places += [(values["method"], key) for key in sorted(key.key for key in method_keys())]
    where, key = data.draw(st.sampled_from(places))
    if data.draw(st.integers(0, 9)) == 0:
        where.pop(key, None)
    else:
        where[key] = data.draw(ODD)
    file.write_text(json.dumps(values))
    _loads_or_says(directory)


def _header(length: int, text: bytes, size: int = 0) -> Callable[[Path], Any]:
    def write(directory: Path) -> None:
        (directory / TENSORS).write_bytes(struct.pack("<Q", length) + text)
        if size:
            os.truncate(directory / TENSORS, size)  # sparse: it takes no room

    return write


def _tensors(edit: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], Any]:
    def apply(directory: Path) -> None:
        tensors = load_file(directory / TENSORS)
        edit(tensors)
        save_file(tensors, directory / TENSORS)

    return apply


def _link(name: str, target: str) -> Callable[[Path], Any]:
    def apply(directory: Path) -> None:
        (directory / name).unlink()
        (directory / name).symlink_to(target)

    return apply


def _fifo(directory: Path) -> None:
    (directory / FRONT_END).unlink()
    os.mkfifo(directory / FRONT_END)


def _json(name: str, edit: Callable[[dict[str, Any]], Any]) -> Callable[[Path], Any]:
    def apply(directory: Path) -> None:
        values = json.loads((directory / name).read_text())
        edit(values)
        (directory / name).write_text(json.dumps(values))

    return apply


def _pickled(directory: Path) -> None:
    (directory / TENSORS).unlink()
    torch.save({}, directory / "adapter_model.bin")


def _twice(directory: Path) -> None:
    text = (directory / CONFIG).read_text()
    (directory / CONFIG).write_text('{"labels": ["x"],' + text.strip()[1:])


BIAS = "head.bias"
_F8 = {"x": torch.zeros(3, dtype=torch.float8_e4m3fn)}
BIG = json.dumps({"x": {"dtype": "F32", "shape": [10**9 - 10], "data_offsets": [0, 4 * (10**9 - 10)]}}).encode()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_header(2**63, b"{}"), "cut off in its header"),
        (_header(2**64 - 1, b"{}", 10**6), "cut off in its header"),
        (_header(100_000_000, b'{"x": [', 100_000_100), "a header of 100,000,000 bytes"),
        (_header(len(BIG), BIG, 8 + len(BIG) + 4 * (10**9 - 10)), "lacks 'base_model"),
        (_header(200_000, b"[" * 200_000), "not a complete safetensors file"),
        (_header(2, b"{}"), "but 0 are stored|lacks"),
        (_tensors(lambda t: t.update({"../../../tmp/x": torch.zeros(1)})), r"'\.\./\.\./\.\./tmp/x', which the conf"),
        (_tensors(lambda t: t.update({"/etc/passwd": torch.zeros(1)})), "'/etc/passwd', which the configuration"),
        (_tensors(lambda t: t.update({"\x1b[31m": torch.zeros(1)})), r"'\\x1b\[31m', which the configuration"),
        (_tensors(lambda t: t.update({"x" * 100_000: torch.zeros(1)})), "which the configuration has no place"),
        (_tensors(lambda t: t.update({BIAS: t[BIAS].to(torch.int64)})), "holds I64; floating-point"),
        (_tensors(lambda t: t.update({BIAS: t[BIAS] > 0})), "holds BOOL; floating-point"),
        (_tensors(lambda t: t.update({BIAS: _F8["x"]})), "holds F8_E4M3; floating-point"),
        (_tensors(lambda t: t.update({BIAS: t[BIAS].to(torch.complex64)})), "holds C64|not a complete safetensors"),
        (_tensors(lambda t: t.update({BIAS: torch.zeros(0)})), r"has shape \(0,\), but"),
        (_tensors(lambda t: t.update({BIAS: torch.zeros(())})), r"has shape \(\), but"),
        (_tensors(lambda t: t[BIAS].fill_(torch.nan)), "not finite"),
        (_tensors(lambda t: t[BIAS].fill_(-torch.inf)), "not finite"),
        (_tensors(lambda t: t.pop(BIAS)), "lacks 'head.bias'"),
        (_link(CONFIG, "/etc/hosts"), "a link that leads out of its directory, to /etc/hosts"),
        (_link(FRONT_END, str(Path(__file__))), "a link that leads out of its directory"),
        (_link(TENSORS, "/dev/zero"), "a link that leads out"),
        (_link(TENSORS, TENSORS), "cannot be read"),
        (_fifo, "not a file"),
        (_pickled, "adapter_model.bin: pickled weights can run code and are not read"),
        (_twice, "the key 'labels' is there twice"),
        (_json(CONFIG, lambda v: v.update(labels=[str(i) for i in range(300_000)])), "but .* are stored"),
        (_json(CONFIG, lambda v: v.update(labels=["a"] * 300_000)), "all different"),
        (
            _json(
                CONFIG,
                lambda v: v.update(
                    output={"kind": "tokens", "unit": "phones"},
                    labels=["[PAD]", "[UNK]", *map(str, range(200_000)), "7"],
                ),
            ),
            "'7' is there twice",
        ),
        (_json(CONFIG, lambda v: v.update(labels=["x" * 10**6, "x" * 10**6])), "all different"),
        (_json(CONFIG, lambda v: v.update(padding="x" * 17 * 2**20)), "larger than 16 MB"),
        (_json(CONFIG, lambda v: v["backbone"].update(name="/etc/hosts")), "is a file"),
        (_json(CONFIG, lambda v: v["backbone"].update(name="/proc/self")), "has no config.json"),
        (_json(CONFIG, lambda v: v["backbone"].update(name="http://evil/x")), "does not exist"),
        (_json(CONFIG, lambda v: v["backbone"].update(name="\x1b[2J" * 9000)), "does not exist|cannot be"),
        (_json(CONFIG, lambda v: v["backbone"].update(frequency_stride=10**30)), "a whole number from 1 to"),
        (_json(FRONT_END, lambda v: v.update(mean=float("nan"))), "mean"),
        (_json(FRONT_END, lambda v: v.update(std=0)), "std"),
    ],
)
def test_what_a_stranger_may_try(damage: Callable[[Path], Any], said: str, good: list[Path], tmp_path: Path) -> None:
    directory = _copy(good[0], tmp_path / "adapter0")
    damage(directory)
    assert re.search(said, _refusal(directory))


def test_nothing_but_its_files_and_the_backbone_is_opened(good: list[Path], tmp_path: Path) -> None:
    """`adapter_config.json` (which names a backbone, too) is for peft; here it is not read, nor anything else there."""
    directory = _copy(good[1], tmp_path / "a")
    (directory / "adapter_config.json").write_text('{"base_model_name_or_path": "/etc", "auto_mapping": {"x": "os"}}')
    (directory / "configuration_evil.py").write_text("raise SystemExit")
    (directory / "adapter_model.bin").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    expected = load_adapter(good[1])(inputs(frames=FRAMES))
    assert torch.equal(load_adapter(directory)(inputs(frames=FRAMES)), expected)


def test_the_links_of_a_hub_cache_are_followed(good: list[Path], tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "snapshots" / "abc", tmp_path / "blobs"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sorted(good[0].iterdir())):
        shutil.copy(file, blobs / str(number))
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    assert load_adapter(snapshot).labels == LABELS


def test_a_backbone_that_describes_more_than_it_holds(tmp_path: Path) -> None:
    """An adapter may name the backbone of a stranger."""
    checkpoint = tiny_checkpoint(tmp_path / "ast")
    values = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**values, "intermediate_size": 10**9}))
    with pytest.raises(UserError, match=r"describes 195,.* parameters, but its weights are"):
        load_backbone(str(checkpoint))
