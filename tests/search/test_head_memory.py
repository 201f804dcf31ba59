"""How many trials at a time the driving machine carries."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from search.head_memory import SLOT_MB, slots_here

MB = 1 << 20


@pytest.mark.parametrize(
    ("most", "used"),
    [("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")],
)
def test_a_container_s_limit_counts(tmp_path: Path, most: str, used: str) -> None:
    (tmp_path / "memory").mkdir()
    (tmp_path / most).write_text(f"{2200 * MB}\n")
    (tmp_path / used).write_text(f"{500 * MB}\n")
    assert slots_here(tmp_path) == (2090 - 500 - 1024) // SLOT_MB == 2


def test_where_nothing_is_limited_the_machine_s_memory_counts(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("12345\n")
    memory = psutil.virtual_memory()
    assert 1 <= slots_here(tmp_path) <= memory.available // MB // SLOT_MB + 8


def test_there_is_always_one(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1000000")
    (tmp_path / "memory.current").write_text("900000")
    assert slots_here(tmp_path) == 1
