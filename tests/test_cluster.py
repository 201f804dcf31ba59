"""`cluster.yaml` and `deploy/cluster-gcp.yaml` against Ray's own schema and autoscaler, offline."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy import autoscaler
from tests.deploy.command_lines import checked, statements

ROOT = Path(__file__).parents[1]
FILES = ["cluster.yaml", "deploy/cluster-gcp.yaml"]
_COMMANDS = [
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
]


def _cluster(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / name).read_text())


def _prepared(name: str) -> dict[str, Any]:
    from ray.autoscaler._private.util import prepare_config

    return prepare_config(_cluster(name))


def _start(name: str, role: str) -> str:
    (line,) = [line for line in _cluster(name)[f"{role}_start_ray_commands"] if "ray start" in line]
    return line


@pytest.mark.parametrize("name", FILES)
def test_it_is_what_ray_up_takes(name: str) -> None:
    from ray.autoscaler._private.util import validate_config

    validate_config(_prepared(name))


@pytest.mark.parametrize("name", FILES)
def test_a_misspelt_key_is_refused_by_that_schema(name: str) -> None:
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import validate_config

    config = _prepared(name)
    config["available_node_types"]["gpu_spot"]["max_worker"] = 8
    with pytest.raises(ValidationError, match="max_worker"):
        validate_config(config)


@pytest.mark.parametrize("name", FILES)
def test_the_head_trains_nothing_and_workers_have_gpus_and_come_and_go(name: str) -> None:
    cluster = _cluster(name)
    types = cluster["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 0}
    assert set(types) == {"head", "gpu_spot", "gpu_ondemand"}
    assert 0 < cluster["idle_timeout_minutes"] <= 10
    for kind in ("gpu_spot", "gpu_ondemand"):
        assert types[kind]["min_workers"] == 0 < types[kind]["max_workers"] <= cluster["max_workers"]
        assert types[kind]["resources"]["GPU"] >= 1
    # Another fit would count for more than the priority.
    assert types["gpu_spot"]["resources"] == types["gpu_ondemand"]["resources"]


def test_only_one_worker_type_is_spot_and_nodes_need_no_keys_on_aws() -> None:
    types = _cluster("cluster.yaml")["available_node_types"]
    markets = {
        name: node["node_config"].get("InstanceMarketOptions", {}).get("MarketType") for name, node in types.items()
    }
    assert markets == {"head": None, "gpu_spot": "spot", "gpu_ondemand": None}
    for name, node in types.items():
        config = node["node_config"]
        assert config["IamInstanceProfile"] == {"Name": "petl-search-head" if name == "head" else "petl-search-worker"}
        assert config["MetadataOptions"]["HttpTokens"] == "required"
        # Without one Ray makes a group that lets the world in by SSH, without an image it takes Ubuntu 18.04.
        assert config["SecurityGroupIds"] == ["SECURITY_GROUP"] and "ubuntu" in config["ImageId"]
        assert config["BlockDeviceMappings"][0]["Ebs"]["Encrypted"] is True


def test_every_field_of_a_node_is_one_that_ec2_takes() -> None:
    """Against the service model that boto3 sends by: the names, their nesting and their types."""
    import boto3
    from botocore.validate import ParamValidator

    client = boto3.client("ec2", region_name="eu-west-1", aws_access_key_id="x", aws_secret_access_key="x")
    shape = client.meta.service_model.operation_model("RunInstances").input_shape
    for node in _cluster("cluster.yaml")["available_node_types"].values():
        report = ParamValidator().validate({**node["node_config"], "MinCount": 1, "MaxCount": 1}, shape)
        assert not report.has_errors(), report.generate_report()


def test_only_one_worker_type_is_spot_and_nodes_need_no_keys_on_google_cloud() -> None:
    types = _cluster("deploy/cluster-gcp.yaml")["available_node_types"]
    for name, node in types.items():
        config = node["node_config"]
        (account,) = config["serviceAccounts"]
        assert account["email"].startswith("petl-search-head@" if name == "head" else "petl-search-worker@")
        assert config["networkInterfaces"][0]["subnetwork"].endswith("/petl-search")  # not the default network
        if name != "head":
            assert config["scheduling"]["onHostMaintenance"] == "TERMINATE"  # machines with GPUs cannot move
            assert config["guestAccelerators"][0]["acceleratorCount"] == node["resources"]["GPU"]
    models = {name: node["node_config"].get("scheduling", {}).get("provisioningModel") for name, node in types.items()}
    assert models == {"head": None, "gpu_spot": "SPOT", "gpu_ondemand": "STANDARD"}


@pytest.mark.parametrize("name", FILES)
def test_tokens_are_asked_for_everywhere_and_come_from_a_file(name: str) -> None:
    cluster = _cluster(name)
    place = "/home/ubuntu/.petl/ray-token"
    assert cluster["file_mounts"][place] == "~/.petl/ray-token"
    assert any("chmod 600 ~/.petl/ray-token" in line for line in cluster["setup_commands"])
    for role in ("head", "worker"):
        assert f"RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH={place} " in _start(name, role)


@pytest.mark.parametrize("name", FILES)
def test_dashboard_and_mlflow_listen_to_the_machine_itself_only(name: str) -> None:
    assert "--dashboard-host=127.0.0.1" in _start(name, "head")
    text = (ROOT / name).read_text()
    assert "0.0.0.0" not in text and "IpPermissions" not in text and "allowed-hosts" not in text
    (tracking,) = [
        words for line in _cluster(name)["head_setup_commands"] for words in statements(line) if "server" in words
    ]
    assert tracking[tracking.index("--host") + 1] == "127.0.0.1"


@pytest.mark.parametrize("name", [*FILES, "deploy/rayjob.yaml", "Dockerfile", "docs/cluster.md"])
def test_no_key_or_secret_is_in_it(name: str) -> None:
    text = (ROOT / name).read_text()
    assert not re.search(r"aws_secret|aws_access_key|password|RAY_AUTH_TOKEN\s*[=:]|private_key", text, re.IGNORECASE)
    assert not re.search(r"\b[0-9a-f]{32,}\b|AKIA[0-9A-Z]{16}|BEGIN [A-Z ]*KEY", text)


@pytest.mark.parametrize("name", FILES)
def test_every_command_in_it_exists(name: str) -> None:
    cluster = _cluster(name)
    found = [command for key in _COMMANDS for line in cluster[key] for command in checked(line)]
    assert found == ["fetch_data.py", "mlflow server", "ray stop", "ray start", "ray stop", "ray start"]
    assert any("uv sync --inexact --no-dev" in line for line in cluster["setup_commands"])


@pytest.mark.parametrize("name", FILES)
def test_what_is_private_or_large_is_not_copied_to_the_nodes(name: str) -> None:
    assert {".git", ".venv", "runs", "mlflow.db*", "uv.lock"} <= set(_cluster(name)["rsync_exclude"])


@pytest.mark.parametrize("name", FILES)
def test_waiting_trials_start_spot_machines_and_others_only_beyond_their_number(name: str) -> None:
    config = _prepared(name)
    assert autoscaler.launches(config, 0) == {}
    assert autoscaler.launches(config, 3) == {"gpu_spot": 3}
    assert autoscaler.launches(config, 50) == {"gpu_spot": 8}  # as many as max_workers allows in all
    config["available_node_types"]["gpu_spot"]["max_workers"] = 6
    assert autoscaler.launches(config, 50) == {"gpu_spot": 6, "gpu_ondemand": 2}


def test_what_the_documentation_says_about_missing_spot_capacity_is_what_ray_does() -> None:
    """A refused launch teaches Ray nothing, a machine that never joins does; the priority can be turned around."""
    config = _prepared("cluster.yaml")
    assert autoscaler.launches(config, 1, autoscaler.failed("gpu_spot", timed_out=False)) == {"gpu_spot": 1}
    assert autoscaler.launches(config, 1, autoscaler.failed("gpu_spot", timed_out=True)) == {"gpu_ondemand": 1}
    turned = copy.deepcopy(config)
    turned["available_node_types"]["gpu_ondemand"]["priority"] = 20
    assert autoscaler.launches(turned, 1) == {"gpu_ondemand": 1}


@pytest.mark.parametrize("role", ["head", "worker"])
def test_a_role_may_use_the_bucket_and_only_the_head_starts_machines(role: str) -> None:
    policy = json.loads((ROOT / f"deploy/aws-{role}-policy.json").read_text())
    actions = {action for rule in policy["Statement"] for action in rule["Action"]}
    assert {"s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:ListBucket"} <= actions
    assert ("ec2:RunInstances" in actions) == ("iam:PassRole" in actions) == (role == "head")
    assert not any(action.endswith("*") for action in actions)
    for rule in policy["Statement"]:
        if rule["Action"][0].startswith("s3:"):
            assert rule["Resource"].startswith("arn:aws:s3:::BUCKET")
        if "ec2:TerminateInstances" in rule["Action"]:  # its own machines only
            tags = rule["Condition"]["StringEquals"]
            assert tags == {"aws:ResourceTag/ray-cluster-name": _cluster("cluster.yaml")["cluster_name"]}
