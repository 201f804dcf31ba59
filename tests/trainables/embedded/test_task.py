"""The embedded task: balanced, deterministic in every process, made once and whole."""

from __future__ import annotations

import csv
import hashlib
import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile

from petl.errors import UserError
from trainables.embedded import prepare, task_directory
from trainables.embedded.patterns import PATTERNS, SAMPLES
from trainables.embedded.task import CLIPS_PER_CLASS

_ROOT = Path(__file__).resolve().parents[3]

_DIGEST = """
import sys
from pathlib import Path
from trainables.embedded.task import prepare
from tests.trainables.embedded.test_task import digest
assert "torch" not in sys.modules
print(digest(prepare(Path(sys.argv[1]))))
"""


def digest(directory: Path) -> str:
    """One digest of all names and bytes of a data set."""
    total = hashlib.sha256()
    for path in sorted(p for p in directory.rglob("*") if p.is_file()):
        total.update(path.relative_to(directory).as_posix().encode())
        total.update(path.read_bytes())
    return total.hexdigest()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("task"))


def test_splits_are_balanced_and_the_clips_are_as_promised(made: Path) -> None:
    with (made / "manifest.csv").open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
        assert reader.fieldnames == ["path", "label", "split"]
    counts = Counter((row["split"], row["label"]) for row in rows)
    assert counts == {(split, label): n for split, n in CLIPS_PER_CLASS.items() for label in PATTERNS}
    assert len({row["path"] for row in rows}) == len(rows)
    seen = set()
    for row in rows:
        samples, rate = soundfile.read(made / row["path"], dtype="int16")
        assert rate == 16_000
        assert samples.shape == (SAMPLES,)
        assert np.abs(samples).max() > 1000
        seen.add(samples.tobytes())
    assert len(seen) == len(rows), "no clip may be in the set twice"


def test_other_processes_make_the_same_bytes(made: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONHASHSEED": "4711", "PYTHONPATH": str(_ROOT)}
    other = subprocess.run(
        [sys.executable, "-c", _DIGEST, str(tmp_path)],
        cwd=_ROOT, env=environment, capture_output=True, text=True, check=True, timeout=200,
    )  # fmt: skip
    assert other.stdout.split() == [digest(made)]


def test_it_is_made_once(made: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    assert prepare(made.parent) == made == task_directory(made.parent)
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*")} == before


def test_a_damaged_directory_is_made_anew_and_callers_at_once_share_one(tmp_path: Path, made: Path) -> None:
    task_directory(tmp_path).mkdir()
    with ThreadPoolExecutor(3) as threads:
        results = list(threads.map(lambda _: prepare(tmp_path), range(3)))
    assert set(results) == {task_directory(tmp_path)}
    assert digest(results[0]) == digest(made)
    assert not [p for p in tmp_path.iterdir() if p.is_dir() and p != results[0]], "nothing temporary stays"


def test_a_place_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("not a directory")
    with pytest.raises(UserError, match="cannot be written"):
        prepare(blocker / "inside")
