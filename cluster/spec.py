"""The spec of the Ray cluster that a run uses, and of the machines to make one of."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from raymill.specs import Part, StoreUri

Label = Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]{0,30}[a-z0-9])?$")]
ObjectName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]{0,250}[a-z0-9])?$")]
QUANTITY = r"^[0-9]+(\.[0-9]+)?(Mi|Gi|Ti)$"


class Machine(Part):
    """What one machine (or pod) has. `type` names it where a cloud wants that: `m6i.2xlarge`."""

    cpus: Annotated[float, Field(gt=0)] = 4
    """CPUs that Ray counts on it."""
    gpus: Annotated[int, Field(ge=0)] = 0
    """GPUs that Ray counts on it."""
    memory_gb: Annotated[float, Field(gt=0)] = 16
    """Its memory; a pod requests it, and may not take more."""
    type: str | None = None
    """The cloud's name of the machine, like m6i.2xlarge; on Kubernetes, of the node."""


class HeadNode(Machine):
    """The head holds the cluster's state and the dashboard, and runs no task of Ray's."""

    cpus: Annotated[float, Field(gt=0)] = 2
    memory_gb: Annotated[float, Field(gt=0)] = 8


class WorkerGroup(Machine):
    """Between `min` and `max` machines of one kind: Ray's autoscaler takes what is asked for."""

    name: Label = "worker"
    """Of the group; each has its own."""
    min: Annotated[int, Field(ge=0)] = 1
    """Machines that are always there."""
    max: Annotated[int, Field(ge=1)] = 1
    """Machines at most: above min, Ray's autoscaler starts them for what waits."""

    @model_validator(mode="after")
    def _ordered(self) -> WorkerGroup:
        if self.min > self.max:
            raise ValueError(f"min <= max must hold, but got min={self.min}, max={self.max}")
        return self


class NodesSpec(Part):
    """The machines of a cluster to be made: a head and groups of workers."""

    head: HeadNode = HeadNode()
    """The machine of the head."""
    workers: Annotated[list[WorkerGroup], Field(min_length=1)] = Field(
        default_factory=lambda: [WorkerGroup()])
    """Groups of machines of one kind each."""
    idle_timeout_s: Annotated[int, Field(ge=10)] = 120
    """A worker above min goes after so many seconds without work."""

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

    address: str
    """As host:port."""
    password_secret: ObjectName
    """The Secret whose key `password` holds the password."""


class KubernetesSpec(Part):
    """How the cluster is run by KubeRay. Secrets are named, never held."""

    image: str | None = None
    """Of every pod, with raymill in it: a tag other than latest, or a digest."""
    namespace: ObjectName = "default"
    """Where everything is made."""
    operator_namespace: ObjectName = "kuberay-operator"
    """KubeRay's operator's; its pods may reach the head and the endpoint."""
    token_secret: ObjectName = "raymill-token"
    """The Secret whose key `auth_token` is Ray's token."""
    secrets: list[ObjectName] = Field(default_factory=list)
    """Secrets whose keys become variables of every pod."""
    claim: ObjectName | None = None
    """A PersistentVolumeClaim that every pod mounts at /state, as the raymill home."""
    scratch: Annotated[str, Field(pattern=QUANTITY)] = "20Gi"
    """Disk of each pod for Ray's files."""
    redis: RedisSpec | None = None
    """A Redis that keeps the cluster's state when the head is lost."""
    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels that a pod's node must have."""

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
    """Of sbatch."""
    account: str | None = None
    """Of sbatch."""
    time: Annotated[str, Field(pattern=r"^(\d+-)?\d{1,2}:\d{2}:\d{2}$")] = "04:00:00"
    """Limit of the job, as [days-]HH:MM:SS."""
    setup: list[str] = Field(default_factory=list)
    """Lines of shell before Ray, like `module load cuda`."""


class LauncherSpec(Part):
    """How Ray's own cluster launcher makes the cluster (`ray up`)."""

    provider: Literal["aws", "gcp", "local"]
    """Who makes the machines; local: they are there."""
    region: str | None = None
    """Of aws and gcp."""
    zone: str | None = None
    """The availability zone of gcp."""
    project: str | None = None
    """The project of gcp."""
    ssh_user: str = "ubuntu"
    """Who logs in to the machines."""
    head_ip: str | None = None
    """The head, for local."""
    worker_ips: list[str] = Field(default_factory=list)
    """The other machines, for local."""

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
    """local, auto, or host:port of a cluster that runs."""
    cpus: Annotated[int, Field(ge=1)] | None = None
    """CPUs of a local Ray; null: all."""
    gpus: Annotated[int, Field(ge=0)] | None = None
    """GPUs of a local Ray; null: all."""
    object_store_mb: Annotated[int, Field(ge=80)] | None = None
    """Of a local Ray; null: Ray's own choice, about 30 % of memory."""
    store: StoreUri | None = None
    """s3://bucket/prefix, for what every node must reach; null: the home, which all nodes see."""
    nodes: NodesSpec = NodesSpec()
    """Machines of a cluster to be made."""
    kubernetes: KubernetesSpec = KubernetesSpec()
    """How KubeRay runs it."""
    slurm: SlurmSpec = SlurmSpec()
    """How Slurm runs it."""
    launcher: LauncherSpec | None = None
    """How `ray up` makes it."""
