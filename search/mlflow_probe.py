"""What answers at an address, and which failures pass by themselves (torch-free).

A server that is down, slow or overloaded comes back; an address of something else, a refused password or a database
of another version do not. The first is waited for, the second is refused.
"""

from __future__ import annotations

import re
from typing import Any

from petl.errors import UserError

_SEARCH = "/api/2.0/mlflow/experiments/search"
_AWAY_STATUS = {408, 425, 429, 500, 502, 503, 504}
_AWAY_CODES = {"TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "INTERNAL_ERROR"}
_AWAY = re.compile(
    # HTTP
    r"connection refused|connection aborted|connection reset|remotedisconnected|broken pipe|timed? ?out|"
    r"failed to resolve|name or service not known|temporary failure in name resolution|no route to host|"
    r"network is unreachable|too many \d+ error|error code (408|425|429|500|502|503|504)\b|"
    # databases
    r"could not connect|can't connect|could not translate host|the database system is|server closed the connection|"
    r"terminating connection|too many (clients|connections)|connection slots",
    re.IGNORECASE,
)


class MlflowAway(UserError):
    """The server does not answer now; what it should have is kept until it does."""


def mask(text: str) -> str:
    """Return `text` without the passwords of addresses in it.

    All up to the last `@` before a blank may be one, since people write passwords with any sign in them. A server's
    user without a password may be a token; a database's is a name.
    """
    text = re.sub(r"([a-z][\w+.-]*)://(?!/)(\S*)@", _without_password, text, flags=re.IGNORECASE)
    secret = r"([?&](?:(?:ssl)?(?:password|token)|passwd|pwd|odbc_connect)=)[^&\s]+"
    return re.sub(secret, r"\1***", text, flags=re.IGNORECASE)


def _without_password(address: re.Match[str]) -> str:
    scheme, user = address.groups()
    name, colon, _ = user.partition(":")
    plain = re.fullmatch(r"[^/@?#]*", name) is not None
    if plain and not colon and scheme.lower() not in ("http", "https"):
        return address[0]
    return f"{scheme}://{name}:***@" if plain and colon else f"{scheme}://***@"


def is_away(error: Exception) -> bool:
    """Whether the failure says that nobody served the request, rather than that it was refused."""
    if isinstance(error, MlflowAway):
        return True
    if getattr(error, "error_code", None) in _AWAY_CODES - {"INTERNAL_ERROR"}:
        return True
    return bool(_AWAY.search(str(error)))


def probe(uri: str, timeout: float) -> int:
    """Count the store's experiments.

    Raises:
        Exception: `as_user_error` makes something for people of it.
    """
    if uri.startswith(("http:", "https:")):
        return _probe_server(uri, timeout)
    if not uri.startswith(("sqlite:", "databricks")):
        _probe_database(uri, timeout)
    from mlflow import MlflowClient

    return len(MlflowClient(uri).search_experiments(max_results=1000))


def _probe_server(uri: str, timeout: float) -> int:
    """One request as MLflow's own client makes it, but its answer is looked at more closely."""
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    reply = http_request(
        get_default_host_creds(uri),
        _SEARCH,
        "POST",
        max_retries=0,
        timeout=timeout,
        raise_on_status=False,
        json={"max_results": 1000},
    )
    status, kind = reply.status_code, reply.headers.get("content-type", "no content type").split(";")[0]
    if status in (401, 403) and "host header" in reply.text.lower():
        raise UserError(
            f"MLflow at {mask(uri)} does not serve requests under this host name ({status}). Start the server with "
            "--allowed-hosts that names it (see docs/mlflow.md), or reach it by a name that it knows."
        )
    if status in (401, 403, 407):
        raise UserError(
            f"MLflow at {mask(uri)} refuses the credentials ({status}). Set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, in the environment of the search."
        )
    if status in _AWAY_STATUS:
        raise MlflowAway(unusable(uri, f"it answers {status} {reply.reason}"))
    try:
        found: Any = reply.json()
    except ValueError:
        found = None
    if status != 200 or not isinstance(found, dict) or not found.keys() <= {"experiments", "next_page_token"}:
        raise UserError(
            f"Something answers at {mask(uri)}, but it is no MLflow server ({status}, {kind}). Give the address "
            "under which `mlflow server` listens, for example --mlflow http://HOST:5000; without --mlflow, runs go to "
            "a local SQLite file."
        )
    return len(found.get("experiments", ()))


def _probe_database(uri: str, timeout: float) -> None:
    """Connect once: MLflow's own client retries for minutes, also with a wrong password."""
    import sqlalchemy

    known = uri.startswith(("postgresql", "mysql"))
    engine = sqlalchemy.create_engine(
        uri,
        poolclass=sqlalchemy.pool.NullPool,
        connect_args={"connect_timeout": max(1, int(timeout))} if known else {},
    )
    engine.connect().close()


def unusable(uri: str, reason: str) -> str:
    return (
        f"MLflow at {mask(uri)} cannot be used: {reason}. Start the server or correct --mlflow "
        "(without it, runs go to a local SQLite file)."
    )


def as_user_error(uri: str, error: Exception) -> UserError:
    """The failure in words; a `MlflowAway` where the same request may succeed later."""
    if isinstance(error, UserError):
        return error
    text = str(error) or type(error).__name__
    if "out-of-date database schema" in text or "Can't locate revision" in text:
        return UserError(
            f"MLflow's database {mask(uri)} was made by another version of MLflow. Make a copy of it, then run "
            f"`mlflow db upgrade {mask(uri)}`, or choose another with --mlflow sqlite:///FILE.db."
        )
    if isinstance(error, ModuleNotFoundError):
        return UserError(unusable(uri, f"the database driver '{error.name}' is not installed"))
    away = is_away(error) or getattr(error, "error_code", None) in _AWAY_CODES
    kind = MlflowAway if away and not uri.startswith("sqlite:") else UserError
    return kind(unusable(uri, reason(error)))


def reason(error: Exception) -> str:
    """Why a request failed, in a few words."""
    text = mask(" ".join(str(error).split())) or type(error).__name__
    low = text.lower()
    if "connection refused" in low:
        return "connection refused, nothing listens there"
    if any(words in low for words in ("failed to resolve", "name or service not known", "could not translate host")):
        return "the host name is unknown"
    if "timed out" in low or "timeout" in low:
        return "no answer in time"
    return text[:300]
