"""Real MLflow servers, other servers, and what stands between them and a search, for tests."""

from __future__ import annotations

import base64
import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class Server:
    """An MLflow server in `folder`, in a process group of its own; it can be hung, killed and started again."""

    def __init__(self, folder: Path, port: int, *, ui: bool = False, backend: str = "", more: tuple[str, ...] = ()):
        self.folder, self.port, self.address = folder, port, f"http://127.0.0.1:{port}"
        self._command = [sys.executable, "-m", "mlflow", "ui" if ui else "server", "--port", str(port)]
        self._command += ["--workers", "1", *more]
        if not ui:
            self._command += ["--backend-store-uri", backend or f"sqlite:///{folder}/server.db"]
            self._command += ["--artifacts-destination", str(folder / "served")]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        # One worker, and none of the helpers that a server starts beside it: they take seconds on two cores.
        env = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        env.pop("MLFLOW_TRACKING_URI", None)
        with (self.folder / "server.log").open("a") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self.folder, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def wait(self) -> None:
        """Until it answers."""
        assert self._process is not None
        for _ in range(600):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{self.address}/health", timeout=2).read()
                return
            assert self._process.poll() is None, (self.folder / "server.log").read_text()[-2000:]
            time.sleep(0.1)
        raise AssertionError("the server did not come up")

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def end(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.signal(signal.SIGKILL)
            self._process.wait(20)
            self._process = None


@contextlib.contextmanager
def server(folder: Path, port: int, *, ui: bool = False, backend: str = "") -> Iterator[str]:
    """The address of an MLflow server that answers."""
    one = Server(folder, port, ui=ui, backend=backend)
    one.start()
    try:
        one.wait()
        yield one.address
    finally:
        one.end()


class Forwarder:
    """Passes TCP connections on to a port, each chunk of a request `delay` seconds late; 0 frees what waits."""

    def __init__(self, target: int, delay: float = 0.0) -> None:
        self.delay = delay
        self.requests = 0
        self._target = target
        self._changed = threading.Condition()
        self._open = True
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def set(self, delay: float) -> None:
        with self._changed:
            self.delay = delay
            self._changed.notify_all()

    def close(self) -> None:
        self._open = False
        self.set(0.0)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while self._open:
                near, _ = self._listener.accept()
                threading.Thread(target=self._pass, args=(near,), daemon=True).start()

    def _pass(self, near: socket.socket) -> None:
        with near, contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._target)) as far:
            while self._open:
                for ready in select.select([near, far], [], [], 0.5)[0]:
                    data = ready.recv(65536)
                    if not data:
                        return
                    if ready is near:
                        self.requests += 1
                        with self._changed:
                            self._changed.wait_for(lambda: self.delay == 0.0, timeout=self.delay or None)
                    (far if ready is near else near).sendall(data)


class Proxy:
    """A reverse proxy with a login, as one stands before a team's server.

    Args:
        target: port of the server.
        login: "name:password" that is asked for; "" asks for none.
        host: under which name the server is to be reached.
    """

    def __init__(self, target: int, *, login: str = "", host: str = "127.0.0.1") -> None:
        wanted = f"Basic {base64.b64encode(login.encode()).decode()}" if login else None

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.headers.get("Authorization") != wanted:
                    self._answer(401, b"login, please", "text/plain")
                    return
                kind = self.headers.get("Content-Type", "application/json")
                request = urllib.request.Request(f"http://127.0.0.1:{target}{self.path}", body or None)
                request.method = self.command
                request.headers |= {"Host": host, "Content-type": kind}
                try:
                    with urllib.request.urlopen(request, timeout=30) as reply:
                        self._answer(reply.status, reply.read(), reply.headers["Content-Type"])
                except urllib.error.HTTPError as error:
                    self._answer(error.code, error.read(), error.headers["Content-Type"])
                except OSError:
                    self._answer(502, b"bad gateway", "text/plain")

            do_GET = do_PUT = do_PATCH = do_DELETE = do_POST

            def _answer(self, status: int, body: bytes, kind: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
