"""RayCluster, and what lies beside it: the project's files and the network policy."""

from __future__ import annotations

from raymill.cluster.project import Project
from raymill.cluster.spec import ClusterSpec
from raymill.errors import UsageError

from .pods import (
    AGENT_PORT,
    DASHBOARD_PORT,
    ENDPOINT_PORT,
    LABEL,
    PRIVILEGES,
    Manifest,
    config_name,
    head,
    key_of,
    worker,
)

RAY_VERSION = "2.60.0"
API = "ray.io/v1"
MAX_CONFIG = 900_000  # bytes; etcd takes 1 MiB an object


def cluster(spec: ClusterSpec, project: Project) -> list[Manifest]:
    """A RayCluster that stays, to submit jobs to."""
    return [config_map(spec, project), network_policy(spec, project), {
        "apiVersion": API, "kind": "RayCluster", "metadata": metadata(spec, project),
        "spec": cluster_spec(spec, project),
    }]


def metadata(spec: ClusterSpec, project: Project) -> Manifest:
    return {"name": project.label, "namespace": spec.kubernetes.namespace,
            "labels": {LABEL: project.label}}


def cluster_spec(spec: ClusterSpec, project: Project, drain_s: int = 0) -> Manifest:
    """The `spec` of a RayCluster: it asks for the token in `kubernetes.token_secret`."""
    kubernetes, nodes = spec.kubernetes, spec.nodes
    found: Manifest = {
        "rayVersion": RAY_VERSION,
        "authOptions": {"mode": "token", "secretName": kubernetes.token_secret},
        "headGroupSpec": head(spec, project),
        "workerGroupSpecs": [worker(spec, project, group, drain_s) for group in nodes.workers],
    }
    if nodes.scales:
        small = {"cpu": "500m", "memory": "1Gi"}
        found["enableInTreeAutoscaling"] = True
        found["autoscalerOptions"] = {
            "version": "v2", "idleTimeoutSeconds": nodes.idle_timeout_s,
            "upscalingMode": "Default", "securityContext": PRIVILEGES,
            "resources": {"requests": small, "limits": small},
            "volumeMounts": [{"name": "scratch", "mountPath": "/tmp"},
                             {"name": "home", "mountPath": "/home/raymill"}],
        }
    if kubernetes.redis is not None:
        found["gcsFaultToleranceOptions"] = {
            "backend": "redis", "redisAddress": kubernetes.redis.address,
            "redisPassword": {"valueFrom": {"secretKeyRef": {
                "name": kubernetes.redis.password_secret, "key": "password"}}},
        }
    return found


def config_map(spec: ClusterSpec, project: Project) -> Manifest:
    """The project's files.

    Raises:
        UsageError: they are more than a ConfigMap takes, or not text.
    """
    size = sum(map(len, project.files.values()))
    if size > MAX_CONFIG:
        raise UsageError(f"a project's files on Kubernetes have at most {MAX_CONFIG:,} bytes, but "
                         f"got {size:,}", cure="Put your package into the image.")
    try:
        data = {key_of(path): content.decode() for path, content in project.files.items()}
    except UnicodeDecodeError:
        raise UsageError("a project's files must be UTF-8 text",
                         cure="Put other files into the image.") from None
    return {"apiVersion": "v1", "kind": "ConfigMap", "immutable": True,
            "metadata": {**metadata(spec, project), "name": config_name(project)}, "data": data}


def network_policy(spec: ClusterSpec, project: Project, endpoint: bool = False) -> Manifest:
    """Pods of the project reach each other; KubeRay's operator reaches their health, jobs and
    endpoint; with `endpoint`, pods of the namespace reach that too. Nobody else gets in."""
    own = {"podSelector": {"matchLabels": {LABEL: project.label}}}
    operator = {"namespaceSelector": {"matchLabels": {
        "kubernetes.io/metadata.name": spec.kubernetes.operator_namespace}}}
    ingress = [{"from": [own]}, {"from": [operator], "ports": [
        _port(DASHBOARD_PORT), _port(AGENT_PORT), _port(ENDPOINT_PORT)]}]
    if endpoint:
        ingress.append({"from": [{"podSelector": {}}], "ports": [_port(ENDPOINT_PORT)]})
    return {
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": metadata(spec, project),
        "spec": {"podSelector": own["podSelector"], "policyTypes": ["Ingress"],
                 "ingress": ingress},
    }


def _port(number: int) -> Manifest:
    return {"protocol": "TCP", "port": number}
