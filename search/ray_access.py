"""Ray's tokens: a fresh one for every Ray that a search starts, the user's own for a cluster (Ray-free to import).

Whoever reaches a port of Ray can run code as the user who started it, unless Ray asks for a token. Ray would write
one for all its clusters into `~/.ray/auth_token`, readable by everybody where the umask allows that, and the next
`ray start` would pick it up. A search's own Ray gets its own token instead, which ends with it.

| variable | what Ray does with it |
|---|---|
| `RAY_AUTH_MODE` | `token` or `disabled`; read once, when ray is imported |
| `RAY_AUTH_TOKEN` | the token itself |
| `RAY_AUTH_TOKEN_PATH` | the file that holds it, read by every process at its start |

What of these the user has set stays as it is. Without any, `~/.ray/auth_token` is used where Ray uses it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MODE, TOKEN, PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@contextmanager
def local_token(folder: Path | None = None) -> Iterator[Path | None]:
    """While it lasts, a Ray that this process starts asks for a token that only its own processes can read.

    Enter it before `ray.init` and leave it after `ray.shutdown`; ray may have been imported already. The token lies
    in a file of mode 600 in a new folder of mode 700 (in `folder`, by default that for temporary files; not in Ray's
    own folder, which Ray opens to everybody), and goes with it. Gives the file; None where the user's own settings
    hold, or Ray runs in this process already.
    """
    if _running() or _mode() == "disabled" or (_mode() == "token" and _default_file().is_file()):
        yield None
    elif os.environ.get(TOKEN) or os.environ.get(PATH):
        with _settings({MODE: "token"}):
            yield None
    else:
        private = Path(tempfile.mkdtemp(prefix="petl-token-", dir=folder))
        try:
            file = private / "token"
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as out:
                out.write(secrets.token_hex(32))
            with _settings({MODE: "token", PATH: str(file)}):
                yield file
        finally:
            shutil.rmtree(private, ignore_errors=True)


@contextmanager
def cluster_token(wanted: bool) -> Iterator[None]:
    """While it lasts, this process shows its token to the cluster it connects to, if that asks for one.

    `wanted` is `ClusterFacts.token` of `search.probe.probe`, which has found that the token is the right one.
    """
    if not wanted or _running():
        yield
        return
    with _settings({MODE: "token"}):
        yield


def sends_token(*, found: bool) -> bool:
    """Whether a token is to be shown to a cluster: never to an address only because there is a token at home.

    As Ray itself, `~/.ray/auth_token` is only for a cluster that was `found` on this machine ("auto" without
    `RAY_ADDRESS`), unless `RAY_AUTH_MODE` says otherwise.
    """
    if _mode():
        return _mode() == "token"
    return bool(os.environ.get(TOKEN) or os.environ.get(PATH) or (found and _default_file().is_file()))


def token_source() -> str:
    """Where Ray takes the token from, in words; never the token."""
    if os.environ.get(TOKEN):
        return TOKEN
    if os.environ.get(PATH):
        return f"{os.environ[PATH]} ({PATH})"
    return str(_default_file())


def token_fault() -> str:
    """Why there is no token where it is looked for; "" when there is one."""
    if os.environ.get(TOKEN):
        return ""
    file = _file()
    try:
        return "" if file.read_bytes().strip() else f"{file} is empty"
    except OSError as error:
        return f"{file} cannot be read ({error.strerror})"


def exposed_token() -> str:
    """What to warn of when others can read or change the file of the token; "" otherwise."""
    if os.environ.get(TOKEN):
        return ""
    file = _file()
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
    except OSError:
        return ""
    if not mode & _OTHERS:
        return ""
    return (
        f"the token in {file} can be used by others on this machine (mode {mode:03o}; 600 is wanted): chmod 600 {file}"
    )


def keep_credentials_home() -> None:
    """Tell Tune not to hand the driver's AWS keys to its trials: Ray writes what it hands on into its logs.

    The trials of a search are proxies that reach no store. Processes that do have the keys of their own machine.
    """
    from ray.tune.execution import class_cache

    class_cache.ENV_VARS_TO_PROPAGATE -= {name for name in class_cache.ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")}


def _mode() -> str:
    return os.environ.get(MODE, "").lower()


def _file() -> Path:
    return Path(os.environ[PATH]).expanduser() if os.environ.get(PATH) else _default_file()


def _default_file() -> Path:
    return Path.home() / ".ray" / "auth_token"


def _running() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


@contextmanager
def _settings(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in (MODE, PATH)}
    os.environ.update(values)
    _read_again()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        _read_again()


def _read_again() -> None:
    """Ray reads mode and token once: at its import and at the first use."""
    if "ray._raylet" not in sys.modules or _running():
        return
    raylet: Any = sys.modules["ray._raylet"]
    raylet.Config.initialize("")  # first: what still runs in a thread asks for a token as long as the mode says so
    raylet.AuthenticationTokenLoader.instance().reset_cache()
