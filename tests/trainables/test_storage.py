"""Storage on real directories, a real full disk, and a real S3 server behind a network that fails."""

from __future__ import annotations

import errno
import http.server
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petl.errors import UserError
from tests.object_store import Forwarder, ObjectStore, object_store
from trainables.storage import Storage, StorageError, joined
from trainables.storage_address import parse


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    with object_store() as running:
        yield running


@pytest.fixture
def network(store: ObjectStore) -> Iterator[Forwarder]:
    forwarder = Forwarder(store.port)
    yield forwarder
    forwarder.close()


@contextmanager
def _mounted(place: Path, options: str) -> Iterator[Path]:
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True)
    if done.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def _listed(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())


@pytest.mark.parametrize("kind", ["path", "file", "s3"])
def test_files_come_back(kind: str, tmp_path: Path, store: ObjectStore) -> None:
    place = tmp_path / "my runs %41"
    root = {"path": str(place), "file": place.as_uri(), "s3": store.uri("my runs %2541")}[kind]
    storage = Storage(root)
    storage.check()
    assert storage.names() == storage.names("t") == []
    assert storage.read("t/a") is None
    storage.delete("t/a")
    storage.write("t/b", b"one")
    storage.write("t/b", b"two")
    storage.write("t/a %20.bin", b"")
    storage.write("t/deeper/c", b"c")
    assert storage.read("t/b") == b"two"
    assert storage.read("t/a %20.bin") == b""
    assert storage.names("t") == ["a %20.bin", "b"]
    assert Storage(joined(root, "t", "deeper")).read("c") == b"c"
    storage.delete("t/b")
    storage.delete("t/b")
    assert storage.names("t") == ["a %20.bin"]
    if kind != "s3":
        assert storage.root == str(place)
        assert sorted(path.name for path in place.rglob("*") if path.is_file()) == ["a %20.bin", "c"]


def test_a_home_and_a_relative_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    Storage("~/runs").write("a", b"a")
    assert Storage("runs").read("a") == b"a"
    assert Storage("runs/../runs/").root == str(tmp_path / "runs")


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../a", "a/../../b", "a//b", "a/./b", "a\0b"])
def test_names_stay_below_the_root(name: str, tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "root"))
    for operation in (storage.read, storage.delete, lambda given: storage.write(given, b"")):
        with pytest.raises(ValueError, match="not a relative name"):
            operation(name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("root", "said"),
    [
        ("", "is empty"),
        ("s4://bucket/a", "'s4://' is not supported; give a directory, .*s3://bucket/path"),
        ("https://bucket.s3.amazonaws.com/a", "'https://' is not supported"),
        ("s3:///a", "names no bucket"),
        ("s3://127.0.0.1:9000/bucket", r"an address, not a bucket.*endpoint_override=127\.0\.0\.1%3A9000"),
        ("s3://bucket/a?regoin=x", r"unknown option 'regoin' \(did you mean 'region'\?\)"),
        ("file://host/a", "three slashes"),
        ("s3://[bucket/a", "not a URI"),
    ],
)
def test_wrong_addresses(root: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Storage(root)


@pytest.mark.parametrize(
    "root",
    [
        "s3://AKIA123:hunter2@bucket/a",
        "s3://hunter2@bucket",
        "s3://b/a?secret_key=hunter2",
        "gs://b?access_token=hunter2",
    ],
)
def test_credentials_in_an_address_are_refused_and_not_repeated(root: str) -> None:
    with pytest.raises(UserError, match="holds credentials") as caught:
        Storage(root)
    assert "hunter2" not in str(caught.value)
    assert "AKIA" not in str(caught.value)


_NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1).filter(
    lambda name: name not in (".", "..")
)


@settings(max_examples=100, deadline=None)
@given(names=st.lists(_NAMES, min_size=1, max_size=3), options=st.booleans(), scheme=st.sampled_from(["s3", "gs", ""]))
def test_joined_addresses_keep_names_and_options(names: list[str], options: bool, scheme: str) -> None:
    query = "?endpoint_override=127.0.0.1%3A9&scheme=http" if options and scheme else ""
    root = f"{scheme}://bucket/a%20b{query}" if scheme else "/a b"
    address = parse(joined(root, *names))
    assert address.path == "/".join(["/a b" if not scheme else "a b", *names])
    assert address.options == ((("endpoint_override", "127.0.0.1:9"), ("scheme", "http")) if query else ())
    assert parse(str(address)) == address
    assert joined(root, *names) == joined(joined(root, names[0]), *names[1:]) if names[1:] else True


def test_what_cannot_be_written(tmp_path: Path, store: ObjectStore) -> None:
    (tmp_path / "file").write_text("")
    began = time.monotonic()
    with pytest.raises(UserError, match=r"file/runs.* a part of the path is a file"):
        Storage(str(tmp_path / "file" / "runs")).check()
    with pytest.raises(UserError, match=r"the bucket does not exist; create it first"):
        Storage(store.uri("a", bucket="buckte")).check()
    with store.checking_credentials(), pytest.raises(UserError, match=r"s3://bucket/a.*credentials are not accepted"):
        Storage(store.uri("a")).check()
    with pytest.raises(StorageError, match=r"a part of the path is a file"):
        Storage(str(tmp_path / "file")).write("a/b", b"")
    assert time.monotonic() - began < 5  # nothing of this passes: it was not tried again


def test_a_read_only_file_system(tmp_path: Path) -> None:
    with _mounted(tmp_path / "mount", "ro") as place, pytest.raises(UserError, match="file system is read-only"):
        Storage(str(place)).check()


def test_a_full_disk_that_somebody_frees(tmp_path: Path) -> None:
    with _mounted(tmp_path / "mount", "size=1m") as place:
        storage = Storage(str(place), full_patience=0.3)
        storage.write("small", b"kept")
        (place / "junk").write_bytes(bytes(900_000))
        with pytest.raises(StorageError, match="large could not be written: no space is left") as full:
            storage.write("large", bytes(500_000))
        assert isinstance(full.value.__cause__, OSError)
        assert full.value.__cause__.errno == errno.ENOSPC
        with pytest.raises(UserError, match="no space is left"):
            (place / "more").write_bytes(bytes(os.statvfs(place).f_bavail * 4096))
            storage.check()
        assert _listed(place) == ["junk", "more", "small"]  # no temporary files
        timer = threading.Timer(0.3, (place / "junk").unlink)
        timer.start()
        Storage(str(place)).write("large", bytes(500_000))
        timer.join()
        assert storage.read("large") == bytes(500_000)
        assert storage.read("small") == b"kept"


def test_an_object_store_that_comes_back(store: ObjectStore, network: Forwarder) -> None:
    storage = Storage(store.uri("outage", network.port), patience=20)
    storage.write("a", b"before")
    network.down()
    with pytest.raises(StorageError, match="a could not be read: no connection: "):
        Storage(storage.root, patience=0.5).read("a")
    with pytest.raises(UserError, match=r"s3://bucket/outage.*a probe file could not be written: no connection"):
        Storage(storage.root, patience=0.2).check()
    timer = threading.Timer(0.5, network.up)
    timer.start()
    storage.write("a", b"after")
    timer.join()
    assert Storage(store.uri("outage")).read("a") == b"after"


class _Skewed(http.server.BaseHTTPRequestHandler):
    """An S3 server that finds the first requests to be of another time, as one does while a clock is wrong."""

    protocol_version = "HTTP/1.1"
    left = 0

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_GET

    def _answer(self) -> None:
        cls = type(self)
        cls.left -= 1
        refusal = b"<Error><Code>RequestTimeTooSkewed</Code><Message>The difference is too large.</Message></Error>"
        body = refusal if cls.left >= 0 else b"x"
        self.send_response(403 if cls.left >= 0 else 200)
        self.send_header("ETag", '"x"')
        self.send_header("Last-Modified", "Sat, 21 Nov 2026 00:00:00 GMT")
        self.send_header("Content-Length", str(len(body) if self.command != "PUT" or cls.left >= 0 else 0))
        self.end_headers()
        if self.command == "GET" or (self.command == "PUT" and cls.left >= 0):
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing is said."""


def test_a_wrong_clock_is_waited_for(store: ObjectStore) -> None:
    del store  # only its credentials are needed
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Skewed) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        storage = Storage(f"s3://bucket/x?endpoint_override=127.0.0.1%3A{server.server_port}&scheme=http", patience=10)
        _Skewed.left = 1
        storage.write("a", b"x")
        assert _Skewed.left < 0
        _Skewed.left = 2  # a HEAD is refused without a reason
        assert storage.read("a") == b"x"
        _Skewed.left = 1 << 30
        with pytest.raises(StorageError, match="this machine's clock is wrong"):
            Storage(storage.root, patience=0.3).read("a")
        server.shutdown()


def test_what_killed_writers_left_goes_in_time(tmp_path: Path) -> None:
    for name, age in (("old", 7200), ("new", 60)):
        path = tmp_path / f".tmp-{name}"
        path.write_bytes(b"torn")
        os.utime(path, (time.time() - age, time.time() - age))
    storage = Storage(str(tmp_path))
    assert storage.names() == []
    storage.write("a", b"")
    assert _listed(tmp_path) == [".tmp-new", "a"]


def test_storage_needs_no_torch() -> None:
    code = "import sys, trainables.storage, search.mirror; assert not {'torch', 'ray', 'pyarrow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
