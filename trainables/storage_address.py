"""Where storage is: a local path or the URI of an object store, taken apart and put together (torch-free).

A root is kept in one spelling: an absolute path, or `scheme://bucket/quoted/path?options`. Options belong to the whole
address, so they stay at its end when a path is added. Names of files are plain text; only addresses are quoted.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from petl.errors import UserError, nearest

_OPTIONS = {
    "s3": ("endpoint_override", "region", "scheme", "tls_ca_file_path"),
    "gs": ("endpoint_override", "scheme", "project_id", "retry_limit_seconds"),
}
_ALLOWED = "a directory, file:///directory, s3://bucket/path or gs://bucket/path"
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile (AWS_PROFILE), or the machine's instance role",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, `gcloud auth application-default login`, or the machine's service account",
}
_SECRET = re.compile(r"key|secret|token|password|signature|credential", re.IGNORECASE)


@dataclass(frozen=True)
class Address:
    """A storage root. `scheme` is "file", "s3" or "gs"; `path` is unquoted, an object store's without the bucket."""

    scheme: str
    path: str
    bucket: str = ""
    options: tuple[tuple[str, str], ...] = ()
    anonymous: bool = False

    def __str__(self) -> str:
        if self.scheme == "file":
            return self.path
        user = "anonymous@" if self.anonymous else ""
        path = "/" + quote(self.path, safe="/~") if self.path else ""
        options = "&".join(f"{key}={quote(value, safe='')}" for key, value in self.options)
        return f"{self.scheme}://{user}{self.bucket}{path}{'?' + options if options else ''}"

    def option(self, name: str) -> str | None:
        return dict(self.options).get(name)

    def inside(self, name: str) -> str:
        """The path of a file under the root, as a filesystem of this scheme takes it."""
        place = self.path if self.scheme == "file" else f"{self.bucket}/{self.path}".rstrip("/")
        return f"{place}/{checked(name)}" if name else place


def parse(root: str) -> Address:
    """Take a storage root apart.

    Raises:
        UserError: it is no directory, bucket or scheme that can be used, or holds credentials.
    """
    if not root.strip():
        raise UserError(f"the storage is empty; give {_ALLOWED}")
    if "://" not in root:
        # Not `resolve`: links stay as they are, machines of a cluster may have them point elsewhere.
        return Address("file", os.path.abspath(Path(root).expanduser()))  # noqa: PTH100
    said = root.split("://", 1)[0]
    scheme = {"gcs": "gs"}.get(said.lower(), said.lower())
    if scheme not in ("file", *_OPTIONS):
        raise UserError(f"storage of kind '{said}://' is not supported; give {_ALLOWED}")
    rest = _quoted(root.split("://", 1)[1])
    try:
        parts = urlsplit(f"{scheme}://{rest}", allow_fragments=False)
    except ValueError:
        raise UserError(f"the storage address is not a URI; give {_ALLOWED}") from None
    if scheme == "file":
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise UserError(f"storage {root}: a file URI has three slashes and an absolute path: file:///directory")
        return parse(unquote(parts.path))
    user, _, bucket = parts.netloc.rpartition("@")
    options = tuple(parse_qsl(parts.query, keep_blank_values=True))
    anonymous = scheme == "gs" and user == "anonymous"
    # Roots are written into journals, logs and reports, so no secret may be part of them.
    if (user and not anonymous) or any(_SECRET.search(key) for key, _ in options):
        raise UserError(
            f"the storage address {scheme}://…@{bucket}{parts.path} holds credentials, and would carry them into "
            f"journals and logs. Take them out and give them by {_CREDENTIALS[scheme]}."
        )
    if not bucket:
        raise UserError(f"storage {root} names no bucket; give {scheme}://bucket/path")
    if ":" in bucket:
        raise UserError(
            f"storage {root}: '{bucket}' is an address, not a bucket; give "
            f"{scheme}://BUCKET/path?endpoint_override={quote(bucket, safe='')}&scheme=http"
        )
    for key, _ in options:
        if key not in _OPTIONS[scheme]:
            known = ", ".join(_OPTIONS[scheme])
            raise UserError(
                f"storage {root}: unknown option '{key}'{nearest(key, _OPTIONS[scheme])}; options are {known}"
            )
    path = "/".join(part for part in unquote(parts.path).split("/") if part)
    return Address(scheme, path and checked(path), bucket, options, anonymous)


def joined(root: str, *names: str) -> str:
    """The root of a folder inside another one; options of a URI stay at its end.

    Args:
        root: a path or URI.
        names: plain, unquoted names; "a/b" is two levels.
    """
    address = parse(root)
    path = "/".join([address.path.rstrip("/"), *(checked(name) for name in names)])
    lead = path if address.scheme == "file" else path.lstrip("/")
    return str(Address(address.scheme, lead, address.bucket, address.options, address.anonymous))


def checked(name: str) -> str:
    """A relative name that stays below its root.

    Raises:
        ValueError: it is empty, absolute, or holds `..`, an empty level or a zero byte.
    """
    if any(part in ("", ".", "..") for part in name.split("/")) or "\0" in name:
        raise ValueError(f"{name!r} is not a relative name inside a storage")
    return name


def _quoted(rest: str) -> str:
    """A URI as people type it: blanks and stray `%` are meant literally."""
    return re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", rest).replace(" ", "%20")
