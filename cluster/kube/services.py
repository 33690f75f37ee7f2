"""RayService: a registered model behind an endpoint that upgrades without a gap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from raymill.cluster.project import Project
from raymill.cluster.spec import ClusterSpec

from .clusters import API, cluster_spec, config_map, metadata, network_policy
from .pods import ENDPOINT_PORT, Manifest


@dataclass(frozen=True)
class Served:
    """What is served: Serve's import path and arguments, and the deployment's own settings.

    `drain_s`: how long requests that were taken may go on when a pod is to stop.
    """

    import_path: str
    arguments: dict[str, Any]
    deployment: dict[str, Any]
    drain_s: int


def service(spec: ClusterSpec, project: Project, served: Served) -> list[Manifest]:
    """A RayService. A new version is a new cluster: traffic moves over once it is ready, and the
    old one goes after its requests have ended. A change of replicas is made in place."""
    return [
        config_map(spec, project), network_policy(spec, project, endpoint=True),
        {
            "apiVersion": API, "kind": "RayService", "metadata": metadata(spec, project),
            "spec": {
                "upgradeStrategy": {"type": "NewCluster"},
                "rayClusterDeletionDelaySeconds": served.drain_s + 60,
                "excludeHeadPodFromServeSvc": True,
                "serveConfigV2": serve_config(project, served),
                # preStop waits longer than requests may take.
                "rayClusterConfig": cluster_spec(spec, project, drain_s=served.drain_s + 5),
            },
        },
    ]


def serve_config(project: Project, served: Served) -> str:
    """Serve's own configuration, as the text that RayService holds."""
    document = {
        "proxy_location": "EveryNode",
        "http_options": {"host": "0.0.0.0", "port": ENDPOINT_PORT},
        "logging_config": {"enable_access_log": False, "log_level": "WARNING"},
        "applications": [{
            "name": project.label, "route_prefix": "/",
            "import_path": served.import_path, "args": served.arguments,
            "deployments": [served.deployment],
        }],
    }
    return yaml.safe_dump(document, sort_keys=False)
