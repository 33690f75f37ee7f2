"""RayJob and RayCronJob: the road of a spec on a cluster that is there for it only."""

from __future__ import annotations

import shlex

from raymill.cluster.project import Project
from raymill.cluster.spec import ClusterSpec, Machine

from .clusters import API, cluster_spec, config_map, metadata, network_policy
from .pods import LABEL, PRIVILEGES, PROJECT, USER, Manifest, image_of, resources

KEPT_S = 24 * 3600  # a finished job and its logs stay for this time
SUBMITTER = Machine(cpus=0.5, memory_gb=1)


def job(spec: ClusterSpec, project: Project) -> list[Manifest]:
    """A RayJob; its cluster goes when it ends, and a failed start is tried once more."""
    return [config_map(spec, project), network_policy(spec, project), {
        "apiVersion": API, "kind": "RayJob", "metadata": metadata(spec, project),
        "spec": job_spec(spec, project),
    }]


def cron(spec: ClusterSpec, project: Project, schedule: str, zone: str | None) -> list[Manifest]:
    """The same at each time of `schedule` (cron's five fields)."""
    timed: Manifest = {"schedule": schedule, "jobTemplate": job_spec(spec, project)}
    if zone is not None:
        timed["timeZone"] = zone
    return [config_map(spec, project), network_policy(spec, project), {
        "apiVersion": API, "kind": "RayCronJob", "metadata": metadata(spec, project),
        "spec": timed,
    }]


def job_spec(spec: ClusterSpec, project: Project) -> Manifest:
    command = shlex.join(project.command())
    return {
        "entrypoint": f"sh -c {shlex.quote(f'cd {PROJECT} && exec {command}')}",
        "entrypointNumCpus": 0,
        "submissionMode": "K8sJobMode",
        "shutdownAfterJobFinishes": True, "ttlSecondsAfterFinished": KEPT_S,
        "backoffLimit": 1,  # raymill goes on where a lost cluster stopped
        "submitterPodTemplate": _submitter(spec, project),
        "rayClusterSpec": cluster_spec(spec, project),
    }


def _submitter(spec: ClusterSpec, project: Project) -> Manifest:
    return {"metadata": {"labels": {LABEL: project.label}}, "spec": {
        "restartPolicy": "Never", "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER,
                            "fsGroup": USER, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{
            "name": "ray-job-submitter", "image": image_of(spec),
            "securityContext": PRIVILEGES, "resources": resources(SUBMITTER),
            "env": [{"name": "HOME", "value": "/tmp"}],
            "volumeMounts": [{"name": "scratch", "mountPath": "/tmp"}],
        }],
        "volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": "1Gi"}}],
    }}
