"""Copy recordings from a bucket (or a mounted path) to this machine, once.

    python deploy/fetch_data.py s3://bucket/data /home/ubuntu/data

Every node of a cluster runs this while it is set up, so that all of them see the same `--data` path. A second call
with the same source does nothing; one that was cut off is repeated as a whole. Credentials are those of the machine
(instance profile, service account): none are read from the command line.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

_MARK = ".fetched"


def fetch(source: str, target: Path) -> str:
    """Copy everything under `source` to the folder `target`; says what was done.

    Args:
        source: `s3://…`, `gs://…`, `file://…` or a path.
        target: the folder to fill; made if it is not there.

    Raises:
        ValueError: the target holds the copy of another source, or the source holds nothing.
        OSError: the source cannot be read, or the target cannot be written.
    """
    from pyarrow import fs

    mark = target / _MARK
    if mark.is_file():
        earlier = mark.read_text(encoding="utf-8").strip()
        if earlier == source:
            return f"{target} holds {source} already"
        raise ValueError(f"{target} holds a copy of {earlier}; remove it, or give another folder for {source}")
    begun = time.monotonic()
    store, root = fs.FileSystem.from_uri(source if "://" in source else str(Path(source).absolute()))
    found = [entry for entry in store.get_file_info(fs.FileSelector(root, recursive=True)) if entry.is_file]
    if not found:
        raise ValueError(f"{source} holds no file")
    target.mkdir(parents=True, exist_ok=True)
    fs.copy_files(root, str(target.absolute()), source_filesystem=store, destination_filesystem=fs.LocalFileSystem())
    mark.write_text(source + "\n", encoding="utf-8")
    size = sum(entry.size for entry in found)
    return f"{target}: {len(found)} files, {size / 2**20:.1f} MiB from {source} in {time.monotonic() - begun:.0f} s"


def main(arguments: list[str]) -> int:
    """The command: exit status 0 done, 1 it could not be copied, 2 the arguments are wrong."""
    if len(arguments) != 2:
        print("usage: fetch_data.py SOURCE TARGET", file=sys.stderr)
        return 2
    source, target = arguments
    try:
        print(fetch(source, Path(target).expanduser()))
    except (OSError, ValueError) as error:
        print(f"error: {str(error).splitlines()[0]}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
