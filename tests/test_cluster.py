"""`cluster.yaml` against Ray's own schema, offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]


def _cluster() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


def test_it_is_what_ray_up_takes() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = _cluster()
    validate_config(prepare_config(config))


def test_the_head_trains_nothing_and_workers_come_and_go() -> None:
    types = _cluster()["available_node_types"]
    assert types["head"]["resources"]["CPU"] == 0
    workers = {name: node for name, node in types.items() if name != "head"}
    assert all(node["min_workers"] == 0 for node in workers.values())


def test_no_key_or_secret_is_in_it() -> None:
    text = (ROOT / "cluster.yaml").read_text().lower()
    assert not any(word in text for word in ("aws_secret", "aws_access_key", "password", "token="))
