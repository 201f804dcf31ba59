"""Does everything that a search left tell the same story? Run it on a directory:

    python -m tests.faults.audit runs/moa-20261121-200000 sqlite:///mlflow.db [CHECKPOINTS]

It prints one line per contradiction and ends with 1 if there is any. The journal is the truth; it is compared with
itself, with the tables, the report, the exported winner, the checkpoints and MLflow, trial by trial.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.faults import audit_files, audit_journal
from tests.faults.audit_journal import Told

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


def audit(
    run_dir: Path | str, mlflow_uri: str | None, checkpoints: Path | str | None = None, *, checkpoints_too: bool = True
) -> list[str]:
    """Contradictions in what a search left, one sentence each; none is an empty list.

    Args:
        run_dir: the search's directory, with its journal. The search must not be running.
        mlflow_uri: the store it logged to; None leaves MLflow out.
        checkpoints: their folder; by default where the search put them, if that is a path on this machine.
        checkpoints_too: False leaves them out.
    """
    from tests.faults import audit_mlflow  # MLflow takes a second to import

    told, wrong = audit_journal.read(Path(run_dir))
    folder = Path(checkpoints) if checkpoints is not None else _checkpoints(told)
    wrong += audit_files.check(told, folder if checkpoints_too else None)
    if mlflow_uri is not None:
        wrong += audit_mlflow.check(told, mlflow_uri)
    return wrong


def _checkpoints(told: Told) -> Path | None:
    root = str(told.info.get("storage_root") or told.directory)
    if "://" in root and not root.startswith("file://"):
        return None
    return Path(root.removeprefix("file://")) / "checkpoints"


if __name__ == "__main__":
    found = audit(sys.argv[1], sys.argv[2], *sys.argv[3:4])
    print("\n".join(found) or "no contradiction")
    sys.exit(bool(found))
