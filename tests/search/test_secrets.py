"""Secrets of the environment stay there: nothing that a search writes, prints or tracks holds one."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from search.ray_access import MODE, TOKEN
from tests.search.running import command, start, workplace

SECRETS = {
    name: f"s3cr3t-{number:02d}-of-the-environment"
    for number, name in enumerate(
        (
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
            "HF_TOKEN",
            "MLFLOW_TRACKING_USERNAME",
            "MLFLOW_TRACKING_PASSWORD",
            "MLFLOW_TRACKING_TOKEN",
            "WANDB_API_KEY",
            TOKEN,
        )
    )
}
SPACE = """
schema: petl.space/1
name: secret
base: {{backbone: {backbone}, dataset: folder, data: {data}, epochs: 1}}
objectives: [{{metric: val/accuracy, mode: max}}]
params:
  method: {{choice: [linear, bitfit]}}
budget: {{trials: 2}}
"""


def _holding(folder: Path) -> dict[str, set[str]]:
    """Secret -> the files below `folder` that hold its value; files may come and go meanwhile."""
    found: dict[str, set[str]] = {}
    for path in folder.rglob("*"):
        try:
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        except OSError:
            continue
        for name, value in SECRETS.items():
            if value.encode() in content:
                found.setdefault(name, set()).add(path.name)
    return found


@pytest.mark.slow
def test_a_search_keeps_the_secrets_of_its_environment(tmp_path: Path, tiny_ast: Path, tones: Path) -> None:
    """Its directory, MLflow's database and artifacts, what it prints, and the logs of its Ray."""
    (tmp_path / "work").mkdir()
    space = tmp_path / "secret.yaml"
    space.write_text(SPACE.format(backbone=tiny_ast, data=tones))
    with workplace(tmp_path) as environment:
        settings = {**environment, **SECRETS, MODE: "token"}
        search = start(command("--space", space, "--output", "out"), tmp_path / "work", settings)
        folder, in_logs, logs = Path(environment["RAY_TMPDIR"]), {}, set()
        try:
            while search.poll() is None:  # the folder goes with the search
                in_logs.update(_holding(folder))
                logs.update(path.name for path in folder.rglob("*.log"))
                time.sleep(1)
        finally:
            search.kill()
        printed = search.communicate()[0]
        assert search.returncode == 0, printed[-3000:]
        assert (tmp_path / "work" / "out" / "best").is_dir() and (tmp_path / "work" / "mlflow.db").is_file()
        assert "raylet.out" in logs or len(logs) > 3
        assert in_logs == {}
    assert _holding(tmp_path / "work") == {}
    assert [name for name, value in SECRETS.items() if value in printed] == []
