"""Where MLflow is: addresses of stores, and whether one answers (torch-free).

`mlflow` takes more than a second to import and is loaded on first use only.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import tempfile
import threading
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from petl.errors import UserError

_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_SERVERS = ("http", "https")


def load_mlflow() -> Any:
    """Import mlflow with its reporting home off, quiet logs, and one try a request (the tracker retries itself)."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    import mlflow

    logging.getLogger("alembic").setLevel(logging.WARNING)
    return mlflow


def default_uri(directory: Path | None = None) -> str:
    """`MLFLOW_TRACKING_URI` where it is set, else the SQLite file that plain `mlflow ui` opens in `directory`."""
    found = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    return resolve_uri(found or f"sqlite:///{(directory or Path.cwd()).absolute() / 'mlflow.db'}")


def resolve_uri(uri: str) -> str:
    """Return `uri` with a relative SQLite path made absolute.

    Raises:
        UserError: `uri` names no kind of MLflow store.
    """
    scheme = uri.split(":", 1)[0].split("+", 1)[0].lower() if ":" in uri else ""
    if uri == "databricks" or scheme == "databricks":
        return uri
    if scheme not in _DATABASES + _SERVERS:
        raise UserError(
            f"--mlflow {uri}: this is not the address of an MLflow store. Allowed: sqlite:///FILE.db, "
            "postgresql://…, mysql://…, http(s)://HOST:PORT of an MLflow server, databricks."
        )
    if scheme in _SERVERS and not urlsplit(uri).hostname:
        raise UserError(f"--mlflow {uri}: the host is missing. Write it as http://HOST:PORT.")
    path = sqlite_path(uri)
    return uri if path is None else f"sqlite:///{path}"


def sqlite_path(uri: str) -> Path | None:
    """Return the absolute path of the database file of an SQLite address, None for any other."""
    if not uri.startswith("sqlite:"):
        return None
    name = uri.removeprefix("sqlite:///")
    if not uri.startswith("sqlite:///") or name in ("", ":memory:"):
        raise UserError(f"--mlflow {uri}: a database file is needed. Write it as sqlite:///FILE.db.")
    return Path(name).expanduser().absolute()


def shown(uri: str) -> str:
    """Return the address fit for a screen or a file: without its password."""
    return re.sub(r"(://[^/:@\s]*):[^/@\s]*@", r"\1:***@", uri)


def ui_command(uri: str, directory: Path | None = None) -> str:
    """What a person types in `directory` (default: here) to look at the runs."""
    uri = resolve_uri(uri)
    if uri.startswith(_SERVERS):
        return f"open {shown(uri)}"
    here = (directory or Path.cwd()).absolute()
    # `mlflow ui` prefers an old ./mlruns file store to the database where one is present.
    old_store = any(p.parent.name.isdigit() for p in here.glob("mlruns/*/meta.yaml"))
    taken = os.environ.get("MLFLOW_BACKEND_STORE_URI") or os.environ.get("MLFLOW_TRACKING_URI")
    if sqlite_path(uri) == here / "mlflow.db" and not old_store and taken in (None, "", uri):
        return "mlflow ui"
    return f"mlflow ui --backend-store-uri {shown(uri)}"


_BUSY_S = 50.0


def check(uri: str, deadline: float = 10.0) -> str:
    """Ask the store for an answer and return one line that says what is there; nothing is created.

    Raises:
        UserError: there is no such store, it does not answer within `deadline` seconds, or it cannot be used.
    """
    uri = resolve_uri(uri)
    path = sqlite_path(uri)
    if path is not None and not path.exists():
        _check_creatable(path)
        return f"{uri} (will be created)"
    outcome: list[str | Exception] = []

    def probe() -> None:
        try:
            with exclusive(uri):
                found = load_mlflow().MlflowClient(uri).search_experiments(max_results=1000)
            outcome.append(f"{shown(uri)} ({len(found)} experiments)")
        except Exception as error:
            outcome.append(error)

    # In a thread of its own: a host that swallows packets or a database driver that retries would hold us up.
    thread = threading.Thread(target=probe, daemon=True, name="mlflow-check")
    thread.start()
    thread.join(deadline)
    if not outcome and path is not None:
        thread.join(_BUSY_S)  # another process may be creating or upgrading the database
        if not outcome:
            raise UserError(
                f"MLflow's database {path} gave no answer within {deadline + _BUSY_S:g} s: another program keeps it "
                "busy. Wait for it, or choose another place with --mlflow sqlite:///FILE.db."
            )
    if not outcome:
        raise UserError(_unreachable(uri, f"no answer within {deadline:g} s"))
    if isinstance(outcome[0], Exception):
        raise as_user_error(uri, outcome[0]) from outcome[0]
    return outcome[0]


def exclusive(uri: str) -> AbstractContextManager[Any]:
    """One process at a time creates or upgrades an SQLite store: two at once have corrupted it."""
    path = sqlite_path(uri)
    if path is None:
        return nullcontext()
    from filelock import FileLock

    user = os.getuid() if hasattr(os, "getuid") else 0
    name = hashlib.sha256(str(path).encode()).hexdigest()[:16]
    return FileLock(Path(tempfile.gettempdir()) / f"petl-mlflow-{user}-{name}.lock", timeout=60)


def _check_creatable(path: Path) -> None:
    nearest = next(p for p in path.parents if p.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise UserError(
            f"MLflow's database {path} cannot be created: {nearest} is not a directory that can be written to. "
            "Choose another place with --mlflow sqlite:///FILE.db."
        )


def _unreachable(uri: str, reason: str) -> str:
    return (
        f"MLflow at {shown(uri)} cannot be used: {reason}. Start the server or correct --mlflow "
        "(without it, runs go to a local SQLite file)."
    )


def as_user_error(uri: str, error: Exception) -> UserError:
    text = str(error) or type(error).__name__
    if "out-of-date database schema" in text:
        return UserError(
            f"MLflow's database {shown(uri)} was made by another version of MLflow. Make a copy of it, then run "
            f"`mlflow db upgrade {shown(uri)}`, or choose another with --mlflow sqlite:///FILE.db."
        )
    if isinstance(error, ModuleNotFoundError):
        return UserError(_unreachable(uri, f"the database driver '{error.name}' is not installed"))
    if "Connection refused" in text:
        return UserError(_unreachable(uri, "connection refused, nothing listens there"))
    if "Failed to resolve" in text or "Name or service not known" in text:
        return UserError(_unreachable(uri, "the host name is unknown"))
    return UserError(_unreachable(uri, shown(" ".join(text.split()))[:300]))
