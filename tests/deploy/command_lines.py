"""Command lines out of documents and cluster files, checked against the programs that are installed."""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

_FENCE = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*", re.DOTALL)
_BEFORE_PROGRAM = {"sudo", "exec", "env", "then", "do", "!", "time"}


def fenced(markdown: str) -> list[str]:
    """The shell blocks of a document."""
    return _FENCE.findall(markdown)


def statements(text: str) -> Iterator[list[str]]:
    """The simple commands of shell text, word by word, without assignments and words like `sudo` before them."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for token in [*lexer, ";"]:
            if token and set(token) <= set("();<>|&"):
                yield from _stripped(words)
                words = []
            else:
                words.append(token)


def _stripped(words: list[str]) -> Iterator[list[str]]:
    while words and (words[0] in _BEFORE_PROGRAM or _ASSIGNMENT.fullmatch(words[0]) or words[0].startswith("--chdir=")):
        words = words[1:]
    if words[:2] == ["uv", "run"]:
        words = words[2:]
    if words and words[0] == "systemd-run":  # its own options, then the command
        words = list(_after_options(words[1:]))
    if words and PurePosixPath(words[0]).name.startswith("python") and len(words) > 1 and words[1].endswith(".py"):
        words = words[1:]
    if words and words[0] not in ("export", "echo"):
        yield words


def _after_options(words: list[str]) -> Iterator[str]:
    rest = iter(words)
    for word in rest:
        if not word.startswith("-"):
            yield word
            yield from rest


def checked(text: str) -> list[str]:
    """Names of the project's and Ray's commands in shell text, every one of them with options that exist.

    Commands inside commands count too (`ray exec FILE 'ray status'`, `ray job submit -- python …`).

    Raises:
        click's or Typer's usage error: an option or a sub-command does not exist, or something is missing.
    """
    found: list[str] = []
    for words in statements(text):
        program = PurePosixPath(words[0]).name
        if program == "start_or_resume.py":
            assert len(words) > 2, f"{program} needs a name and a storage: {words}"
            found += [program, *checked(shlex.join(["launch.py", *words[3:]]))]
        elif program == "fetch_data.py":
            assert len(words) == 3, words
            found.append(program)
        elif program in ("ray", "launch.py", "petl-search", "mlflow"):
            name, arguments = _parse(_program(program), words[1:], program)
            found.append(name)
            if name == "ray exec":
                found += checked(arguments["cmd"])
            if name == "ray job submit":
                found += checked(shlex.join(arguments["entrypoint"]))
    return found


@functools.cache
def _program(name: str) -> Any:
    import typer.main

    if name == "ray":
        from ray.scripts.scripts import cli

        return cli
    if name == "mlflow":
        from mlflow.cli import cli as mlflow_cli

        return mlflow_cli
    from search import cli as ours

    return typer.main.get_command(ours._door if name == "launch.py" else ours.app)


def _parse(command: Any, words: list[str], name: str) -> tuple[str, dict[str, Any]]:
    """What click makes of a command line, sub-command by sub-command; nothing is run."""
    if not hasattr(command, "commands"):
        return name, command.make_context(name, list(words)).params
    context = command.context_class(command, info_name=name)
    _, rest, _ = command.make_parser(context).parse_args(list(words))
    assert rest, f"{name}: no sub-command in {words}"
    sub = command.get_command(context, rest[0])
    assert sub is not None, f"{name} has no sub-command {rest[0]!r}"
    return _parse(sub, rest[1:], f"{name} {rest[0]}")
