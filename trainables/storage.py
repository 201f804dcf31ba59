"""Storage that a search can rely on: small files under one root, whole or absent, written again until it works.

The root is a local or network directory or an object store (`s3://`, `gs://`). What may pass (a lost connection, a
server that restarts, a full disk that somebody frees) is tried again with growing pauses; what will not (no right, no
such bucket, a read-only disk) is said at once. Torch-free; pyarrow is imported when an object store is first asked.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import re
import uuid
from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, wait_exponential_jitter

from petl.errors import UserError
from trainables.storage_address import checked, joined, parse
from trainables.storage_backends import backend

__all__ = ["Storage", "StorageError", "joined"]

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_LASTING = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP,
    errno.EEXIST, errno.EINVAL,
}  # fmt: skip
_FULL = {errno.ENOSPC, errno.EDQUOT}
_CHECK_S = 15.0

# Refused for a reason that goes away by itself: a time server sets the clock.
_PASSING = (
    (r"REQUEST_TIME_TOO_SKEWED|RequestTimeTooSkewed|difference between the request time and the",
     "this machine's clock is wrong, so that its requests are refused; have it set by a time server"),
)  # fmt: skip

# What object stores answer, as pyarrow words it, and what it means to a person.
_REASONS = (
    (r"NO_SUCH_BUCKET|NoSuchBucket|bucket '[^']*' not found|bucket does not exist",
     "the bucket does not exist; create it first, or correct the name"),
    (r"INVALID_ACCESS_KEY_ID|InvalidAccessKeyId|InvalidClientTokenId|SIGNATURE_DOES_NOT_MATCH|SignatureDoesNotMatch",
     "the credentials are not accepted; check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or the profile"),
    (r"ACCESS_DENIED|AccessDenied|PERMISSION_DENIED|HTTP status 403|FORBIDDEN",
     "access is denied; credentials are missing, or lack the right to list, read, write and delete objects there"),
    (r"UNAUTHENTICATED|MISSING_AUTHENTICATION_TOKEN|HTTP status 401",
     "there are no valid credentials; set them in the environment, a profile, or use a machine's own role"),
    (r"PERMANENT_REDIRECT|PermanentRedirect|HTTP status 301",
     "the bucket is in another region; add ?region=REGION to the address"),
)  # fmt: skip


class StorageError(OSError):
    """The storage did not do what was asked, however often; the message is for people."""


class Storage:
    """Files by name under a root.

    Args:
        root: a directory (`~` is expanded), `file:///directory`, `s3://bucket/path` or `gs://bucket/path`.
        patience: for how many seconds an operation is tried again before it fails.
        full_patience: the same where the disk or quota is full.

    Raises:
        UserError: the root is not an address that can be used. Nothing is asked of the storage yet.

    Names are relative, with `/` between levels; a name that leaves the root raises ValueError.
    """

    def __init__(self, root: str, *, patience: float = 300.0, full_patience: float = 60.0) -> None:
        self._address = parse(root)
        self.root = str(self._address)
        self._backend = backend(self._address)
        self._patience, self._full_patience = patience, full_patience

    def write(self, name: str, data: bytes) -> None:
        """Write a file whole, in place of any of that name.

        Raises:
            StorageError: it could not be written.
        """
        checked(name)
        self._insist(f"{name} could not be written", lambda: self._backend.write(name, data))

    def read(self, name: str) -> bytes | None:
        """The content of a file, None where there is none.

        Raises:
            StorageError: it could not be read.
        """
        checked(name)
        return self._insist(f"{name} could not be read", lambda: self._backend.read(name))

    def names(self, folder: str = "") -> list[str]:
        """Names of the files directly in a folder, sorted; none where there is no such folder.

        Raises:
            StorageError: it could not be listed.
        """
        if folder:
            checked(folder)
        return self._insist(f"{folder or 'it'} could not be listed", lambda: self._backend.names(folder))

    def delete(self, name: str, *, patience: float | None = None) -> None:
        """Remove a file; one that is not there is fine. `patience` as in the constructor, for this call.

        Raises:
            StorageError: it could not be removed.
        """
        checked(name)
        self._insist(f"{name} could not be deleted", lambda: self._backend.delete(name), patience)

    def check(self) -> None:
        """Write, list, read back and delete a small file.

        Raises:
            UserError: saying what is wrong with the place, within about 15 seconds where it does not answer.
        """
        probe = Storage(self.root, patience=min(self._patience, _CHECK_S), full_patience=0.0)
        name, data = f".probe-{uuid.uuid4().hex}", uuid.uuid4().bytes
        try:
            probe.write(name, data)
            try:
                listed, found = probe.names(), probe.read(name)
            finally:
                with contextlib.suppress(StorageError):
                    probe.delete(name, patience=0.0)
            if found != data or name not in listed:
                raise UserError(f"storage {self.root}: what was written is not what is read back; use another one")
            probe.delete(name)
        except StorageError as error:
            said = str(error).replace(name, "a probe file")
            raise UserError(f"{said}. Mend that, or give --storage a place that this machine can write to") from None

    def _insist(self, failed: str, action: Callable[[], _T], patience: float | None = None) -> _T:
        patience = self._patience if patience is None else patience

        def stop(state: RetryCallState) -> bool:
            error = state.outcome.exception() if state.outcome else None
            limit = min(self._full_patience, patience) if _is_full(error) else patience
            return (state.seconds_since_start or 0.0) + state.upcoming_sleep > limit

        def say(state: RetryCallState) -> None:
            if state.attempt_number == 1 and state.outcome:
                reason = _reason(state.outcome.exception())
                _log.warning("storage %s: %s: %s; trying again for up to %.0f s", self.root, failed, reason, patience)

        attempts = Retrying(
            retry=retry_if_exception(_may_pass),
            wait=wait_exponential_jitter(multiplier=0.1, max=15.0, jitter=0.3),
            stop=stop,
            before_sleep=say,
            reraise=True,
        )
        try:
            return attempts(action)
        except (OSError, RuntimeError, NotImplementedError, KeyError) as error:  # as pyarrow raises them
            tried = attempts.statistics.get("attempt_number", 1)
            often = f" (tried {tried} times)" if tried > 1 else ""
            raise StorageError(f"storage {self.root}: {failed}: {_reason(error)}{often}") from error


def _may_pass(error: BaseException) -> bool:
    if not isinstance(error, OSError) or error.errno in _LASTING:
        return False
    if any(re.search(pattern, str(error)) for pattern, _ in _PASSING):
        return True
    return not any(re.search(pattern, str(error)) for pattern, _ in _REASONS)


def _is_full(error: BaseException | None) -> bool:
    return isinstance(error, OSError) and error.errno in _FULL


def _reason(error: BaseException | None) -> str:
    """What went wrong, in one line for a person."""
    if isinstance(error, OSError) and error.errno in _LASTING | _FULL and error.strerror:
        place = f" ({error.filename})" if error.filename else ""
        return {
            errno.EACCES: f"there is no right to do so{place}",
            errno.EPERM: f"there is no right to do so{place}",
            errno.EROFS: f"the file system is read-only{place}",
            errno.ENOTDIR: f"a part of the path is a file, not a directory{place}",
            errno.EEXIST: f"a part of the path is a file, not a directory{place}",
            errno.ENOSPC: "no space is left",
            errno.EDQUOT: "the disk quota is used up",
        }.get(error.errno or 0, f"{error.strerror}{place}")
    text = " ".join(str(error).split())
    for pattern, meaning in (*_PASSING, *_REASONS):
        if re.search(pattern, text):
            return meaning
    text = re.sub(r" ?\(Request ID:[^)]*\)", "", text)
    if details := re.search(r"NETWORK_CONNECTION.*?(?:Details: |curlCode: \d+, )(.*)", text):
        text = f"no connection: {details[1].rsplit('Details: ')[-1]}"
    return text[:300] or type(error).__name__
