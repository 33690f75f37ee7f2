"""The pods of a cluster: hardened, sized, probed, with the project and the state mounted."""

from __future__ import annotations

from typing import Any

from raymill.cluster.project import Project
from raymill.cluster.spec import ClusterSpec, HeadNode, Machine, WorkerGroup
from raymill.errors import UsageError

Manifest = dict[str, Any]
LABEL = "raymill.io/project"
STATE, PROJECT, USER = "/state", "/project", 1000
AGENT_PORT, DASHBOARD_PORT, ENDPOINT_PORT = 52365, 8265, 8000
GRACE_S = 30  # of Ray's own end, after what preStop waits for
# What Ray and its children read. KubeRay itself sets RAY_AUTH_MODE and RAY_AUTH_TOKEN.
VARIABLES = {
    "HOME": "/home/raymill",
    "RAYMILL_HOME": STATE,
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    "RAY_DEDUP_LOGS": "0",
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "PYTHONDONTWRITEBYTECODE": "1",
}
PRIVILEGES = {
    "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
}


def image_of(spec: ClusterSpec) -> str:
    """The image of every pod.

    Raises:
        UsageError: the spec names none.
    """
    if spec.kubernetes.image is None:
        raise UsageError("pods need an image with raymill in it",
                         cure="Build deploy/Dockerfile, push it, and set cluster.kubernetes.image.")
    return spec.kubernetes.image


def head(spec: ClusterSpec, project: Project) -> Manifest:
    """The head group: no task of Ray's runs there, and its dashboard is a ClusterIP."""
    return {
        "serviceType": "ClusterIP",
        "rayStartParams": {"num-cpus": "0", "num-gpus": "0", "dashboard-host": "0.0.0.0"},
        "template": _template(spec, project, "ray-head", spec.nodes.head, drain_s=0),
    }


def worker(spec: ClusterSpec, project: Project, group: WorkerGroup, drain_s: int) -> Manifest:
    """A worker group; its pods wait `drain_s` before Ray stops, so that requests end."""
    return {
        "groupName": group.name, "replicas": group.min,
        "minReplicas": group.min, "maxReplicas": group.max,
        "rayStartParams": {},
        "template": _template(spec, project, "ray-worker", group, drain_s),
    }


def resources(machine: Machine) -> Manifest:
    """Requests that are the limits: the scheduler promises what Ray counts on."""
    sizes: dict[str, str | int] = {"cpu": f"{machine.cpus:g}",
                                   "memory": f"{round(machine.memory_gb * 1024)}Mi"}
    if machine.gpus:
        sizes["nvidia.com/gpu"] = machine.gpus
    return {"requests": dict(sizes), "limits": dict(sizes)}


def _template(
    spec: ClusterSpec, project: Project, container: str, machine: Machine, drain_s: int
) -> Manifest:
    kubernetes = spec.kubernetes
    is_head = isinstance(machine, HeadNode)
    pod: Manifest = {
        # The head's autoscaler talks to Kubernetes; nobody else has a reason to.
        "automountServiceAccountToken": is_head and spec.nodes.scales,
        "restartPolicy": "Never" if spec.nodes.scales else "Always",
        "terminationGracePeriodSeconds": drain_s + GRACE_S,
        "securityContext": {
            "runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(spec, container, machine, drain_s)],
        "volumes": _volumes(spec, project, machine),
    }
    selector = {**kubernetes.node_selector, **(
        {"node.kubernetes.io/instance-type": machine.type} if machine.type else {})}
    if selector:
        pod["nodeSelector"] = selector
    if machine.gpus:
        pod["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists",
                               "effect": "NoSchedule"}]
    return {"metadata": {"labels": {LABEL: project.label}}, "spec": pod}


def _container(spec: ClusterSpec, name: str, machine: Machine, drain_s: int) -> Manifest:
    is_head = isinstance(machine, HeadNode)
    found: Manifest = {
        "name": name, "image": image_of(spec), "imagePullPolicy": "IfNotPresent",
        "securityContext": PRIVILEGES, "resources": resources(machine),
        "env": [{"name": key, "value": value} for key, value in VARIABLES.items()],
        "volumeMounts": [
            {"name": "scratch", "mountPath": "/tmp"},
            {"name": "home", "mountPath": "/home/raymill"},
            {"name": "shared-memory", "mountPath": "/dev/shm"},
            {"name": "project", "mountPath": PROJECT, "readOnly": True},
            {"name": "state", "mountPath": STATE},
        ],
        # The agent's word on its raylet (and, on the head, on the GCS); it needs no token.
        "startupProbe": _probe(period=5, failures=60),
        "readinessProbe": _probe(period=5, failures=3),
        "livenessProbe": _probe(period=10, failures=6),
        "lifecycle": {"preStop": {"exec": {"command": [
            "/bin/sh", "-c", f"sleep {drain_s}; ray stop"]}}},
    }
    if is_head:
        found["ports"] = [{"name": "gcs-server", "containerPort": 6379},
                          {"name": "dashboard", "containerPort": DASHBOARD_PORT},
                          {"name": "client", "containerPort": 10001},
                          {"name": "serve", "containerPort": ENDPOINT_PORT}]
    if spec.kubernetes.secrets:
        found["envFrom"] = [{"secretRef": {"name": name}} for name in spec.kubernetes.secrets]
    return found


def _probe(period: int, failures: int) -> Manifest:
    return {"httpGet": {"path": "/api/healthz", "port": AGENT_PORT},
            "periodSeconds": period, "timeoutSeconds": 5, "failureThreshold": failures}


def _volumes(spec: ClusterSpec, project: Project, machine: Machine) -> list[Manifest]:
    claim = spec.kubernetes.claim
    items = [{"key": key_of(path), "path": path} for path in sorted(project.files)]
    memory = f"{round(machine.memory_gb * 1024 * 0.3)}Mi"  # what Ray takes for objects
    return [
        {"name": "scratch", "emptyDir": {"sizeLimit": spec.kubernetes.scratch}},
        {"name": "home", "emptyDir": {"sizeLimit": "1Gi"}},
        {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": memory}},
        {"name": "project", "configMap": {"name": config_name(project), "items": items}},
        {"name": "state", **({"persistentVolumeClaim": {"claimName": claim}} if claim else
                             {"emptyDir": {"sizeLimit": spec.kubernetes.scratch}})},
    ]


def config_name(project: Project) -> str:
    """Of the ConfigMap with the project's files; other files make another, so that a changed
    project is a changed cluster."""
    return f"{project.label}-{project.digest}"


def key_of(path: str) -> str:
    """A path as a key of a ConfigMap, which takes no slash."""
    return path.replace("/", "__")
