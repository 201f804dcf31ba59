"""Every command that `docs/cluster.md` tells people to type: the programs here know it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.deploy.command_lines import checked, fenced, statements

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def text() -> str:
    return (ROOT / "docs/cluster.md").read_text()


def test_every_command_of_ours_and_of_ray_exists(text: str) -> None:
    found = {name for block in fenced(text) for name in checked(block)}
    assert {
        "ray up",
        "ray down",
        "ray exec",
        "ray status",
        "ray monitor",
        "ray job submit",
        "ray job logs",
        "ray job stop",
        "ray rsync-down",
        "start_or_resume.py",
        "launch.py",
        "petl-search report",
    } <= found


@pytest.mark.parametrize(
    "wrong", ["ray up --min-worker 3 cluster.yaml", "ray jobs submit -- x", "uv run launch.py --spaces a.yaml"]
)
def test_a_command_that_does_not_exist_is_found(wrong: str) -> None:
    with pytest.raises(Exception, match=r"(?i)no such option|no sub-command"):
        checked(f"cd x && A=1 {wrong}")


def test_every_aws_command_has_parameters_that_the_service_has(text: str) -> None:
    import boto3
    from botocore import xform_name

    seen = 0
    for block in fenced(text):
        for words in statements(block):
            if words[0] != "aws" or words[1] == "s3":
                continue
            service = {"s3api": "s3"}.get(words[1], words[1])
            client = boto3.client(service, region_name="eu-west-1", aws_access_key_id="x", aws_secret_access_key="x")
            operation = client.meta.method_to_api_mapping[words[2].replace("-", "_")]
            shape = client.meta.service_model.operation_model(operation).input_shape
            known = {xform_name(name, "-") for name in shape.members} | {"query", "output", "region"}
            # Short forms that the command line itself adds for the permissions of security groups.
            known |= {"protocol", "port", "cidr", "source-group"} if "ingress" in words[2] else set()
            given = {word.removeprefix("--") for word in words if word.startswith("--")}
            assert given <= known, (words, given - known)
            seen += 1
    assert seen >= 5


def test_files_and_places_it_names_are_there(text: str) -> None:
    for name in set(re.findall(r"\b(?:deploy|spaces|search|benchmarks)/[\w./-]+\.(?:yaml|py|md)\b", text)):
        assert (ROOT / name).exists(), name
    for capital in ("BUCKET", "SECURITY_GROUP", "PROJECT", "IMAGE"):
        files = [ROOT / "cluster.yaml", ROOT / "deploy/cluster-gcp.yaml", ROOT / "deploy/rayjob.yaml"]
        assert any(capital in file.read_text() for file in files) and capital in text
