"""`cluster.yaml` through Ray's own AWS provider, against a simulated EC2: what it would start, and with what rights."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
REGION = "eu-west-1"


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An account with the roles and the security group of docs/cluster.md; yields the group."""
    from moto.server import ThreadedMotoServer
    from ray.autoscaler._private.aws import utils

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "HOME": str(tmp_path),  # Ray keeps the key pair it makes in ~/.ssh
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": REGION,
    }.items():
        monkeypatch.setenv(name, value)
    utils.resource_cache.cache_clear()
    utils.client_cache.cache_clear()
    try:
        yield _prepare()
    finally:
        server.stop()
        utils.resource_cache.cache_clear()
        utils.client_cache.cache_clear()


def _prepare() -> str:
    import boto3

    iam, ec2 = boto3.client("iam"), boto3.client("ec2")
    for role in ("head", "worker"):
        name, policy = f"petl-search-{role}", (ROOT / f"deploy/aws-{role}-policy.json").read_text()
        trust = (ROOT / "deploy/aws-trust.json").read_text()
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust)
        iam.put_role_policy(RoleName=name, PolicyName="petl-search", PolicyDocument=policy.replace("BUCKET", "b"))
        iam.create_instance_profile(InstanceProfileName=name)
        iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
    (vpc,) = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    made = ec2.create_security_group(GroupName="petl-search", Description="petl-search", VpcId=vpc["VpcId"])
    return str(made["GroupId"])


@pytest.mark.slow
def test_ray_starts_each_type_as_meant_and_makes_no_group_or_role_of_its_own(account: str) -> None:
    import boto3
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
    from ray.autoscaler._private.util import prepare_config

    text = (ROOT / "cluster.yaml").read_text().replace("SECURITY_GROUP", account).replace("BUCKET", "b")
    config = AWSNodeProvider.fillout_available_node_types_resources(prepare_config(yaml.safe_load(text)))
    config = AWSNodeProvider.bootstrap_config(config)
    types = config["available_node_types"]
    assert types["head"]["resources"]["CPU"] == 0
    for kind in ("gpu_spot", "gpu_ondemand"):  # what we say of the machine is what EC2 says of it
        assert (types[kind]["resources"]["CPU"], types[kind]["resources"]["GPU"]) == (8, 1)

    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    for kind, node in types.items():
        tags = {"ray-user-node-type": kind, "ray-node-type": "worker", "ray-node-name": kind}
        tags |= {"ray-node-status": "uninitialized", "ray-launch-config": "x"}
        provider.create_node(copy.deepcopy(node["node_config"]), tags, 1)
    ec2 = boto3.client("ec2")
    found: dict[str, dict[str, Any]] = {}
    for reservation in ec2.describe_instances()["Reservations"]:
        for instance in reservation["Instances"]:
            found[{tag["Key"]: tag["Value"] for tag in instance["Tags"]}["ray-user-node-type"]] = instance
    assert set(found) == {"head", "gpu_spot", "gpu_ondemand"}
    for kind, instance in found.items():
        role = "head" if kind == "head" else "worker"
        assert instance["IamInstanceProfile"]["Arn"].endswith(f"instance-profile/petl-search-{role}")
        assert [group["GroupId"] for group in instance["SecurityGroups"]] == [account]
        assert (instance.get("InstanceLifecycle") == "spot") == (kind == "gpu_spot")
    names = {group["GroupName"] for group in ec2.describe_security_groups()["SecurityGroups"]}
    assert names == {"default", "petl-search"}
    assert {role["RoleName"] for role in boto3.client("iam").list_roles()["Roles"]} == {
        "petl-search-head",
        "petl-search-worker",
    }
