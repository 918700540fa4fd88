"""KubeRay's manifests: fields, pods by Kubernetes' schema, and how Ray's autoscaler reads them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import (
    _derive_autoscaling_config_from_ray_cr as derive_autoscaling,
)

from tests.cluster_files.files import IMAGE, KUBERAY_FILES, read_documents, read_pin
from tests.cluster_files.kuberay_schema import SCHEMAS

KUBERNETES = "1.34"
"""The oldest version of Kubernetes that is still maintained (November 2026)."""

RESOURCES = [document for path in KUBERAY_FILES for document in read_documents(path)]
OURS = pytest.mark.parametrize(
    "resource",
    [one for one in RESOURCES if one["apiVersion"] == "ray.io/v1"],
    ids=lambda one: one["kind"],
)
PLAIN = [one for one in RESOURCES if one["apiVersion"] != "ray.io/v1"]


def read_cluster(resource: dict[str, Any]) -> dict[str, Any]:
    """Return the cluster's part of a RayCluster or RayJob."""
    spec = resource["spec"]
    return dict(spec if resource["kind"] == "RayCluster" else spec["rayClusterSpec"])


def list_groups(resource: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = read_cluster(resource)
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def check_pod(template: dict[str, Any]) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, **template}
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def test_there_are_both() -> None:
    assert {one["kind"] for one in RESOURCES} == {"RayCluster", "RayJob", "NetworkPolicy"}


@OURS
def test_kuberay_knows_every_field(resource: dict[str, Any]) -> None:
    jsonschema.validate(resource, SCHEMAS[resource["kind"]])


@OURS
@pytest.mark.parametrize("field", ["authOption", "headGroupSpecs"])
def test_the_check_sees_a_misspelt_field(resource: dict[str, Any], field: str) -> None:
    resource = copy.deepcopy(resource)
    spec = resource["spec"]
    (spec if resource["kind"] == "RayCluster" else spec["rayClusterSpec"])[field] = {}
    with pytest.raises(jsonschema.ValidationError, match=field):
        jsonschema.validate(resource, SCHEMAS[resource["kind"]])


@OURS
def test_kubernetes_takes_the_pods(resource: dict[str, Any]) -> None:
    for group in list_groups(resource):
        check_pod(group["template"])
        template = copy.deepcopy(group["template"])
        template["spec"]["containers"][0]["imagePulPolicy"] = "Always"
        with pytest.raises(kubernetes_validate.ValidationError):
            check_pod(template)


@pytest.mark.parametrize("resource", PLAIN, ids=lambda one: one["kind"])
def test_kubernetes_takes_the_rest(resource: dict[str, Any]) -> None:
    kubernetes_validate.validate(resource, KUBERNETES, strict=True)


@OURS
def test_rays_autoscaler_reads_the_cluster(resource: dict[str, Any]) -> None:
    cluster = {"metadata": resource["metadata"], "spec": read_cluster(resource)}
    config = derive_autoscaling(cluster)
    head, gpu = (config["available_node_types"][name] for name in ("headgroup", "gpu"))
    assert head["resources"]["CPU"] == 0  # no stage beside the driver
    assert gpu["resources"] | {"memory": 0} == {"CPU": 4, "GPU": 1, "memory": 0}
    assert config["max_workers"] == 8
    assert config["idle_timeout_minutes"] == 10


@OURS
def test_token_is_a_secret_and_wanted(resource: dict[str, Any]) -> None:
    options = read_cluster(resource)["authOptions"]
    assert options == {"mode": "token", "secretName": "distprune-ray-token"}


@OURS
def test_versions_are_those_that_are_tested(resource: dict[str, Any]) -> None:
    assert read_cluster(resource)["rayVersion"] == read_pin("ray")
    for group in list_groups(resource):
        (container,) = group["template"]["spec"]["containers"]
        assert container["image"] == f"YOUR-REGISTRY/{IMAGE}"


@OURS
def test_containers_may_do_little(resource: dict[str, Any]) -> None:
    for group in list_groups(resource):
        (container,) = group["template"]["spec"]["containers"]
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["runAsNonRoot"] is True
        assert container["resources"]["requests"] == container["resources"]["limits"]


def test_job_runs_the_study_that_is_mounted() -> None:
    (job,) = (one for one in RESOURCES if one["kind"] == "RayJob")
    words = job["spec"]["entrypoint"].split()
    assert words[:4] == ["python", "-m", "distprune", "search"]
    pod = read_cluster(job)["headGroupSpec"]["template"]["spec"]
    (mount,) = pod["containers"][0]["volumeMounts"]
    assert Path(words[4]).parent == Path(mount["mountPath"])
    assert [volume["name"] for volume in pod["volumes"]] == [mount["name"]]
    environment = yaml.safe_load(job["spec"]["runtimeEnvYAML"])["env_vars"]
    assert all(isinstance(value, str) for value in environment.values())


def test_cluster_is_reached_by_itself_and_its_operator_alone() -> None:
    (policy,) = PLAIN
    (cluster,) = (one for one in RESOURCES if one["kind"] == "RayCluster")
    selector = {"matchLabels": {"ray.io/cluster": cluster["metadata"]["name"]}}
    assert policy["spec"]["podSelector"] == selector
    own, operator = policy["spec"]["ingress"]
    assert own == {"from": [{"podSelector": selector}]}
    assert [port["port"] for port in operator["ports"]] == [8265]
