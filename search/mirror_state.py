"""What a run's mirror on shared storage holds, and who may write to it (torch-free).

`run/search.json` says whose run it is and counts a beat while its driver lives (every 10 seconds; watched for 25). A
driver takes a run over by writing its own session into it, together with all earlier ones and the byte of the journal
at which each began. Drivers look there right before every write: one that finds a stranger's session has lost the run
and writes no more; one that finds an earlier session (a write that was under way when the run was taken) says again
that the run is its own. Looking and writing are two steps, so what a loser still writes may arrive: it goes into
segments of its own session, of which readers take only the bytes before its successor's first.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from petl.errors import UserError
from trainables.storage import Storage, StorageError

FORMAT = "petl.run/1"
STATE = "run/search.json"
SPACE = "run/space.yaml"
BEAT_S = 10.0
WATCH_S = 25.0

Sessions = list[tuple[str, int]]

_SILENT: dict[str, tuple[str, int]] = {}
"""Runs that this process found dead, with their last session and beat: fetching and taking a run watch it once."""

_SEGMENT = re.compile(r"journal-(\d{12,})-([0-9a-f]{32})\.jsonl")
_FORMATS = re.compile(r"petl\.run/\d+")


@dataclass
class RunState:
    """The content of `run/search.json`."""

    search_id: str
    name: str
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    beat: int = 0
    ended: bool = False  # the driver left in order: finished or interrupted
    session: str = field(default_factory=lambda: uuid.uuid4().hex)
    machine: str = field(default_factory=lambda: _machine())
    results: list[str] = field(default_factory=list)  # result files that are in the mirror, below run/
    sessions: Sessions = field(default_factory=list)  # all that had the run, this one last, each with its first byte

    @property
    def driver(self) -> str:
        return f"{self.host} pid {self.pid}"

    def encoded(self) -> bytes:
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1).encode()


def read_state(storage: Storage) -> RunState | None:
    """Who searches, or searched, the run at a run root; None where there is none.

    Raises:
        UserError: there is something, but this version cannot read it.
        StorageError: the storage does not answer.
    """
    data = storage.read(STATE)
    if data is None:
        return None
    place = f"{storage.root}: {STATE}"
    try:
        content = json.loads(data)
        found = str(content["format"])
        if found != FORMAT and _FORMATS.fullmatch(found):
            raise UserError(f"{place} was made by an incompatible version (format {found}; this one reads {FORMAT})")
        if found != FORMAT:
            raise ValueError
        known = {one.name: content[one.name] for one in fields(RunState)}
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"{place} is damaged or not the state of a search; this version reads {FORMAT}") from None
    state = RunState(**known)
    for one in fields(RunState):
        kind = {"beat": int, "pid": int, "ended": bool, "results": list, "sessions": list}.get(one.name, str)
        if type(known[one.name]) is not kind:
            raise UserError(f"{place}: '{one.name}' is {known[one.name]!r:.50}, not {kind.__name__}")
    try:
        state.sessions = [(str(session), int(start)) for session, start in state.sessions]
    except (ValueError, TypeError, OverflowError):
        state.sessions = []
    starts = [start for _, start in state.sessions]
    if not state.sessions or state.sessions[-1][0] != state.session or starts != sorted(starts) or starts[0] != 0:
        raise UserError(
            f"{place}: 'sessions' is not the list of those who had the run, with '{state.session}' at its end"
        )
    return state


def ensure_dead(storage: Storage, state: RunState, patience: float, notify: Callable[[str], None]) -> RunState:
    """The run's state once it is clear that nobody searches it.

    Args:
        state: as it was read.
        patience: for how many seconds an unfinished run's beat is watched.
        notify: is told why this takes a while.

    Raises:
        UserError: the beat goes on: its driver is alive.
    """
    # One of this very machine and process space that is gone needs no watching.
    if state.ended or (state.machine and state.machine == _machine() and not _exists(state.pid)):
        return state
    if _SILENT.get(storage.root) == (state.session, state.beat):  # watched before, and not a beat since
        return state
    notify(f"the last driver ({state.driver}) did not say that it ended: watching for {patience:.0f} s if it lives")
    give_up = time.monotonic() + patience
    while time.monotonic() < give_up:
        time.sleep(min(1.0, patience / 10))
        now = read_state(storage)
        if now is not None and now.ended:
            return now
        if now is None or (now.session, now.beat) != (state.session, state.beat):
            driver = state.driver if now is None else now.driver
            raise UserError(f"{storage.root} is being searched by {driver}; wait for it or stop it first")
    _SILENT[storage.root] = (state.session, state.beat)
    return state


def segments(storage: Storage, sessions: Sessions | None = None) -> list[tuple[str, int, str]]:
    """Session, offset and name of the journal's segments in a mirror, by session and offset.

    Args:
        sessions: whose segments; None: everybody's.
    """
    found = [match for match in map(_SEGMENT.fullmatch, storage.names("run")) if match]
    order = None if sessions is None else [session for session, _ in sessions]
    known = [one for one in found if order is None or one[2] in order]
    known.sort(key=lambda one: (0 if order is None else order.index(one[2]), int(one[1])))
    return [(one[2], int(one[1]), f"run/{one[0]}") for one in known]


def segment(offset: int, session: str) -> str:
    return f"run/journal-{offset:012d}-{session}.jsonl"


def mirrored_journal(storage: Storage, sessions: Sessions) -> bytes:
    """The journal that the segments of a run's sessions add up to, whole lines only.

    A segment may repeat what others of its session hold (they are merged in time), but must agree with them. What a
    session wrote after the next one had taken the run does not count.

    Raises:
        UserError: bytes are missing, or two segments contradict each other.
        StorageError: the storage does not answer.
    """
    for attempt in range(2):
        listed = segments(storage, sessions)
        with ThreadPoolExecutor(8) as pool:
            read = list(pool.map(lambda one: storage.read(one[2]), listed))
        if attempt or None not in read:
            break  # one that went away was merged into another meanwhile: looked at once more
    ends = dict(zip([session for session, _ in sessions], [*(start for _, start in sessions[1:]), None], strict=True))
    journal = bytearray()
    for (session, offset, name), data in zip(listed, read, strict=True):
        end = ends[session]
        if data is None or (end is not None and offset >= end):
            continue
        if end is not None:
            data = data[: end - offset]
        if offset > len(journal):
            raise _gap(storage, len(journal), offset, name)
        again = len(journal) - offset
        if journal[offset : offset + len(data)] != data[:again]:
            raise UserError(
                f"{storage.root}: {name} overlaps the segments before it and contradicts them: it was changed from "
                "outside, and the run cannot be continued from there"
            )
        journal += data[again:]
    if len(journal) < sessions[-1][1]:
        raise _gap(storage, len(journal), sessions[-1][1], f"what session {sessions[-1][0]} wrote")
    return bytes(journal[: journal.rfind(b"\n") + 1])


def _gap(storage: Storage, start: int, end: int, place: str) -> UserError:
    return UserError(
        f"{storage.root}: the journal has a gap: bytes {start} to {end} are missing before {place}; "
        "the run cannot be continued from there"
    )


def ahead(directory: Path, mirrored: bytes) -> int:
    """How many bytes of whole lines a directory's journal has beyond the mirrored ones, negative where it has fewer.

    Raises:
        UserError: they are the journals of different histories.
    """
    path = directory / "journal.jsonl"
    local = path.read_bytes() if path.is_file() else b""
    local = local[: local.rfind(b"\n") + 1]  # the last line may be torn
    shared = min(len(local), len(mirrored))
    if local[:shared] != mirrored[:shared]:
        raise UserError(
            f"{path} and its copy on the storage went different ways: the run was continued in two places. Rename "
            f"{directory} and resume from the storage, or start a new search."
        )
    return len(local) - len(mirrored)


def unreachable(error: StorageError) -> UserError:
    return UserError(f"{error}; check --storage, the network and the credentials")


def _machine() -> str:
    """This boot of this machine and its process numbers, "" where the system does not say."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    return ""


def _exists(pid: int) -> bool:
    import psutil

    return psutil.pid_exists(pid)
