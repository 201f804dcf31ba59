"""`deploy/rayjob.yaml` against the Kubernetes schemas and KubeRay's fields, offline."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from pydantic import ValidationError

from tests.deploy import autoscaler
from tests.deploy.command_lines import checked
from tests.deploy.kuberay import RayJob

ROOT = Path(__file__).parents[2]
KUBERNETES = "1.37.0"
PART = {"app.kubernetes.io/part-of": "petl-search"}


@pytest.fixture(scope="module")
def objects() -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for one in yaml.safe_load_all((ROOT / "deploy/rayjob.yaml").read_text()):
        found.setdefault(one["kind"], []).append(one)
    return found


@pytest.fixture
def job(objects: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    (one,) = copy.deepcopy(objects["RayJob"])
    return one


def _templates(job: dict[str, Any]) -> dict[str, dict[str, Any]]:
    cluster = job["spec"]["rayClusterSpec"]
    groups = {group["groupName"]: group["template"] for group in cluster["workerGroupSpecs"]}
    return {
        "submitter": job["spec"]["submitterPodTemplate"],
        "head": cluster["headGroupSpec"]["template"],
        **groups,
    }


def _pod(template: dict[str, Any]) -> dict[str, Any]:
    return {**template, "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod", **template["metadata"]}}


def _autoscaler_config(job: dict[str, Any]) -> dict[str, Any]:
    """The configuration that Ray derives inside the cluster, by Ray's own code."""
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    metadata = {"name": "petl-search", "namespace": "default"}
    return _derive_autoscaling_config_from_ray_cr({"metadata": metadata, "spec": job["spec"]["rayClusterSpec"]})


def test_the_objects_beside_the_job_are_what_kubernetes_takes(objects: dict[str, list[dict[str, Any]]]) -> None:
    assert {kind: len(of_kind) for kind, of_kind in objects.items()} == {
        "ServiceAccount": 2,
        "NetworkPolicy": 1,
        "RayJob": 1,
    }
    for one in [*objects["ServiceAccount"], *objects["NetworkPolicy"]]:
        kubernetes_validate.validate(one, KUBERNETES, strict=True)


def test_its_pods_are_what_kubernetes_takes(job: dict[str, Any]) -> None:
    for template in _templates(job).values():
        kubernetes_validate.validate(_pod(template), KUBERNETES, strict=True)
    (_, *_, last) = _templates(job).values()
    last["spec"]["containers"][0]["volumeMount"] = []
    with pytest.raises(kubernetes_validate.ValidationError, match="volumeMount"):
        kubernetes_validate.validate(_pod(last), KUBERNETES, strict=True)


def test_its_own_fields_are_what_kuberay_documents(job: dict[str, Any]) -> None:
    """The field list is ours, from KubeRay's reference (see `tests.deploy.kuberay`): no package ships the CRD."""
    RayJob.model_validate(job)
    for place, key in (
        (job["spec"], "activeDeadlineSecond"),
        (job["spec"]["rayClusterSpec"], "authOption"),
        (job["spec"]["rayClusterSpec"]["autoscalerOptions"], "idleTimeoutSecond"),
        (job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0], "maxReplica"),
    ):
        place[key] = 1
        with pytest.raises(ValidationError, match=key):
            RayJob.model_validate(job)
        del place[key]


def test_it_ends_by_itself_tries_again_and_asks_for_tokens(job: dict[str, Any]) -> None:
    import ray

    spec = job["spec"]
    cluster = spec["rayClusterSpec"]
    assert spec["activeDeadlineSeconds"] > 0 and spec["backoffLimit"] > 0
    assert spec["shutdownAfterJobFinishes"] is True and spec["ttlSecondsAfterFinished"] > 0
    assert cluster["rayVersion"] == ray.__version__
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["enableInTreeAutoscaling"] is True and cluster["autoscalerOptions"]["version"] == "v2"


def test_what_it_runs_begins_or_goes_on_and_exists(job: dict[str, Any]) -> None:
    assert checked(job["spec"]["entrypoint"]) == ["start_or_resume.py", "launch.py"]
    assert "--address auto" in job["spec"]["entrypoint"]
    assert "&&" not in job["spec"]["entrypoint"]  # a shell of the submitter's would take it for its own
    for name, template in _templates(job).items():
        fetches = [checked(" ".join(each["command"])) for each in template["spec"].get("initContainers", [])]
        assert fetches == ([] if name == "submitter" else [["fetch_data.py"]]), name


def test_the_workers_it_asks_for_fill_a_pod_each(job: dict[str, Any]) -> None:
    """The driver cannot see what the autoscaler may start; a larger worker would wait for ever."""
    words = job["spec"]["entrypoint"].split()
    cpus, gpus = (int(words[words.index(f"--{kind}-per-worker") + 1]) for kind in ("cpus", "gpus"))
    for group in ("gpu-spot", "gpu-ondemand"):
        limits = _templates(job)[group]["spec"]["containers"][0]["resources"]["limits"]
        assert (limits["cpu"], limits["nvidia.com/gpu"]) == (str(cpus), str(gpus))
    config = _autoscaler_config(job)
    assert autoscaler.launches(config, 3, cpus=cpus) == {"gpu-spot": 3}
    assert autoscaler.launches(config, 3, cpus=cpus + 1) == {}


def test_no_pod_runs_as_root_and_every_container_is_limited(job: dict[str, Any]) -> None:
    for name, template in _templates(job).items():
        pod = template["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] == 1000, name
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False, name
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}, name
            assert {"cpu", "memory"} <= set(container["resources"]["limits"]), name
        if name != "submitter":
            assert {"name": "shared-memory", "mountPath": "/dev/shm"} in pod["containers"][0]["volumeMounts"]
            assert pod["restartPolicy"] == "Never"
        if name not in ("submitter", "head"):
            assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
            assert pod["serviceAccountName"] == "petl-search-worker"


def test_only_its_own_pods_and_the_operator_reach_a_port(
    objects: dict[str, list[dict[str, Any]]], job: dict[str, Any]
) -> None:
    (policy,) = objects["NetworkPolicy"]
    assert policy["spec"]["podSelector"]["matchLabels"] == PART and policy["spec"]["policyTypes"] == ["Ingress"]
    (rule,) = policy["spec"]["ingress"]
    own, operator = rule["from"]
    assert own == {"podSelector": {"matchLabels": PART}}
    assert operator["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "kuberay-operator"}
    assert all(PART.items() <= template["metadata"]["labels"].items() for template in _templates(job).values())
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]
    assert head["serviceType"] == "ClusterIP" and head["enableIngress"] is False


def test_the_autoscaler_starts_spot_pods_first_and_others_when_those_find_no_machine(job: dict[str, Any]) -> None:
    config = _autoscaler_config(job)
    types = config["available_node_types"]
    assert types["headgroup"]["resources"]["CPU"] == 0
    assert config["idle_timeout_minutes"] == 5
    assert autoscaler.launches(config, 0) == {}
    assert autoscaler.launches(config, 3) == {"gpu-spot": 3}
    assert autoscaler.launches(config, 50) == {"gpu-spot": 8, "gpu-ondemand": 2}
    assert autoscaler.launches(config, 2, autoscaler.failed("gpu-spot", timed_out=True)) == {"gpu-ondemand": 2}


def test_the_time_after_which_a_pod_is_given_up_is_a_setting_that_ray_has(job: dict[str, Any]) -> None:
    from ray.autoscaler._private import constants
    from ray.autoscaler.v2.instance_manager import config

    sources = [Path(module.__file__).read_text() for module in (constants, config)]
    for setting in job["spec"]["rayClusterSpec"]["autoscalerOptions"]["env"]:
        assert any(f'"{setting["name"]}"' in source for source in sources), setting
