"""The `Dockerfile`, read: it cannot be built where no daemon runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def stages() -> list[list[tuple[str, str]]]:
    """Instructions and their arguments, stage by stage."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found: list[list[tuple[str, str]]] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            found.append([])
        found[-1].append((word, rest.strip()))
    return found


def _of(stage: list[tuple[str, str]], word: str) -> list[str]:
    return [rest for name, rest in stage if name == word]


def test_it_uses_instructions_that_exist_and_pinned_bases(stages: list[list[tuple[str, str]]]) -> None:
    assert {word for stage in stages for word, _ in stage} <= {"FROM", "RUN", "COPY", "ENV", "WORKDIR", "USER"}
    assert len(stages) == 2
    for stage in stages:
        assert re.fullmatch(r"python:3\.11-slim-\w+( AS \w+)?", stage[0][1])


def test_it_runs_as_somebody_else_than_root_and_starts_nothing(stages: list[list[tuple[str, str]]]) -> None:
    build, final = stages
    assert _of(final, "USER") == ["1000:1000"] and final[-1][0] == "USER"
    assert "useradd --uid 1000" in " ".join(_of(final, "RUN"))
    assert "uv sync --no-dev" in " ".join(_of(build, "RUN"))


def test_everything_it_copies_is_there_and_nothing_comes_from_the_network(
    stages: list[list[tuple[str, str]]],
) -> None:
    build, final = stages
    sources = [source for rest in _of(build, "COPY") for source in rest.split()[:-1]]
    assert sources and all((ROOT / source).exists() for source in sources)
    assert {"pyproject.toml", "launch.py", "petl", "search", "trainables", "spaces"} <= set(sources)
    (copied,) = _of(final, "COPY")
    assert copied == "--from=build /opt/petl-search /opt/petl-search"


def test_packages_are_installed_before_the_code_is_copied(stages: list[list[tuple[str, str]]]) -> None:
    """Otherwise every change of the code would download torch again."""
    order = [f"{word} {rest}" for word, rest in stages[0]]
    assert next(i for i, line in enumerate(order) if "--no-install-project" in line) < order.index("COPY petl petl")


def test_the_build_sees_what_it_copies_and_nothing_else(stages: list[list[tuple[str, str]]]) -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    allowed = {line[1:] for line in lines if line.startswith("!")}
    assert allowed == {source for rest in _of(stages[0], "COPY") for source in rest.split()[:-1]}
    assert not allowed & {"runs", ".venv", ".git", "mlflow.db", "uv.lock"}


def test_no_secret_is_baked_in(stages: list[list[tuple[str, str]]]) -> None:
    settings = " ".join(rest for stage in stages for rest in _of(stage, "ENV"))
    assert not re.search(r"TOKEN|SECRET|PASSWORD|KEY", settings)
