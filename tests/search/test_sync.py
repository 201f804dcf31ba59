"""`petl-search sync` on real run directories and real MLflow stores in SQLite files."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from petl.errors import UserError
from search.commands import sync as sync_command
from search.commands.sync import sync
from search.mlflow_spool import SPOOL, SPOOL_FORMAT, Backlog, read_spool
from search.records import Incident, SearchRecord, Status
from search.tracking import Tracker
from tests.search.mlflow_servers import free_port
from tests.search.test_tracking import (
    TAGS,
    client,
    end,
    make_record,
    make_trial,
    runs,
    steps,
    synced,
    template,
    train,
    uri,
    write_journal,
)

__all__ = ["template", "uri"]  # fixtures

NOBODY = f"http://127.0.0.1:{free_port()}"


def search(tmp_path: Path) -> SearchRecord:
    """A trial that is complete, one that was stopped, one in the middle."""
    record = make_record(tmp_path)
    for epochs, status in ((3, Status.COMPLETE), (1, Status.STOPPED), (2, Status.RUNNING)):
        trial = make_trial(record)
        train(None, trial, epochs)
        if status is not Status.RUNNING:
            end(None, trial, status)
    return record


def test_a_journal_alone_is_enough(uri: str, tmp_path: Path) -> None:
    """Driver killed with -9 while MLflow was down: no spool, no run."""
    record = search(tmp_path)
    record.trials[0].incidents.append(Incident("worker", "died\nwith a stack", 1.0, 2))
    assert synced(record, uri) == "3 runs, 6 epochs delivered"
    (parent,), children = runs(uri)
    assert parent.info.status == "KILLED" and parent.data.tags["status"] == "interrupted"
    assert {t: c.info.status for t, c in children.items()} == {
        "t0000": "FINISHED",
        "t0001": "FINISHED",
        "t0002": "KILLED",
    }
    assert children["t0002"].data.tags["status"] == "interrupted"
    assert [steps(uri, children[t], "val/accuracy") for t in sorted(children)] == [[1, 2, 3], [1], [1, 2]]
    assert parent.info.run_name == "run"
    before = {run.info.run_id: (run.info.end_time, run.info.status) for run in [parent, *children.values()]}
    assert synced(record, uri) == "nothing to do"
    (parent,), children = runs(uri)
    assert before == {run.info.run_id: (run.info.end_time, run.info.status) for run in [parent, *children.values()]}


def test_a_finished_search_gets_results_and_files(uri: str, tmp_path: Path) -> None:
    record = search(tmp_path)
    record.trials.pop()
    record.winner, record.test = "t0000", {"test/accuracy": 0.5}
    write_journal(record, "finished")
    directory = Path(record.directory)
    for name in ("report.html", "best/petl_config.json", "figures/loss.png"):
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text(name)
    assert synced(record, uri) == "2 runs, 4 epochs, results, 3 files delivered"
    (parent,), children = runs(uri)
    assert parent.info.status == "FINISHED" and parent.data.metrics["test/accuracy"] == 0.5
    assert children["t0000"].data.tags["winner"] == "true"
    listed = {f.path for p in (None, "best", "figures") for f in client(uri).list_artifacts(parent.info.run_id, p)}
    assert listed >= {"report.html", "best/petl_config.json", "figures/loss.png"}
    assert synced(record, uri) == "nothing to do"
    (directory / "report.html").write_text("another report")
    assert synced(record, uri) == "1 file delivered"


def test_spool_and_journal_together_give_each_epoch_once(uri: str, tmp_path: Path) -> None:
    """MLflow had the beginning, the spool has the end, the address in the spool is that of a server that is gone."""
    record = make_record(tmp_path)
    tracker = Tracker(uri, "moa")
    tracker.start(record, TAGS)
    trial = make_trial(record)
    tracker.trial_started(trial)
    train(tracker, trial, 2)
    tracker.interrupted()
    tracker.close()

    away = Tracker(NOBODY, "moa", notify=lambda _: None)
    assert away.start(record, TAGS) == ""
    away.trial_started(trial)
    train(away, trial, 2)
    end(away, trial)
    report = Path(record.directory) / "report.html"
    report.write_text("report")
    away.finish(record, [report])
    away.close()
    spool = Path(record.directory) / SPOOL
    assert read_spool(spool)[1][-1]["status"] == "FINISHED"
    (tmp_path / "spooled").write_text(spool.read_text())
    assert synced(record, uri) == "1 run, 2 epochs, results, 1 file delivered" and not spool.exists()
    (parent,), children = runs(uri)
    assert parent.info.status == children["t0000"].info.status == "FINISHED"
    assert steps(uri, children["t0000"], "seconds") == [1, 2, 3, 4]
    assert steps(uri, children["t0000"], "trainable_params") == [0]
    shutil.copy(tmp_path / "spooled", spool)  # deleting it failed, say
    assert synced(record, uri) == "nothing to do"
    assert steps(uri, runs(uri)[1]["t0000"], "val/best_accuracy") == [4]


def test_strays_are_ended_and_their_ids_are_free(uri: str, tmp_path: Path) -> None:
    record = make_record(tmp_path)
    tracker = Tracker(uri, "moa")
    tracker.start(record)
    for _ in range(3):
        trial = make_trial(record)
        tracker.trial_started(trial)
        train(tracker, trial, 2)
    tracker.close()
    # The journal lost its last second: it knows one trial, and another is proposed under the second one's id.
    del record.trials[1:]
    again = Tracker(uri, "moa")
    again.start(record)
    other = make_trial(record)
    other.params["lora.rank"] = 64
    again.trial_started(other)
    train(again, other, 1)
    for trial in record.trials:
        end(again, trial)
    again.finish(record)
    again.close()
    _, children = runs(uri)
    assert set(children) == {"t0000", "t0001", "t0001~lost1", "t0002~lost1"}
    for lost in ("t0001~lost1", "t0002~lost1"):
        assert children[lost].info.status == "KILLED" and children[lost].data.tags["status"] == "lost"
    assert children["t0001"].data.params["lora.rank"] == "64" and steps(uri, children["t0001"], "seconds") == [1]
    # The same id with other values, found by sync.
    record.trials[1].params = {**record.trials[1].params, "lora.rank": 32}
    assert synced(record, uri) == "1 run, 1 epoch, 1 lost run marked delivered"
    assert set(runs(uri)[1]) == {"t0000", "t0001", "t0001~lost1", "t0001~lost2", "t0002~lost1"}


def test_a_search_that_is_running_is_left_alone(uri: str, tmp_path: Path) -> None:
    record = search(tmp_path)
    write_journal(record)
    out = Console(file=io.StringIO())
    with FileLock(Path(record.directory) / ".lock"), pytest.raises(UserError, match="is being searched"):
        sync(Path(record.directory), uri, out, out)
    assert runs(uri) == ([], {})
    with pytest.raises(UserError, match="not the directory of a search"):
        sync(tmp_path, uri, out, out)
    assert not (tmp_path / ".lock").exists()


def test_a_store_that_is_away_is_said_with_status_1(tmp_path: Path) -> None:
    record = search(tmp_path)
    write_journal(record)
    command = [sys.executable, "-c", "from search.cli import main; main()", "sync", record.directory]
    root = Path(__file__).parents[2]
    env = {**os.environ, "MLFLOW_TRACKING_URI": NOBODY}
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1 and "nothing listens there" in done.stderr and "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_password_is_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    record = search(tmp_path)
    record.info["mlflow"] = "http://ada:***@127.0.0.1:1"
    write_journal(record)
    out = Console(file=io.StringIO())
    with pytest.raises(UserError, match="password again"):
        sync(Path(record.directory), None, out, out)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ada:secret@127.0.0.1:1")
    text = io.StringIO()
    assert sync(Path(record.directory), None, out, Console(file=text, width=1000)) == 1
    assert "secret" not in text.getvalue() and "http://ada:***@127.0.0.1:1" in text.getvalue()


def test_files_of_others_stay_where_they_are(uri: str, tmp_path: Path) -> None:
    """A stranger's directory names files and links to them; what it holds itself is delivered."""
    record = search(tmp_path)
    record.trials.pop()
    write_journal(record, "finished")
    directory, secrets = Path(record.directory), tmp_path / "home"
    for name in (secrets / "credentials", directory / "own.txt", directory / "mine" / "in" / "a.txt"):
        name.parent.mkdir(parents=True, exist_ok=True)
        name.write_text(str(name))
    for link in ("report.html", "figures/loss.png", "mine/link.txt"):
        (directory / link).parent.mkdir(exist_ok=True)
        (directory / link).symlink_to(secrets / "credentials")
    (directory / "tables").symlink_to(secrets)
    os.mkfifo(directory / "trials.parquet")
    head = {"event": "search", "format": SPOOL_FORMAT, "uri": uri, "search_id": "abc123"}
    named = [secrets / "credentials", secrets, directory / ".." / "home" / "credentials", directory / "\x1b[2J", "/"]
    named += [directory / "own.txt", directory / "mine", directory, directory / "tables", "own.txt", "\0"]
    spooled = [{"event": "artifact", "path": str(path), "folder": "x"} for path in named]
    spooled += [{"event": "artifact"}, {"event": "artifact", "path": 5, "folder": None}]
    spool = directory / SPOOL
    for by_sync in (False, True):
        spool.write_text("".join(json.dumps(one) + "\n" for one in (head, *spooled)))
        said: list[str] = []
        if by_sync:
            text = io.StringIO()
            assert sync(directory, None, Console(file=text), Console(file=text, width=2000)) == 0
            said.append(text.getvalue())
        else:
            tracker = Tracker(uri, "moa", notify=said.append)
            tracker.start(record)
            while not tracker.delivered():
                time.sleep(0.02)
            tracker.finish(record, [directory / "report.html"])
            tracker.close()
            assert "report.html" in said[1]
        assert not spool.exists() and str(secrets / "credentials") in said[0] and "\x1b" not in said[0]
        ((parent,), _), found = runs(uri), list[str]()
        folders = [""]
        for folder in folders:
            for file in client(uri).list_artifacts(parent.info.run_id, folder or None):
                (folders if file.is_dir else found).append(file.path)
        assert set(found) == {"x/own.txt", "x/mine/in/a.txt"} and not any("run" in path for path in folders)


def test_credentials_go_to_no_address_that_a_directory_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    record = search(tmp_path)
    record.info["mlflow"] = NOBODY
    write_journal(record)
    directory, out = Path(record.directory), Console(file=io.StringIO())
    assert sync(directory, None, out, out) == 1  # nothing to show
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "secret")
    with pytest.raises(UserError, match=f"--mlflow {NOBODY}") as refused:
        sync(directory, None, out, out)
    assert "secret" not in str(refused.value)
    assert sync(directory, NOBODY, out, out) == 1
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOBODY + "/")
    assert sync(directory, None, out, out) == 1
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.delenv("MLFLOW_TRACKING_TOKEN")
    (tmp_path / ".mlflow").mkdir()
    (tmp_path / ".mlflow" / "credentials").write_text("[mlflow]\nmlflow_tracking_password = secret\n")
    with pytest.raises(UserError, match=f"--mlflow {NOBODY}"):
        sync(directory, None, out, out)


def test_a_search_that_is_driven_elsewhere_is_left_alone(uri: str, tmp_path: Path) -> None:
    from search.mirror import RunMirror

    record = search(tmp_path)
    record.info["storage_root"] = root = str(tmp_path / "storage" / "run")
    write_journal(record)
    directory, elsewhere = Path(record.directory), tmp_path / "elsewhere"
    out = Console(file=io.StringIO())
    (directory / "space.yaml").write_text("schema: petl.space/1\n")
    shutil.copytree(directory, elsewhere)
    mirror = RunMirror(root, elsewhere, "abc123", every=0.05, beat=0.05)
    mirror.start()
    with pytest.raises(UserError, match="is being searched by"):
        sync(directory, uri, out, out)
    assert mirror.close(20)
    before = (directory / "journal.jsonl").read_text()
    (directory / "journal.jsonl").write_text(before[: before.rstrip().rfind("\n") + 1])
    with pytest.raises(UserError, match="was continued elsewhere"):
        sync(directory, uri, out, out)
    assert runs(uri) == ([], {})
    (directory / "journal.jsonl").write_text(before)
    assert synced(record, uri) == "3 runs, 6 epochs delivered"
    shutil.rmtree(tmp_path / "storage")
    (tmp_path / "storage").write_text("a file")
    with pytest.raises(UserError, match="is not delivered"):
        sync(directory, uri, out, out)


def test_signs_that_end_no_line(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").write_text(
        '{"event": "search", "time": 1}\n{"event": "problem", "time": 2, "what": "a\u2028b\u0085c"}\n{"event": "trial"',
        encoding="utf-8",
    )
    assert sync_command._last_word(tmp_path) == ("FAILED", 2.0)


def test_a_spool_that_was_left_is_not_written_again(tmp_path: Path) -> None:
    head = {"event": "search", "format": SPOOL_FORMAT}
    for how, expected in (("leave", [7, 1]), ("drop", None)):
        backlog = Backlog(tmp_path / SPOOL)
        backlog.add([event(1)])
        backlog.keep(head)
        backlog.leave(head, [event(7)]) if how == "leave" else backlog.drop()
        backlog.keep(head)
        backlog.remove(backlog.events)
        backlog.keep(head)
        spool = tmp_path / SPOOL
        assert ([e["epoch"] for e in read_spool(spool)[1]] if spool.exists() else None) == expected


def event(n: int) -> dict[str, Any]:
    return {"event": "epoch", "trial": "t", "epoch": n}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 5), max_size=12), st.integers(1, 6), st.integers(0, 12), st.booleans())
def test_the_backlog_is_a_queue_however_small_its_memory(
    tmp_path: Path, batches: list[int], in_memory: int, kept_after: int, killed: bool
) -> None:
    """Added and removed in turn, partly on disk: everything once, in order, and no file without need."""
    path = tmp_path / SPOOL
    path.unlink(missing_ok=True)
    head = {"event": "search", "format": SPOOL_FORMAT}
    backlog, added, removed = Backlog(path, in_memory), 0, list[int]()
    for turn, count in enumerate(batches):
        backlog.add([event(n) for n in range(added, added + count)])
        added += count
        if turn == kept_after:
            backlog.keep(head)
        if turn % 3 == 2 and turn != kept_after:
            taken = backlog.events[:3]
            removed += [e["epoch"] for e in taken]
            backlog.remove(taken)
            assert bool(backlog) == (len(removed) < added)
        if backlog.kept:
            spooled = [e["epoch"] for e in read_spool(path)[1]]
            assert spooled[spooled.index(len(removed)) :] == list(range(len(removed), added)) if backlog else True
    if killed:
        return
    left = backlog.leave(head, [])
    assert left == added - len(removed) and path.exists() == (left > 0)
    assert removed + ([e["epoch"] for e in read_spool(path)[1]] if left else []) == list(range(added))


def test_a_torn_line_of_a_killed_driver_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / SPOOL
    lines = [json.dumps({"event": "search", "format": SPOOL_FORMAT}), json.dumps(event(1)), json.dumps(event(2))[:-9]]
    path.write_text("\n".join(lines))
    assert [e["epoch"] for e in read_spool(path)[1]] == [1]


def test_a_disk_that_is_full_leaves_no_half_line(tmp_path: Path) -> None:
    """In a process whose files may not grow beyond some bytes."""
    code = f"""
import resource, signal
from pathlib import Path
from search.mlflow_spool import Backlog, read_spool
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
head = {{"event": "search", "format": {SPOOL_FORMAT!r}}}
backlog = Backlog(Path({str(tmp_path / SPOOL)!r}), 2)
backlog.keep(head)
resource.setrlimit(resource.RLIMIT_FSIZE, (400, 400))
failed = 0
for n in range(20):
    try:
        backlog.add([{{"event": "epoch", "epoch": n}}])
    except OSError:
        failed += 1
resource.setrlimit(resource.RLIMIT_FSIZE, (400, 400))
print(failed, [e["epoch"] for e in backlog.events] == list(range(20)), len(read_spool(backlog.path)[1]))
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    failed, whole, spooled = done.stdout.split()
    assert (failed, whole) == ("1", "True") and 5 < int(spooled) < 20
