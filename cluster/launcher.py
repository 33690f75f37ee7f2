"""The YAML of Ray's own cluster launcher: `ray up` makes the machines."""

from __future__ import annotations

import shlex
from typing import Any

import yaml

from raymill.errors import UsageError

from .project import Project
from .spec import ClusterSpec, LauncherSpec, NodesSpec

TOKEN = "~/.ray/auth_token"
# `ray up` copies the token first; nothing listens without it.
_ENVIRONMENT = ("export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 "
                "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=1; test -s ~/.ray/auth_token && ")


def launcher_yaml(spec: ClusterSpec, project: Project) -> str:
    """What `ray up FILE` reads; afterwards `ray attach`, or `ray dashboard` and submit a job.

    Raises:
        UsageError: the spec names no provider's settings, image or machine types that it needs.
    """
    launcher = spec.launcher
    if launcher is None:
        raise UsageError("Ray's cluster launcher needs a provider",
                         cure="Set cluster.launcher, like {provider: aws, region: eu-west-1}.")
    document: dict[str, Any] = {
        "cluster_name": project.label,
        "provider": _provider(launcher),
        "auth": {"ssh_user": launcher.ssh_user},
        "file_mounts": {TOKEN: TOKEN},
        "setup_commands": ["chmod 600 ~/.ray/auth_token"],
        "head_start_ray_commands": ["ray stop", _ENVIRONMENT + (
            "ray start --head --port=6379 --dashboard-host=127.0.0.1 --num-cpus=0 "
            "--autoscaling-config=~/ray_bootstrap_config.yaml")],
        "worker_start_ray_commands": ["ray stop", _ENVIRONMENT + (
            "ray start --address=$RAY_HEAD_IP:6379")],
    }
    if spec.kubernetes.image is not None:
        document["docker"] = {
            "image": spec.kubernetes.image, "container_name": "raymill", "pull_before_run": True,
            "run_options": ["--shm-size=" + shlex.quote(
                f"{max(1, round(spec.nodes.workers[0].memory_gb * 0.3))}g")]}
    if launcher.provider != "local":
        document |= _types(spec.nodes, launcher.provider)
    return yaml.safe_dump(document, sort_keys=False)


def _provider(launcher: LauncherSpec) -> dict[str, Any]:
    if launcher.provider == "local":
        return {"type": "local", "head_ip": launcher.head_ip, "worker_ips": launcher.worker_ips}
    found: dict[str, Any] = {"type": launcher.provider, "region": launcher.region}
    if launcher.provider == "gcp":
        found |= {"availability_zone": launcher.zone, "project_id": launcher.project}
    return found


def _types(nodes: NodesSpec, provider: str) -> dict[str, Any]:
    kinds = {"head": nodes.head} | {group.name: group for group in nodes.workers}
    if untyped := [name for name, machine in kinds.items() if machine.type is None]:
        raise UsageError(f"the provider {provider} needs a machine type, but {untyped[0]!r} names "
                         "none", cure="Set `type` under cluster.nodes, like m6i.2xlarge.")
    key = {"aws": "InstanceType", "gcp": "machineType"}[provider]
    types: dict[str, Any] = {"head": {"resources": {"CPU": 0}, "min_workers": 0, "max_workers": 0,
                                      "node_config": {key: nodes.head.type}}}
    for group in nodes.workers:
        types[group.name] = {
            "resources": {"CPU": int(group.cpus), **({"GPU": group.gpus} if group.gpus else {})},
            "node_config": {key: group.type}, "min_workers": group.min, "max_workers": group.max,
        }
    return {"max_workers": sum(group.max for group in nodes.workers),
            "idle_timeout_minutes": max(1, nodes.idle_timeout_s // 60),
            "head_node_type": "head", "available_node_types": types}
