"""Features on a cluster: every node computes them for itself, and once."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.records import Status
from tests.faults.cluster import Machine, MiniCluster, Node
from tests.faults.searches import begin, sound, training
from trainables.data.cache_index import INDEX

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def _caches(node: Node) -> dict[Path, tuple[int, int]]:
    """Finished caches of a node, with what changes when one is written again."""
    found = (node.folder / "cache" / "features").glob(f"*/{INDEX}")
    return {index: (index.stat().st_ino, index.stat().st_mtime_ns) for index in found}


def test_every_node_builds_its_own_cache_once(tmp_path: Path, tiny_ast: Path, tones: Path) -> None:
    """Two trials side by side on one node, one on another; then others after them."""
    with MiniCluster([Machine(2), Machine(1)]) as cluster:
        driver = begin(cluster, tmp_path, tiny_ast, tones, epochs=100, trials=6)
        driver.wait_until(lambda r: len(training(r)) == 3)
        nodes = [cluster.nodes["n1"], cluster.nodes["n2"]]
        built = [_caches(node) for node in nodes]
        assert [len(found) for found in built] == [1, 1], built
        driver.wait_until(lambda r: sum(t.status is Status.COMPLETE for t in r.trials) >= 5)
        assert [_caches(node) for node in nodes] == built, "nothing is computed a second time"
        sound(driver, f"sqlite:///{tmp_path / 'mlflow.db'}", trials=6)
