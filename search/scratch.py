"""The one folder of a search for what nobody needs afterwards: Ray's own files, its token (torch-free, Ray-free).

It goes with the search. A driver that was killed leaves it behind; the next search of the same user removes what
belongs to processes that are gone.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from filelock import FileLock, Timeout

_PREFIX = "petl-"
_OWNER = "owner.lock"
_MOST_LOG = 5 << 20  # bytes of one log that are kept


class Scratch:
    """A folder of mode 700. Short names: Ray's sockets lie in it, and their paths are limited to 107 bytes."""

    def __init__(self) -> None:
        base = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
        base.mkdir(parents=True, exist_ok=True)
        _sweep(base)
        self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
        self._owner = FileLock(self.folder / _OWNER)
        self._owner.acquire()  # the system frees it when this process ends, however that is
        self.ray = self.folder / "r"

    def keep_logs(self, into: Path) -> bool:
        """Copy what Ray's processes said, for somebody who wants to know what went wrong."""
        found = [*self.ray.glob("session_*/logs/worker-*"), *self.ray.glob("session_*/logs/raylet*")]
        found = [file for file in found if file.is_file() and 0 < file.stat().st_size < _MOST_LOG]
        with contextlib.suppress(OSError):  # a full disk may be what went wrong
            for file in found:
                into.mkdir(exist_ok=True)
                shutil.copyfile(file, into / file.name)
        return bool(found)

    def remove(self) -> None:
        """Done once and again; what a dying process still writes is removed by the next search."""
        self._owner.release()
        shutil.rmtree(self.folder, ignore_errors=True)


def _sweep(base: Path) -> None:
    """Remove the folders of this user's searches that are no more."""
    for folder in base.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError, Timeout):
            if (folder / _OWNER).is_file() and folder.stat().st_uid == os.getuid():
                with FileLock(folder / _OWNER, timeout=0):
                    shutil.rmtree(folder, ignore_errors=True)
