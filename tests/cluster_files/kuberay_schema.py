"""The part of KubeRay's custom resources that the manifests use, as a JSON schema.

Written by hand after the field reference of ray.io/v1 in KubeRay 1.7; no package carries the
definitions themselves. Everything else is refused, so a name that is misspelt is found. Pods are
checked by Kubernetes' own schema.
"""

from __future__ import annotations

from typing import Any

TEXT = {"type": "string"}
COUNT = {"type": "integer", "minimum": 0}
FLAG = {"type": "boolean"}


def make_object(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    """Return the schema of an object that has nothing but these properties."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


POD_TEMPLATE = make_object(("spec",), metadata={"type": "object"}, spec={"type": "object"})

# Options of `ray start` without the dashes; Kubernetes takes text alone.
START_PARAMETERS = {"type": "object", "additionalProperties": TEXT}

HEAD_GROUP = make_object(
    ("template",),
    serviceType={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
    rayStartParams=START_PARAMETERS,
    template=POD_TEMPLATE,
)

WORKER_GROUP = make_object(
    ("groupName", "minReplicas", "maxReplicas", "template"),
    groupName=TEXT,
    replicas=COUNT,
    minReplicas=COUNT,
    maxReplicas=COUNT,
    idleTimeoutSeconds=COUNT,
    rayStartParams=START_PARAMETERS,
    template=POD_TEMPLATE,
)

CLUSTER = make_object(
    ("headGroupSpec",),
    rayVersion=TEXT,
    authOptions=make_object(("mode",), mode={"enum": ["disabled", "token"]}, secretName=TEXT),
    enableInTreeAutoscaling=FLAG,
    autoscalerOptions=make_object(
        (), version={"enum": ["v1", "v2"]}, idleTimeoutSeconds=COUNT, upscalingMode=TEXT
    ),
    headGroupSpec=HEAD_GROUP,
    workerGroupSpecs={"type": "array", "items": WORKER_GROUP},
)

JOB = make_object(
    ("entrypoint",),
    entrypoint=TEXT,
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
    shutdownAfterJobFinishes=FLAG,
    ttlSecondsAfterFinished=COUNT,
    activeDeadlineSeconds=COUNT,
    backoffLimit=COUNT,
    runtimeEnvYAML=TEXT,
    rayClusterSpec=CLUSTER,
)


def make_resource(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a resource of a kind."""
    metadata = make_object(("name", "namespace"), name=TEXT, namespace=TEXT)
    return make_object(
        ("apiVersion", "kind", "metadata", "spec"),
        apiVersion={"const": "ray.io/v1"},
        kind={"const": kind},
        metadata=metadata,
        spec=spec,
    )


SCHEMAS = {
    "RayCluster": make_resource("RayCluster", CLUSTER),
    "RayJob": make_resource("RayJob", JOB),
}
"""Schema of each kind that the manifests use."""
