"""Files of a directory and objects of a bucket behind the same four operations, one attempt each (torch-free)."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from trainables.storage_address import Address

_TEMPORARY = ".tmp-"
_LEFT_BEHIND_S = 3600.0


class Backend(Protocol):
    """One attempt at an operation; what fails raises OSError. Names are relative to the root."""

    def write(self, name: str, data: bytes) -> None: ...
    def read(self, name: str) -> bytes | None: ...
    def names(self, folder: str) -> list[str]: ...
    def delete(self, name: str) -> None: ...


def backend(address: Address) -> Backend:
    return Directory(address) if address.scheme == "file" else Bucket(address)


class Directory:
    """A local or network directory. A file appears under its name only when it is whole and on the disk."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._swept: dict[Path, float] = {}

    def write(self, name: str, data: bytes) -> None:
        path = Path(self._address.inside(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        # A name of its own: two writers of the same name must not share a temporary file.
        temporary = path.parent / f"{_TEMPORARY}{uuid.uuid4().hex}"
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        _sync(path.parent)
        self._sweep(path)

    def read(self, name: str) -> bytes | None:
        try:
            return Path(self._address.inside(name)).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def names(self, folder: str) -> list[str]:
        try:
            with os.scandir(self._address.inside(folder)) as entries:
                return sorted(e.name for e in entries if e.is_file() and not e.name.startswith(_TEMPORARY))
        except FileNotFoundError:
            return []

    def delete(self, name: str) -> None:
        path = Path(self._address.inside(name))
        path.unlink(missing_ok=True)
        self._sweep(path)

    def _sweep(self, written: Path) -> None:
        """Remove what killed writers left in a folder; looked for once an hour."""
        folder, now = written.parent, time.monotonic()
        if now - self._swept.get(folder, -_LEFT_BEHIND_S) < _LEFT_BEHIND_S:
            return
        with contextlib.suppress(OSError):  # a folder that cannot be tidied is no reason to fail
            # Ages by the file server's own clock: this machine's may be wrong.
            present = written.stat().st_mtime if written.exists() else time.time()
            with os.scandir(folder) as entries:
                old = [e.path for e in entries if e.name.startswith(_TEMPORARY) and _age(e, present) > _LEFT_BEHIND_S]
            for path in old:
                Path(path).unlink(missing_ok=True)
            self._swept[folder] = now


class Bucket:
    """A prefix in an object store. A put is whole or not there."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._opened: Any = None

    @property
    def _fs(self) -> Any:
        # Not in the constructor: finding a bucket's region asks the network, which may be away.
        if self._opened is None:
            self._opened = _filesystem(self._address)
        return self._opened

    def write(self, name: str, data: bytes) -> None:
        stream = self._fs.open_output_stream(self._address.inside(name))
        stream.write(data)
        stream.close()

    def read(self, name: str) -> bytes | None:
        try:
            with self._fs.open_input_stream(self._address.inside(name)) as stream:
                return stream.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            if "No response body" in str(error):  # refused by a HEAD: why, only another kind of request is told
                self.names(name.rpartition("/")[0])
            raise

    def names(self, folder: str) -> list[str]:
        from pyarrow import fs

        found = self._fs.get_file_info(fs.FileSelector(self._address.inside(folder), allow_not_found=True))
        return sorted(info.base_name for info in found if info.type == fs.FileType.File)

    def delete(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._fs.delete_file(self._address.inside(name))


def _filesystem(address: Address) -> Any:
    from pyarrow import fs

    endpoint = address.option("endpoint_override")
    options: dict[str, Any] = {}
    if address.scheme == "gs":
        seconds = float(address.option("retry_limit_seconds") or 10)  # the library's own limit is 15 minutes
        if project := address.option("project_id"):
            options["project_id"] = project
        return fs.GcsFileSystem(
            anonymous=address.anonymous,
            scheme=address.option("scheme") or "https",
            endpoint_override=endpoint,
            retry_time_limit=timedelta(seconds=seconds),
            **options,
        )
    region = address.option("region")
    if region is None:
        region = "us-east-1" if endpoint else fs.resolve_s3_region(address.bucket)
    if authority := address.option("tls_ca_file_path"):
        options["tls_ca_file_path"] = authority
    return fs.S3FileSystem(
        region=region,
        scheme=address.option("scheme") or "https",
        endpoint_override=endpoint,
        connect_timeout=5,
        background_writes=False,  # an upload that fails says so where it was asked for
        allow_delayed_open=True,  # small files in a single request
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=1),  # `Storage` tries again, and logs it
        **options,
    )


def _age(entry: os.DirEntry[str], present: float) -> float:
    try:
        return present - entry.stat().st_mtime
    except OSError:
        return 0.0


def _sync(folder: Path) -> None:
    """Make a rename last through a power cut, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
