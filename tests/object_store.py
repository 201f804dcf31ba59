"""A real S3 server on this machine (moto's), and a network in front of it that can fail."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import threading
import urllib.request
from collections.abc import Iterator

import pytest

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "someone",
    "AWS_SECRET_ACCESS_KEY": "something",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class Forwarder:
    """Passes connections on to a port. `down()` refuses new ones and cuts those there are, until `up()`."""

    def __init__(self, target: int) -> None:
        self._target, self.port = target, 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="forwarder")
        self._thread.start()
        self.up()

    def up(self) -> None:
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(10)

    def down(self) -> None:
        asyncio.run_coroutine_threadsafe(self._cut(), self._loop).result(10)

    def close(self) -> None:
        self.down()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _cut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0.05)  # what was cut ends

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            their_reader, their_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, their_writer}
        self._writers |= both
        await asyncio.gather(_pipe(reader, their_writer), _pipe(their_reader, writer))
        self._writers -= both


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


class ObjectStore:
    """The server with one bucket, `bucket`; everything in memory."""

    def __init__(self) -> None:
        from moto.server import ThreadedMotoServer

        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        self.port: int = self._server.get_host_and_port()[1]
        self._ask("PUT", "/bucket")

    def uri(self, path: str, port: int | None = None, bucket: str = "bucket") -> str:
        """The address of a prefix, optionally through another port (a forwarder's)."""
        endpoint = f"endpoint_override=127.0.0.1%3A{port or self.port}"
        return f"s3://{bucket}/{path}?{endpoint}&scheme=http&region=us-east-1"

    @contextlib.contextmanager
    def checking_credentials(self) -> Iterator[None]:
        """The server knows nobody: every request is refused."""
        self._ask("POST", "/moto-api/reset-auth", b"0")
        try:
            yield
        finally:
            self._ask("POST", "/moto-api/reset-auth", b"inf")

    def close(self) -> None:
        self._server.stop()

    def _ask(self, method: str, path: str, data: bytes | None = None) -> None:
        headers = {"Content-Type": "text/plain"}
        url = f"http://127.0.0.1:{self.port}{path}"
        urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method), timeout=20).close()


_running: list[ObjectStore] = []


@contextlib.contextmanager
def object_store() -> Iterator[ObjectStore]:
    """The server, with credentials in the environment. It starts once and serves the tests of a process."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        if not _running:
            _running.append(ObjectStore())
            atexit.register(_running[0].close)
        yield _running[0]
