"""The tracker against a real `mlflow server`: many writers, a server that hangs, dies, comes back, or is none."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from petl.errors import UserError
from search.records import EpochRecord, SearchRecord, TrialRecord
from search.tracking import SPOOL, Tracker, check
from tests.search.mlflow_servers import Forwarder, Proxy, Server, free_port
from tests.search.test_tracking import DATA, TAGS, client, end, make_record, make_trial, synced, train, write_journal


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the whole file: starting one takes ten seconds."""
    one = Server(tmp_path_factory.mktemp("mlflow"), free_port())
    one.start()
    try:
        one.wait()
        yield one
    finally:
        with contextlib.suppress(ProcessLookupError):
            one.signal(signal.SIGCONT)
        one.end()


@pytest.fixture
def record(tmp_path: Path) -> SearchRecord:
    """A search of its own in the common server."""
    made = make_record(tmp_path)
    made.info["search_id"] = f"search-{tmp_path.name}"
    return made


def wait_for(what: Callable[[], Any], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def found(uri: str, record: SearchRecord) -> tuple[Any, dict[str, Any]]:
    """Parent and children of a search; there is one parent, and one child per trial."""
    c = client(uri)
    ids = [e.experiment_id for e in c.search_experiments()]
    mine = c.search_runs(ids, f"tags.`petl.search_id` = '{record.info['search_id']}'", max_results=5000)
    (parent,) = [r for r in mine if r.data.tags["petl.kind"] == "search"]
    children = [r for r in mine if r.data.tags["petl.kind"] == "trial"]
    by_id = {r.data.tags["petl.trial_id"]: r for r in children}
    assert len(by_id) == len(children), "a trial has two runs"
    return parent, by_id


def same_as(uri: str, record: SearchRecord) -> Any:
    """Compare MLflow's trials with the record, value by value; returns the parent."""
    parent, children = found(uri, record)
    assert set(children) == {trial.id for trial in record.trials}
    for trial in record.trials:
        run = children[trial.id]
        for name in trial.epochs[0].metrics:
            logged = client(uri).get_metric_history(run.info.run_id, name)
            assert [(m.step, m.value) for m in logged] == [(e.epoch, e.metrics[name]) for e in trial.epochs], trial.id
        assert run.info.status == "FINISHED" and run.data.tags["status"] == "complete"
    return parent


@pytest.mark.slow
def test_sixteen_threads_and_two_searches_at_once(running: Server, tmp_path: Path) -> None:
    def search(number: int, threads: int, epochs: int) -> SearchRecord:
        (tmp_path / str(number)).mkdir()
        record = make_record(tmp_path / str(number))
        record.info["search_id"] = f"at-once-{number}"
        trials = [make_trial(record) for _ in range(threads)]
        tracker = Tracker(running.address, "at-once", longest=200.0)
        tracker.start(record, TAGS, {"epochs": epochs}, DATA)

        def run(trial: TrialRecord) -> None:
            draw = random.Random(trial.number)
            tracker.trial_started(trial)
            for n in range(1, epochs + 1):
                metrics = {"train/loss": draw.random(), "val/accuracy": draw.random()}
                trial.epochs.append(EpochRecord(n, metrics, draw.random()))
                tracker.epoch(trial, trial.epochs[-1])
                time.sleep(0.01)
            end(tracker, trial)

        workers = [threading.Thread(target=run, args=(trial,)) for trial in trials]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        (tmp_path / str(number) / "report.html").write_text(f"report {number}")
        tracker.finish(record, [tmp_path / str(number) / "report.html"])
        tracker.close()
        return record

    records: dict[int, SearchRecord] = {}
    both = [
        threading.Thread(target=lambda n=n, t=t: records.update({n: search(n, t, 27)})) for n, t in ((0, 16), (1, 4))
    ]
    for one in both:
        one.start()
    for one in both:
        one.join()
    for number, record in records.items():
        parent = same_as(running.address, record)
        assert parent.info.status == "FINISHED" and parent.info.artifact_uri.startswith("mlflow-artifacts:")
        got = client(running.address).download_artifacts(parent.info.run_id, "report.html", str(tmp_path))
        assert Path(got).read_text() == f"report {number}"
        assert not (Path(record.directory) / SPOOL).exists()


@pytest.mark.slow
def test_a_request_looks_for_no_packages_that_are_not_there(
    running: Server, record: SearchRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []

    class Spy:
        @staticmethod
        def find_spec(name: str, path: Any = None, target: Any = None) -> None:
            looked.append(name)

    with Tracker(running.address, "no-packages", longest=200.0) as tracker:
        tracker.start(record)
        train(tracker, make_trial(record), 2)  # what is loaded once is loaded now
        wait_for(tracker.delivered)
        monkeypatch.setattr(sys, "meta_path", [Spy, *sys.meta_path])
        train(tracker, make_trial(record), 2)
        wait_for(tracker.delivered)
        monkeypatch.undo()
    assert not {"dbruntime", "pyspark", "IPython"} & set(looked)


@pytest.mark.slow
def test_a_slow_server_is_not_waited_for(running: Server, record: SearchRecord) -> None:
    slow = Forwarder(running.port)
    try:
        tracker = Tracker(slow.address, "slow", longest=200.0)
        tracker.start(record)
        slow.set(10.0)
        costs: list[float] = []
        for _ in range(8):
            trial = make_trial(record)
            for _ in range(25):
                n = len(trial.epochs) + 1
                trial.epochs.append(EpochRecord(n, {"val/accuracy": n / 100}, 1.0))
                began = time.perf_counter()
                tracker.epoch(trial, trial.epochs[-1])
                costs.append(time.perf_counter() - began)
            end(tracker, trial)
        time.sleep(1.0)
        assert not tracker.delivered() and statistics.median(costs) < 1e-3 and max(costs) < 5
        before = slow.requests
        slow.set(0.0)
        tracker.finish(record)
        tracker.close()
        same_as(running.address, record)
        assert slow.requests - before < 8 * 25  # an epoch does not cost a request
    finally:
        slow.close()


@pytest.mark.slow
def test_a_server_that_hangs_gets_everything_once(
    running: Server, record: SearchRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")  # requests are given up, and carried out all the same
    said: list[str] = []
    tracker = Tracker(running.address, "hung", longest=200.0, notify=said.append)
    tracker.start(record, TAGS, {}, DATA)
    first, second = make_trial(record), make_trial(record)
    tracker.trial_started(first)
    train(tracker, first, 2)
    wait_for(tracker.delivered)
    running.signal(signal.SIGSTOP)
    try:
        train(tracker, first, 2)
        tracker.trial_started(second)
        train(tracker, second, 3)
        spool = Path(record.directory) / SPOOL
        wait_for(spool.exists)
        train(tracker, first, 1)
        wait_for(lambda: len(spool.read_text().splitlines()) == 1 + 7)
    finally:
        running.signal(signal.SIGCONT)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    for trial in (first, second):
        train(tracker, trial, 2)
        end(tracker, trial)
    tracker.finish(record)
    tracker.close()
    assert "does not answer" in said[0] and "answers again" in said[-1]
    assert same_as(running.address, record).info.status == "FINISHED"
    assert not spool.exists()


def test_credentials(
    running: Server, record: SearchRecord, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Wrong ones are refused at once; right ones come from the environment or the address, and are never shown."""
    proxy = Proxy(running.port, login="ada:pass-12-word-xyz")
    try:
        for name, password in (("", ""), ("ada", "wrong")):
            monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", name)
            monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
            with pytest.raises(UserError, match="MLFLOW_TRACKING_PASSWORD") as caught:
                check(proxy.address)
            assert type(caught.value) is UserError
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "pass-12-word-xyz")
        assert "experiments" in check(proxy.address)
        monkeypatch.delenv("MLFLOW_TRACKING_USERNAME")
        monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD")
        said: list[str] = []
        tracker = Tracker(proxy.address.replace("//", "//ada:pass-12-word-xyz@"), "users", notify=said.append)
        assert tracker.start(record)
        trial = make_trial(record)
        tracker.trial_started(trial)
        train(tracker, trial, 1)
        wait_for(tracker.delivered)
    finally:
        proxy.close()
    end(tracker, trial)
    tracker.interrupted()
    tracker.close()
    kept = (Path(record.directory) / SPOOL).read_text() + "".join(said) + "".join(capfd.readouterr())
    assert "pass-12-word-xyz" not in kept and "ada:***@" in kept
    assert found(running.address, record)[1]["t0000"].info.status == "RUNNING"
    write_journal(record)
    assert synced(record, running.address) == "1 run, 0 epochs delivered"
    parent, children = found(running.address, record)
    assert (parent.info.status, children["t0000"].info.status) == ("KILLED", "FINISHED")


def test_a_name_that_the_server_does_not_know(running: Server) -> None:
    proxy = Proxy(running.port, host="mlflow.example.org")
    try:
        with pytest.raises(UserError, match="--allowed-hosts") as caught:
            check(proxy.address)
        assert type(caught.value) is UserError
    finally:
        proxy.close()


def test_not_mlflow_is_refused_at_once(running: Server, tmp_path: Path) -> None:
    port = free_port()
    other = subprocess.Popen(
        [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(tmp_path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: not isinstance(_attempt(port), OSError))
        for address in (f"http://127.0.0.1:{port}", f"{running.address}/ajax-api", f"{running.address}/health#"):
            began = time.monotonic()
            with pytest.raises(UserError, match="no MLflow server") as caught:
                check(address)
            assert time.monotonic() - began < 20 and type(caught.value) is UserError
        with pytest.raises(UserError, match="no MLflow server"):
            Tracker(f"http://127.0.0.1:{port}").start(make_record(tmp_path))
        assert list((tmp_path / "run").iterdir()) == []
    finally:
        other.kill()
        other.wait(10)


def _attempt(port: int) -> OSError | None:
    import socket

    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError as error:
        return error
    return None


@pytest.mark.slow
def test_the_documented_commands_have_options_that_exist() -> None:
    from mlflow.cli import server as command

    text = (Path(__file__).parents[2] / "docs" / "mlflow.md").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if "mlflow server --" in " ".join(line.split())]
    known = {option for parameter in command.params for option in parameter.opts}
    asked = {word for line in lines for word in line.partition("mlflow server")[2].split() if word.startswith("--")}
    assert len(lines) == 2 and "--artifacts-destination" in asked and asked <= known
    assert all("--host 127.0.0.1" in line for line in lines)


@pytest.mark.slow
def test_a_server_that_dies_and_comes_back(running: Server, record: SearchRecord, tmp_path: Path) -> None:
    """Last of the file: it ends the common server and starts it again on the same port and database."""
    said: list[str] = []
    tracker = Tracker(running.address, "moa", longest=200.0, notify=said.append)
    tracker.start(record, TAGS, {"epochs": 27}, DATA)
    first, second = make_trial(record), make_trial(record)
    tracker.trial_started(first)
    train(tracker, first, 3)
    wait_for(tracker.delivered)
    running.end()
    train(tracker, first, 2)
    tracker.trial_started(second)
    train(tracker, second, 2)
    wait_for(lambda: said)
    (tmp_path / "late").mkdir()
    other = make_record(tmp_path / "late")
    other.info["search_id"] = "down-at-start"
    late = Tracker(running.address, "moa", longest=200.0)
    assert late.start(other) == ""
    third = make_trial(other)
    late.trial_started(third)
    running.start()
    train(late, third, 2)
    running.wait()
    for tracked, searched in ((tracker, record), (late, other)):
        for trial in searched.trials:
            train(tracked, trial, 1)
            end(tracked, trial)
        tracked.finish(searched)
        tracked.close()
        assert same_as(running.address, searched).info.status == "FINISHED"
        assert not (Path(searched.directory) / SPOOL).exists()
        write_journal(searched, "finished")
        assert synced(searched, running.address) == "nothing to do"
    assert found(running.address, record)[0].data.params == {"epochs": "27"}
    assert "does not answer" in said[0] and "answers again" in said[-1]


def _postgres() -> Path | None:
    """The folder of PostgreSQL's programs."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    on_path = shutil.which("initdb")
    return next((p for p in places if (p / "initdb").exists()), Path(on_path).parent if on_path else None)


@pytest.mark.slow
def test_postgresql_behind_a_server(tmp_path_factory: pytest.TempPathFactory, record: SearchRecord) -> None:
    import tempfile

    programs = _postgres()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    as_user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.geteuid() == 0 else []
    if as_user and shutil.which("setpriv") is None:
        pytest.skip("PostgreSQL does not run as root, and there is no setpriv to be another user")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="pg") as name:
        folder = Path(name)
        if as_user:
            shutil.chown(folder, "nobody", "nogroup")
        data = folder / "data"
        env = {**os.environ, "LC_ALL": "C", "HOME": name}
        made = [*as_user, str(programs / "initdb"), "-D", str(data), "-U", "mlflow", "--auth=trust", "-E", "UTF8"]
        subprocess.run(made, check=True, capture_output=True, cwd=folder, env=env)
        options = ["-c", f"unix_socket_directories={folder}", "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
        command = [*as_user, str(programs / "postgres"), "-D", str(data), "-p", str(port), *options]
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        database = subprocess.Popen(command, cwd=folder, env=env, start_new_session=True, **quiet)
        one = None
        try:
            wait_for(lambda: _attempt(port) is None)
            uri = f"postgresql+psycopg2://mlflow@127.0.0.1:{port}/postgres"
            wrong = uri.replace("/postgres", "/none")
            wait_for(lambda: "experiments" in check(uri, deadline=60.0))
            with pytest.raises(UserError, match="does not exist") as caught:
                check(wrong)
            assert type(caught.value) is UserError
            one = Server(tmp_path_factory.mktemp("pg"), free_port(), backend=uri)
            one.start()
            one.wait()
            said: list[str] = []
            tracker = Tracker(one.address, "pg", longest=200.0, notify=said.append)
            tracker.start(record, TAGS, {"epochs": 27}, DATA)
            trials = [make_trial(record) for _ in range(16)]
            for trial in trials:
                tracker.trial_started(trial)
                train(tracker, trial, 5)
            wait_for(tracker.delivered)
            database.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown
            database.wait(30)
            for trial in trials:
                train(tracker, trial, 2)
            wait_for(lambda: said, 60.0)
            database = subprocess.Popen(
                command,
                cwd=folder,
                env=env,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            wait_for(lambda: _attempt(port) is None)
            for trial in trials:
                end(tracker, trial)
            tracker.finish(record)
            tracker.close()
            assert same_as(one.address, record).info.status == "FINISHED"
            # The same search straight into the database, which goes away.
            assert "experiments" in check(uri)
            database.send_signal(signal.SIGINT)
            database.wait(30)
            assert "does not answer now" in check(uri)
        finally:
            if one is not None:
                one.end()
            if database.poll() is None:
                database.send_signal(signal.SIGINT)
                database.wait(30)
