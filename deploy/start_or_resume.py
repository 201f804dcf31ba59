"""Begin a named search, or go on with it where it stopped: one command that may be repeated.

    python deploy/start_or_resume.py moa-1 s3://bucket/petl --space spaces/moa.yaml --data /home/ubuntu/data/ESC-50 …

The run directory is `runs/NAME` where the command is run, checkpoints and the run's state are under `STORAGE/NAME`;
everything behind the two is handed to `launch.py` as it is. What the storage knows of the search is continued from
there (a run directory that is here is brought up to date, and kept where it knows more); where only the run directory
knows something, from that; otherwise the search begins. So a job that is tried again, on whatever machine, never starts
from scratch, and one whose driver died before its first line begins once more.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

_PROJECT = Path(__file__).resolve().parents[1]
if str(_PROJECT) not in sys.path:
    sys.path.insert(0, str(_PROJECT))

from petl.errors import UserError  # noqa: E402

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_USAGE = "usage: start_or_resume.py NAME STORAGE [options of launch.py]"


def command(name: str, storage: str, options: list[str]) -> list[str]:
    """The arguments of `launch.py`.

    Args:
        name: of the run: of its directory in `runs/`, and of its place on the storage.
        storage: where checkpoints and the run's state go (`s3://…`, `gs://…`, or a path that all nodes see).
        options: what a new search is asked; a resumed one refuses other values than before by itself.

    Raises:
        UserError: the name cannot be one, or the storage does not answer (beginning anew would then be wrong).
    """
    from search.mirror import run_root
    from search.mirror_fetch import recorded

    if not _NAME.fullmatch(name):
        raise UserError(
            f"{name!r} is no name for a run: letters, digits, '.', '_' and '-', the first one of the former"
        )
    directory, root = Path("runs") / name, run_root(storage, name)
    place = ["--storage", storage]
    if recorded(root):
        return ["--resume", root, *place, *options]
    if _has_line(directory / "journal.jsonl"):
        return ["--resume", str(directory), *place, *options]
    return ["--output", str(directory), *place, *options]


def _has_line(journal: Path) -> bool:
    """Whether a journal has one whole line: with less there is nothing to continue."""
    try:
        with journal.open("rb") as file:
            return file.readline().endswith(b"\n")
    except FileNotFoundError:
        return False


def main(arguments: list[str]) -> None:
    """Become `launch.py`, whose exit status is then this one's; 2 when the request is wrong."""
    if len(arguments) < 2 or any(word.startswith("-") for word in arguments[:2]):
        print(_USAGE, file=sys.stderr)
        sys.exit(2)
    try:
        words = command(arguments[0], arguments[1], arguments[2:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print("launch.py", *words, flush=True)
    os.execv(sys.executable, [sys.executable, str(_PROJECT / "launch.py"), *words])


if __name__ == "__main__":
    main(sys.argv[1:])
