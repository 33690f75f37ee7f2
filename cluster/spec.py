"""The spec of the Ray cluster that a run uses, and of the machines to make one of."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from raymill.specs import Part

Label = Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]{0,30}[a-z0-9])?$")]
ObjectName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]{0,250}[a-z0-9])?$")]
QUANTITY = r"^[0-9]+(\.[0-9]+)?(Mi|Gi|Ti)$"


class Machine(Part):
    """What one machine (or pod) has. `type` names it where a cloud wants that: `m6i.2xlarge`."""

    cpus: Annotated[float, Field(gt=0)] = 4
    gpus: Annotated[int, Field(ge=0)] = 0
    memory_gb: Annotated[float, Field(gt=0)] = 16
    type: str | None = None


class HeadNode(Machine):
    """The head holds the cluster's state and the dashboard, and runs no task of Ray's."""

    cpus: Annotated[float, Field(gt=0)] = 2
    memory_gb: Annotated[float, Field(gt=0)] = 8


class WorkerGroup(Machine):
    """Between `min` and `max` machines of one kind: Ray's autoscaler takes what is asked for."""

    name: Label = "worker"
    min: Annotated[int, Field(ge=0)] = 1
    max: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="after")
    def _ordered(self) -> WorkerGroup:
        if self.min > self.max:
            raise ValueError(f"min <= max must hold, but got min={self.min}, max={self.max}")
        return self


class NodesSpec(Part):
    """The machines of a cluster to be made: a head and groups of workers."""

    head: HeadNode = HeadNode()
    workers: Annotated[list[WorkerGroup], Field(min_length=1)] = Field(
        default_factory=lambda: [WorkerGroup()])
    idle_timeout_s: Annotated[int, Field(ge=10)] = 120  # a worker without work goes after it

    @field_validator("workers")
    @classmethod
    def _told_apart(cls, workers: list[WorkerGroup]) -> list[WorkerGroup]:
        names = [group.name for group in workers]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"each worker group has a name of its own, but got two {twice[0]!r}")
        return workers

    @property
    def scales(self) -> bool:
        return any(group.max > group.min for group in self.workers)


class RedisSpec(Part):
    """A Redis that keeps the cluster's state when the head is lost."""

    address: str  # host:port
    password_secret: ObjectName  # a Secret whose key `password` holds it


class KubernetesSpec(Part):
    """How the cluster is run by KubeRay. Secrets are named, never held."""

    image: str | None = None
    namespace: ObjectName = "default"
    operator_namespace: ObjectName = "kuberay-operator"  # may reach the head and the endpoint
    token_secret: ObjectName = "raymill-token"  # its key `auth_token` is Ray's token
    secrets: list[ObjectName] = Field(default_factory=list)  # their keys become variables
    claim: ObjectName | None = None  # a volume that every pod mounts at /state
    scratch: Annotated[str, Field(pattern=QUANTITY)] = "20Gi"  # of each pod, for Ray's files
    redis: RedisSpec | None = None
    node_selector: dict[str, str] = Field(default_factory=dict)

    @field_validator("image")
    @classmethod
    def _pinned(cls, image: str | None) -> str | None:
        if image is not None and not re.search(r"(:(?!latest$)[\w][\w.-]*|@sha256:[0-9a-f]{64})$",
                                               image):
            raise ValueError("an image has a tag other than latest, or a digest: all pods must run "
                             f"the same, but got {image!r}")
        return image


class SlurmSpec(Part):
    """How the cluster is run as a batch job of Slurm."""

    partition: str | None = None
    account: str | None = None
    time: Annotated[str, Field(pattern=r"^(\d+-)?\d{1,2}:\d{2}:\d{2}$")] = "04:00:00"
    setup: list[str] = Field(default_factory=list)  # lines before Ray, like `module load cuda`


class LauncherSpec(Part):
    """How Ray's own cluster launcher makes the cluster (`ray up`)."""

    provider: Literal["aws", "gcp", "local"]
    region: str | None = None
    zone: str | None = None  # gcp's availability zone
    project: str | None = None  # gcp's project
    ssh_user: str = "ubuntu"
    head_ip: str | None = None  # local: machines that you have
    worker_ips: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _complete(self) -> LauncherSpec:
        needs = {"aws": ("region",), "gcp": ("region", "zone", "project"),
                 "local": ("head_ip", "worker_ips")}[self.provider]
        if missing := [name for name in needs if not getattr(self, name)]:
            raise ValueError(f"the provider {self.provider} needs {', '.join(missing)}")
        return self


class ClusterSpec(Part):
    """`address: local` starts Ray on this machine; `auto` or `host:port` attaches to a cluster.

    Without an address of its own, a spec takes RAY_ADDRESS where that is set. `nodes`,
    `kubernetes`, `slurm` and `launcher` say how a cluster is made for it elsewhere.
    """

    address: str = "local"
    cpus: Annotated[int, Field(ge=1)] | None = None  # local only; None: all
    gpus: Annotated[int, Field(ge=0)] | None = None
    object_store_mb: Annotated[int, Field(ge=80)] | None = None
    nodes: NodesSpec = NodesSpec()
    kubernetes: KubernetesSpec = KubernetesSpec()
    slurm: SlurmSpec = SlurmSpec()
    launcher: LauncherSpec | None = None
