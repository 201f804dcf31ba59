"""Cores by affinity and by the quotas of containers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trainables.data.cores import granted_cores

HERE = len(os.sched_getaffinity(0))


def _system(root: Path, groups: str, files: dict[str, str]) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("0::/\n", {}, HERE),
        ("0::/\n", {"cpu.max": "max 100000\n"}, HERE),
        ("0::/\n", {"cpu.max": "100000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "20000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "110000 100000\n"}, min(HERE, 2)),  # a part of a core is worth a thread
        ("0::/a/b\n", {"a/cpu.max": "50000 100000\n", "a/b/cpu.max": "max 100000\n"}, 1),  # outer limits hold
        ("0::/host/path\n", {"cpu.max": "100000 100000\n"}, 1),  # the own group is mounted as the root
        ("0::/../..\n", {"cpu.max": "100000 100000\n"}, 1),
        ("4:cpu,cpuacct:/x\n2:memory:/x\n", {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ("4:cpu:/x\n", {"cpu/x/cpu.cfs_quota_us": "-1", "cpu/x/cpu.cfs_period_us": "100000"}, HERE),
        ("0::/\n", {"cpu.max": "what is this"}, HERE),
        ("what is this", {}, HERE),
    ],
)
def test_quotas(tmp_path: Path, groups: str, files: dict[str, str], cores: int) -> None:
    assert granted_cores(_system(tmp_path, groups, files)) == cores


def test_affinity_and_systems_without_cgroups(tmp_path: Path) -> None:
    assert granted_cores(tmp_path) == HERE
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert granted_cores(tmp_path) == 1
    finally:
        os.sched_setaffinity(0, before)
