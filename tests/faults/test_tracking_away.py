"""A tracking server that is down when a search begins, while it runs, and when it ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.records import Status
from tests.faults.audit import audit
from tests.faults.searches import LONG, Driver, kinds, write_space
from tests.search.mlflow_servers import Server, free_port
from tests.search.running import petl_search, processes_of, run, workplace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_a_search_needs_no_tracking_server_to_be_there(tmp_path: Path, tiny_ast: Path, tones: Path) -> None:
    server = Server(tmp_path, free_port())
    space = write_space(tmp_path, tiny_ast, tones, epochs=LONG, trials=3)
    with workplace(tmp_path) as environment:
        driver = Driver(
            ["--space", space, "--output", "out", "--mlflow", server.address], tmp_path, environment, tmp_path / "out"
        )
        try:
            driver.wait_until(lambda r: len(r.trials) == 2 and all(len(t.epochs) > 2 for t in r.trials))
            server.start()
            server.wait()
            driver.wait_until(lambda r: sum(t.status is Status.COMPLETE for t in r.trials) >= 1)
            server.end()
            status, said = driver.ended()
            assert status == 0, said
            assert "does not answer; the search goes on" in " ".join(said.split()), said
            assert "petl-search sync" in said, said
            record = driver.record()
            assert record is not None and [t.status for t in record.trials] == [Status.COMPLETE] * 3
            assert kinds(record) == [], "no trial heard of it"
            server.start()
            server.wait()
            synced = run(petl_search("sync", "out"), tmp_path, environment)
            assert synced.returncode == 0, synced.stdout + synced.stderr
            assert audit(tmp_path / "out", server.address) == []
            again = run(petl_search("sync", "out"), tmp_path, environment)
            assert again.returncode == 0 and "has everything" in again.stdout, again.stdout + again.stderr
        finally:
            server.end()
        assert processes_of(environment["RAY_TMPDIR"]) == []
