"""A run directory's copy on shared storage: complete at every moment, taken over when its driver is gone."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from petl.errors import UserError
from search import mirror_segments
from search.mirror import RunMirror, checkpoints_root, ensure_free, fetch, run_name, run_root
from search.mirror_fetch import recorded, who
from search.mirror_owner import Lost, Owner
from search.mirror_segments import Segments
from search.mirror_state import mirrored_journal, segment, segments
from tests.object_store import Forwarder, ObjectStore, object_store
from trainables.storage import Storage


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    with object_store() as running:
        yield running


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory as a search has begun it."""
    directory = tmp_path / "runs" / "moa 1%"
    directory.mkdir(parents=True)
    (directory / "space.yaml").write_text("schema: petl.space/1\n")
    _append(directory, "search", "trial")
    return directory


def _append(directory: Path, *events: str) -> None:
    with (directory / "journal.jsonl").open("a", encoding="utf-8") as file:
        for event in events:
            file.write(json.dumps({"event": event, "text": "é" * 20}, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def _mirroring(
    root: str, directory: Path, search_id: str = "one", said: list[str] | None = None
) -> Iterator[RunMirror]:
    mirror = RunMirror(
        root, directory, search_id, (said if said is not None else []).append, watch=0.5, every=0.05, beat=0.1
    )
    mirror.start()
    try:
        yield mirror
    finally:
        mirror.close(20)


def _journal(directory: Path) -> bytes:
    return (directory / "journal.jsonl").read_bytes()


def _sent(mirror: RunMirror, seconds: float = 20.0) -> bool:
    """Whether all that the journal holds is on the storage in time."""
    give_up = time.monotonic() + seconds
    mirror.poke()
    while behind := mirror.behind():
        if mirror.taken_over or time.monotonic() > give_up:
            break
        time.sleep(0.02)
    return not behind


def _mirrored(root: str) -> bytes:
    state = who(root)
    assert state is not None
    return mirrored_journal(Storage(root), state.sessions)


ONE, TWO, THREE = (digit * 32 for digit in "123")


@pytest.mark.parametrize("kind", ["path", "s3"])
def test_a_run_moves_to_another_machine_and_back(kind: str, run: Path, tmp_path: Path, store: ObjectStore) -> None:
    root = run_root(store.uri("my%20petl") if kind == "s3" else str(tmp_path / "my petl"), run.name)
    assert checkpoints_root(root).split("?")[0].endswith("/checkpoints")
    assert run_name(root) == run.name
    with _mirroring(root, run) as mirror:
        for _ in range(5):
            _append(run, "epoch")
            assert _sent(mirror)
        assert _mirrored(root) == _journal(run)
        _append(run, "interrupted")
        (run / "best" / "deep").mkdir(parents=True)
        (run / "best" / "deep" / "card.md").write_text("best")
        (run / "report.html").write_text("report")
        (run / "journal.lock").write_text("")
        assert mirror.close(20)
    state = who(root)
    assert state is not None and state.ended and state.search_id == "one"
    assert state.results == ["best/deep/card.md", "report.html"]

    there = fetch(root, tmp_path / "other" / run.name)
    assert _journal(there) == _journal(run)
    assert (there / "space.yaml").read_text() == "schema: petl.space/1\n"
    assert sorted(path.name for path in there.iterdir()) == ["best", "journal.jsonl", "report.html", "space.yaml"]
    with _mirroring(root, there) as mirror:
        _append(there, "resumed")
        assert mirror.close(20)
    again = who(root)
    assert again is not None and again.beat > state.beat and again.session != state.session

    with pytest.raises(UserError, match=r"knows more of this search than .*continued elsewhere.*--resume"):
        RunMirror(root, run, "one").start()
    assert _journal(fetch(root, run)) == _journal(there)  # brought up to date
    _append(run, "resumed")
    newer = _journal(run)
    assert _journal(fetch(root, run)) == newer  # it knows more: kept
    _append(there, "something else")
    with _mirroring(root, there):
        pass
    with pytest.raises(UserError, match="went different ways"):
        fetch(root, run)
    with pytest.raises(UserError, match="went different ways"):
        RunMirror(root, run, "one").start()
    assert _journal(run) == newer


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    merged=st.sampled_from([2, 3, 32]),
    capped=st.sampled_from([100, 2**20]),
    steps=st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=20),
)
def test_the_copy_is_whole_after_every_write(
    merged: int, capped: int, steps: list[tuple[int, bool]], tmp_path: Path
) -> None:
    """Whichever operation the writer dies after, a reader finds a beginning of the journal, and loses nothing of it."""
    place = tmp_path / uuid.uuid4().hex
    place.mkdir()
    journal, seen = place / "journal.jsonl", [0]

    class Watched(Storage):
        def write(self, name: str, data: bytes) -> None:
            super().write(name, data)
            self.look()

        def delete(self, name: str, *, patience: float | None = None) -> None:
            super().delete(name)
            self.look()

        def look(self) -> None:
            found = mirrored_journal(Storage(self.root), [(ONE, 0)])
            assert journal.read_bytes().startswith(found)
            assert len(found) >= seen[0]
            seen[0] = len(found)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mirror_segments, "_MERGED", merged)
        patch.setattr(mirror_segments, "_LARGEST", 64)
        patch.setattr(mirror_segments, "_LARGEST_MERGED", capped)
        writer = Segments(Watched(str(place / "shared")), journal, ONE)
        for lines, torn in steps:
            with journal.open("ab") as file:
                file.write(b"".join(b"%d\n" % (10**i) for i in range(lines * 7)))
            if torn:
                with journal.open("ab") as file:
                    file.write(b"begun, ")
            writer.send()
            whole = journal.read_bytes()
            found = mirrored_journal(Storage(str(place / "shared")), [(ONE, 0)])
            assert found == whole[: whole.rfind(b"\n") + 1]
        if merged == 2 and capped > 1000:
            assert len(segments(Storage(str(place / "shared")))) <= 12


@pytest.mark.slow
def test_an_outage_is_made_up_for(run: Path, store: ObjectStore) -> None:
    network = Forwarder(store.port)
    said: list[str] = []
    try:
        root = run_root(store.uri("outage", network.port), run.name)
        with _mirroring(root, run, said=said) as mirror:
            assert _sent(mirror)
            network.down()
            for _ in range(5):
                _append(run, "epoch")
                began = time.monotonic()
                mirror.poke()
                assert time.monotonic() - began < 2
                time.sleep(0.05)
            assert not _sent(mirror, 0.5)
            network.up()
            assert _sent(mirror)
            assert _mirrored(root) == _journal(run)
            network.down()
            assert not mirror.close(0.3)
            assert re.search(r"lacks the result files \(storage .*no connection.*\); .* has them", mirror.behind())
            _append(run, "lost")
            assert re.search(r"lacks the last \d+ bytes of the journal and the result files", mirror.behind())
        assert [text.split(":")[0] for text in said[:2]] == [
            "the copy on shared storage is behind, and will catch up",
            "the copy on shared storage has caught up",
        ]
        assert len(said) <= 3
    finally:
        network.close()


def test_a_driver_that_was_cut_off_finds_its_run_taken(run: Path, store: ObjectStore, tmp_path: Path) -> None:
    network = Forwarder(store.port)
    said: list[str] = []
    try:
        with _mirroring(run_root(store.uri("taken", network.port), run.name), run, said=said) as lost:
            assert _sent(lost)
            root = run_root(store.uri("taken"), run.name)
            with pytest.raises(UserError, match=rf"is being searched by .* pid {os.getpid()}; wait for it or stop it"):
                fetch(root, tmp_path / "early", watch=20)
            assert not (tmp_path / "early").exists()
            network.down()
            there = fetch(root, tmp_path / "there", watch=0.5)
            with _mirroring(root, there) as mine:
                _append(there, "mine")
                assert _sent(mine)
                _append(run, "theirs")
                network.up()
                assert not _sent(lost)  # ends as soon as it has seen whose the run is
                assert lost.taken_over.endswith(f"pid {os.getpid()}")
                assert not lost.close(5)
                assert f"belongs to {lost.taken_over} now" in lost.behind()
                _append(there, "mine again")
                assert _sent(mine) and not mine.taken_over
            assert _mirrored(root) == _journal(there)
            assert "is now searched by" in said[-1]
    finally:
        network.close()


@pytest.mark.slow
def test_a_killed_driver(run: Path, tmp_path: Path) -> None:
    """On the same machine it is known to be gone at once; from another one its beat would be watched."""
    root = str(tmp_path / "shared")
    code = (
        "import sys, time; from pathlib import Path; from search.mirror import RunMirror\n"
        "mirror = RunMirror(sys.argv[1], Path(sys.argv[2]), 'one', beat=0.2); mirror.start()\n"
        "while mirror.behind(): time.sleep(0.01)\n"
        "print('there', flush=True); time.sleep(60)"
    )
    driver = subprocess.Popen([sys.executable, "-c", code, root, str(run)], stdout=subprocess.PIPE, text=True)
    try:
        assert driver.stdout is not None and driver.stdout.readline() == "there\n"
        with pytest.raises(UserError, match=f"is being searched by .* pid {driver.pid}"):
            fetch(root, tmp_path / "there")
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait(10)
    began = time.monotonic()
    there = fetch(root, tmp_path / "there")
    assert time.monotonic() - began < 5
    assert _journal(there) == _journal(run)
    state = json.loads((tmp_path / "shared" / "run" / "search.json").read_text())
    state["machine"] = "elsewhere"
    (tmp_path / "shared" / "run" / "search.json").write_text(json.dumps(state))
    said: list[str] = []
    fetch(root, tmp_path / "there", watch=0.3, notify=said.append)
    assert "did not say that it ended: watching" in said[0]
    mirror = RunMirror(root, there, "one", said.append)
    mirror.start()  # watched already: not once more for 25 s
    assert len(said) == 1
    assert mirror.close(20)


def test_what_is_no_run_is_refused(run: Path, tmp_path: Path, store: ObjectStore) -> None:
    into = tmp_path / "into"
    with pytest.raises(UserError, match=r"nothing/here is not a run: there is no run/search\.json"):
        fetch(str(tmp_path / "nothing" / "here"), into)
    with pytest.raises(UserError, match=r"nobody/x.* is not a run"):
        fetch(store.uri("x", bucket="nobody"), into)
    root = str(tmp_path / "shared")
    with _mirroring(root, run) as mirror:
        assert _sent(mirror)
    with pytest.raises(UserError, match=r"run of another search \(moa 1%.*choose another name"):
        RunMirror(root, run, "two").start()
    (into / "thesis").mkdir(parents=True)
    with pytest.raises(UserError, match="is no run directory"):
        fetch(root, into)
    with pytest.raises(UserError, match="plain name"):
        run_root(str(tmp_path), "../other")
    place = tmp_path / "shared" / "run" / "search.json"
    whole = json.loads(place.read_text())
    into = tmp_path / "new"
    for change, said in (
        ({"format": "petl.run/2"}, r"incompatible version \(format petl\.run/2; this one reads petl\.run/1\)"),
        ({"format": "other"}, "damaged or not the state"),
        ({"beat": "3"}, "'beat' is '3', not int"),
        ({"results": ["../../.ssh/authorized_keys"]}, "which no search writes"),
        ({"results": ["best/../../x"]}, "which no search writes"),
        ({"results": ["/etc/passwd"]}, "which no search writes"),
        ({"results": [3]}, "which no search writes"),
        ({"sessions": []}, "'sessions' is not the list"),
        ({"sessions": [["x"]]}, "'sessions' is not the list"),
        ({"sessions": [[whole["session"], 7]]}, "'sessions' is not the list"),
    ):
        place.write_text(json.dumps({**whole, **change}))
        with pytest.raises(UserError, match=said):
            fetch(root, into)
    for text in ("", "{", "[" * 100_000, "[]", '{"format": "petl.run/1"}'):
        place.write_text(text)
        with pytest.raises(UserError, match="damaged or not the state"):
            fetch(root, into)
    assert not into.exists()


def test_gaps_and_contradictions_are_named(tmp_path: Path) -> None:
    storage, sessions = Storage(str(tmp_path)), [(ONE, 0)]
    storage.write(segment(0, ONE), b"one\ntwo\n")
    storage.write(segment(4, ONE), b"two\nthree\n")  # repeats, and agrees
    assert mirrored_journal(storage, sessions) == b"one\ntwo\nthree\n"
    storage.write(segment(14, ONE), b"torn")
    assert mirrored_journal(storage, sessions) == b"one\ntwo\nthree\n"
    storage.write(segment(20, ONE), b"x\n")
    with pytest.raises(UserError, match=r"bytes 18 to 20 are missing before run/journal-000000000020-1+\.jsonl"):
        mirrored_journal(storage, sessions)
    storage.delete(segment(20, ONE))
    with pytest.raises(UserError, match=r"bytes 18 to 19 are missing before what session 2+ wrote"):
        mirrored_journal(storage, [(ONE, 0), (TWO, 19)])
    storage.write(segment(8, ONE), b"other\n")
    with pytest.raises(UserError, match=r"run/journal-000000000008-1+\.jsonl overlaps .* contradicts"):
        mirrored_journal(storage, sessions)


def test_what_a_driver_writes_that_lost_the_run_does_not_count(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    storage.write(segment(0, ONE), b"one\ntwo\nlate, by the first\n")
    storage.write(segment(8, TWO), b"by the second\n")
    storage.write(segment(8, THREE), b"by one that never had it\n")
    assert mirrored_journal(storage, [(ONE, 0), (TWO, 8)]) == b"one\ntwo\nby the second\n"
    storage.write(segment(27, ONE), b"later still\n")
    assert mirrored_journal(storage, [(ONE, 0), (TWO, 8)]) == b"one\ntwo\nby the second\n"
    with pytest.raises(UserError, match="bytes 4 to 8 are missing"):
        mirrored_journal(storage, [(ONE, 0), (THREE, 4)])


def test_a_late_write_of_the_earlier_driver_does_not_undo_that_it_was_replaced(run: Path, tmp_path: Path) -> None:
    """Its state arrives after it was taken over: the new driver says again whose the run is, the old one yields."""
    storage = Storage(str(tmp_path / "shared"))
    first = Owner(storage, run, "one", beat=0.0)
    first.take(0.1, print)
    late = storage.read("run/search.json")
    assert late is not None
    second = Owner(storage, run, "one", beat=10.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("search.mirror_owner.ensure_dead", lambda storage, state, *_: state)  # it slept through it
        second.take(0.1, print)
    storage.write("run/search.json", late)
    second.ensure()
    state = who(storage.root)
    assert state is not None and state.sessions == [(first.state.session, 0), (second.state.session, 0)]
    with pytest.raises(Lost):
        first.ensure()
    assert first.taken_over and not second.taken_over
    second.ensure()


def test_a_driver_is_seen_to_live_while_it_uploads_much(run: Path, tmp_path: Path) -> None:
    (run / "tables").mkdir()
    for number in range(20):
        (run / "tables" / f"{number}.csv").write_text("x")
    beats: list[int] = []

    class Slow(Storage):
        def write(self, name: str, data: bytes) -> None:
            if "tables" in name:
                time.sleep(0.02)
                state = who(self.root)
                assert state is not None
                beats.append(state.beat)
            super().write(name, data)

    mirror = RunMirror(str(tmp_path / "shared"), run, "one", every=0.05, beat=0.05)
    mirror._storage = mirror._owner._storage = Slow(mirror.root)
    mirror.start()
    assert mirror.close(20)
    assert len(beats) == 20 and beats[-1] - beats[0] >= 4


def test_whatever_goes_wrong_the_copy_goes_on(run: Path, tmp_path: Path) -> None:
    said: list[str] = []
    with _mirroring(str(tmp_path / "shared"), run, said=said) as mirror:
        assert _sent(mirror)
        (run / "space.yaml").unlink()
        (run / "space.yaml").mkdir()  # not what anybody expects there
        give_up = time.monotonic() + 10
        while not said and time.monotonic() < give_up:
            time.sleep(0.02)
        (run / "space.yaml").rmdir()
        send, failures = mirror._segments.send, iter([ValueError("odd")])

        def odd() -> None:
            if error := next(failures, None):
                raise error
            send()

        mirror._segments.send = odd  # type: ignore[method-assign]
        _append(run, "epoch")
        assert _sent(mirror)
    assert "is behind" in said[0] and "caught up" in said[1]
    assert _mirrored(str(tmp_path / "shared")) == _journal(run)


def test_a_refused_search_leaves_nothing(run: Path, tmp_path: Path) -> None:
    root = str(tmp_path / "shared")
    mirror = RunMirror(root, run, "one", every=0.05)
    mirror.start()
    assert _sent(mirror) and recorded(root)
    assert mirror.discard()
    assert who(root) is None and not [path for path in (tmp_path / "shared").rglob("*") if path.is_file()]
    with _mirroring(root, run, "two") as mirror:
        assert _sent(mirror)
    again = RunMirror(root, run, "two", watch=0.5, every=0.05)
    again.start()
    again.close(20)
    assert not again.discard()  # it was there before
    assert _mirrored(root) == _journal(run)


def test_a_driver_that_died_before_its_first_line_blocks_nobody(run: Path, tmp_path: Path) -> None:
    root, empty = str(tmp_path / "shared"), tmp_path / "empty" / run.name
    empty.mkdir(parents=True)
    assert not recorded(root)
    ensure_free(root)
    gone = RunMirror(root, empty, "one", every=0.05, beat=0.1)
    gone.start()
    with pytest.raises(UserError, match="is being searched by"):
        ensure_free(root, watch=5)
    with pytest.raises(UserError, match="is being searched by"):
        RunMirror(root, run, "two", watch=5).start()
    gone._done = True  # as if it were killed
    gone.poke()
    gone._thread.join(10)
    assert who(root) is not None and not recorded(root)
    with pytest.raises(UserError, match="start it anew"):
        fetch(root, tmp_path / "there", watch=0.3)
    with _mirroring(root, run, "two") as mirror:
        assert _sent(mirror)
    assert recorded(root)
    ensure_free(root)
    assert _journal(fetch(root, tmp_path / "there")) == _journal(run)


def test_a_fetch_that_was_cut_off_is_done_again(run: Path, tmp_path: Path) -> None:
    (run / "best.yaml").write_text("best")
    (run / "report.html").write_text("report")
    root = str(tmp_path / "shared")
    with _mirroring(root, run):
        pass

    class CutOff(Exception):
        pass

    write = Storage.write
    for left in range(6):
        for begun in ((), (".lock", "space.yaml")):
            into = tmp_path / f"{left}-{len(begun)}"
            into.mkdir()
            for name in begun:
                (into / name).write_text("")
            allowed = iter(range(left))

            def until(storage: Storage, name: str, data: bytes, allowed: Iterator[int] = allowed) -> None:
                if next(allowed, None) is None:
                    raise CutOff
                write(storage, name, data)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Storage, "write", until)
                with pytest.raises(CutOff) if left < 5 else contextlib.nullcontext():
                    fetch(root, into)
            (into / ".tmp-1").write_text("of a killed writer")
            assert _journal(fetch(root, into)) == _journal(run)
            assert (into / "best.yaml").read_text() == "best" and (into / "space.yaml").read_text()
            assert not (into / ".fetching").exists()
