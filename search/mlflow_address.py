"""Where MLflow is: addresses of stores, and what is found there (torch-free).

`mlflow` takes more than a second to import and is loaded on first use only.
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from petl.errors import UserError
from search.mlflow_probe import MlflowAway, as_user_error, mask, probe, unusable

_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_SERVERS = ("http", "https")
_BUSY_S = 50.0


def load_mlflow() -> Any:
    """Import mlflow with its reporting home off, quiet logs, and one try a request (the tracker retries itself)."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # a line for every trial that ends
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    import mlflow

    logging.getLogger("alembic").setLevel(logging.WARNING)
    _ask_nothing_of_databricks()
    return mlflow


def _ask_nothing_of_databricks() -> None:
    """Drop the headers that a Databricks notebook or job adds to a request, unless this runs on Databricks.

    To find out whether it does, MLflow tries to import three packages before every request, which means looking for
    them along the whole path. There is no public way to leave a provider of headers out.
    """
    from mlflow.tracking.request_header.databricks_request_header_provider import DatabricksRequestHeaderProvider
    from mlflow.tracking.request_header.registry import _request_header_provider_registry as registry
    from mlflow.utils.databricks_utils import is_in_databricks_runtime

    if not is_in_databricks_runtime() and find_spec("dbruntime") is None:
        registry._registry = [p for p in registry._registry if not isinstance(p, DatabricksRequestHeaderProvider)]


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
            f"--mlflow {shown(uri)}: this is not the address of an MLflow store. Allowed: sqlite:///FILE.db, "
            "postgresql://…, mysql://…, http(s)://HOST:PORT of an MLflow server, databricks."
        )
    if scheme in _SERVERS:
        try:
            parts = urlsplit(uri)
            host, _ = parts.hostname, parts.port
        except ValueError:  # its words may quote a part of a password
            parts = None
        if parts is None or "@" in f"{parts.path}{parts.query}{parts.fragment}":
            raise UserError(
                f"--mlflow {shown(uri)}: host and port cannot be told. Write it as http://HOST:PORT, and what a "
                "password has of the signs / # ? @ [ ] as %2F %23 %3F %40 %5B %5D."
            )
        if not host:
            raise UserError(f"--mlflow {shown(uri)}: the host is missing. Write it as http://HOST:PORT.")
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
    return mask(uri)


def complete(address: str) -> bool:
    """Whether an address that was written down is whole: passwords are never kept."""
    return "***@" not in address and "=***" not in address


def trusted(address: str, option: str = "--mlflow") -> str:
    """An address that stands in a run directory, which may be a stranger's: no credentials go there unasked.

    Raises:
        UserError: there are credentials that would be shown to it, and nobody but the directory names it.
    """
    found = _credentials(address)
    if found and shown(default_uri()).rstrip("/") != address.rstrip("/"):
        raise UserError(
            f"the run directory names the MLflow store {shown(address)}, and {found} would be shown to it. If it is "
            f"yours, say so: {option} {shown(address)}, or set MLFLOW_TRACKING_URI to it"
        )
    return address


def _credentials(address: str) -> str:
    """What of the environment would be shown to a server or database at any address; "" for nothing."""
    if address.startswith(_SERVERS):
        kinds = ("USERNAME", "PASSWORD", "TOKEN", "AUTH", "AWS_SIGV4", "CLIENT_CERT_PATH")
        names = [f"MLFLOW_TRACKING_{kind}" for kind in kinds]
        file = Path("~/.mlflow/credentials").expanduser()
    elif address.startswith(("sqlite:", "databricks")):  # those of Databricks belong to a host
        return ""
    else:
        names, file = ["PGPASSWORD", "MYSQL_PWD"], None
    said = next((name for name in names if os.environ.get(name)), "")
    return said or (str(file) if file is not None and file.is_file() else "")


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


def check(uri: str, deadline: float = 10.0, *, strict: bool = False) -> str:
    """Ask the store for an answer and return one line that says what is there; no file or run is created.

    A server that does not answer now is no mistake: the line says so, and a search keeps its entries until it is
    back. What is wrong, and would still be wrong tomorrow, is refused.

    Args:
        uri: address of the store.
        deadline: seconds to wait for a server.
        strict: a server that does not answer is an error, too.

    Raises:
        MlflowAway: only with `strict`: a server does not answer now.
        UserError: something else than MLflow answers, credentials are refused, a database cannot be used.
    """
    uri = resolve_uri(uri)
    path = sqlite_path(uri)
    if path is not None and not path.exists():
        _check_creatable(path)
        return f"{uri} (will be created)"
    load_mlflow()  # not on the store's time
    outcome: list[int | Exception] = []

    def ask() -> None:
        try:
            with exclusive(uri):
                outcome.append(probe(uri, deadline))
        except Exception as error:
            outcome.append(error)

    # In a thread of its own: a host that swallows packets or a database driver that retries would hold us up.
    thread = threading.Thread(target=ask, daemon=True, name="mlflow-check")
    thread.start()
    thread.join(deadline)
    if not outcome and path is not None:
        thread.join(_BUSY_S)  # another process may be creating or upgrading the database
        if not outcome:
            raise UserError(
                f"MLflow's database {path} gave no answer within {deadline + _BUSY_S:g} s: another program keeps it "
                "busy. Wait for it, or choose another place with --mlflow sqlite:///FILE.db."
            )
    found: int | Exception = outcome[0] if outcome else MlflowAway(unusable(uri, f"no answer within {deadline:g} s"))
    if isinstance(found, int):
        return f"{shown(uri)} ({found} experiments)"
    problem = as_user_error(uri, found)
    if strict or not isinstance(problem, MlflowAway):
        raise problem from found
    return f"{shown(uri)} (does not answer now; entries are kept until it does)"


def exclusive(uri: str) -> AbstractContextManager[Any]:
    """One process at a time creates or upgrades an SQLite store: two at once have corrupted it."""
    path = sqlite_path(uri)
    if path is None:
        return nullcontext()
    return _locked(next(folder for folder in path.parents if folder.is_dir()))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder: on the folder itself, so that no file is left for it."""
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        limit = time.monotonic() + _BUSY_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > limit:
                    raise TimeoutError(f"another process has kept {folder} busy for {_BUSY_S:g} s") from None
                time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


def _check_creatable(path: Path) -> None:
    nearest = next(p for p in path.parents if p.exists())
    try:  # a right to write is not enough: not every file system takes files
        with tempfile.TemporaryFile(dir=nearest):
            creatable = True
    except OSError:
        creatable = False
    if not creatable:
        raise UserError(
            f"MLflow's database {path} cannot be created: {nearest} is not a directory that can be written to. "
            "Choose another place with --mlflow sqlite:///FILE.db."
        )
