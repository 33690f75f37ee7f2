"""Manifests for KubeRay from a spec, and from a registered model."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from raymill.cluster.kube import clusters, jobs, services
from raymill.cluster.kube.pods import PROJECT, Manifest
from raymill.cluster.kube.schema import check, read_schemas
from raymill.cluster.project import Project
from raymill.cluster.spec import ClusterSpec
from raymill.errors import SpecError, UsageError
from raymill.events import Notify, ignore, warn
from raymill.serving.spec import ServingSpec
from raymill.spec import Spec, spec_from
from raymill.stores import SCHEME
from raymill.tracking.home import Home
from raymill.tracking.registry import ModelVersion, Registry
from raymill.tracking.runs import Run

from .package import pack
from .project import own_code

_FIELD = r"(\*|[0-9*]+([-/,][0-9*]+)*)"
_CRON = re.compile(rf"{_FIELD}( {_FIELD}){{4}}|@(hourly|daily|weekly|monthly|yearly)")


def job(spec_file: Path, overrides: Sequence[str]) -> list[Manifest]:
    """A RayJob that runs the spec."""
    spec, project = _packed(spec_file, overrides)
    return jobs.job(spec.cluster, project)


def cron(
    spec_file: Path, overrides: Sequence[str], schedule: str, zone: str | None
) -> list[Manifest]:
    """A RayCronJob that runs the spec at the times of `schedule`."""
    if not _CRON.fullmatch(schedule):
        raise UsageError(f"a schedule has cron's five fields, but got {schedule!r}",
                         cure="Like '0 3 * * *' for every night at three.")
    spec, project = _packed(spec_file, overrides)
    return jobs.cron(spec.cluster, project, schedule, zone)


def cluster(spec_file: Path, overrides: Sequence[str]) -> list[Manifest]:
    """A RayCluster that stays."""
    spec, project = pack(spec_file, overrides)
    return clusters.cluster(spec.cluster, project)


def service(
    ref: str, spec_file: Path | None, overrides: Sequence[str], tracking_uri: str | None,
    notify: Notify = ignore,
) -> list[Manifest]:
    """A RayService of a registered model, as its run's spec (or `spec_file`) says.

    Raises:
        UsageError: the spec asks for what a RayService has not, or the pods could not read the
            model: it has code of its own and no `spec_file` is given, or its files are on this
            machine only.
    """
    home = Home.find()
    version = Registry(tracking_uri or home.tracking_uri, home).resolve(ref)
    spec, project = (pack(spec_file, overrides) if spec_file is not None
                     else _of_run(version, home, overrides))
    own = [name for name in own_code(spec) if name == spec.model.family]
    if own and spec_file is None:
        raise UsageError(f"{version.name} is built by {own[0]}, whose code must go along",
                         cure="Name the spec beside it: --spec FILE.")
    _check_serving(spec, notify)
    uri = tracking_uri or spec.tracking.uri
    reached = (uri or "").startswith(("http://", "https://")) or (
        _shared(uri) and version.source.startswith(SCHEME))
    if spec.cluster.kubernetes.claim is None and not reached:
        raise UsageError("pods must be able to read the model", cure=(
            "Set tracking.uri to an MLflow server that they reach, or to PostgreSQL with "
            "cluster.store, or cluster.kubernetes.claim to a volume that holds the home."))
    arguments = {"name": version.name, "version": version.version, "digest": version.digest,
                 "tracking_uri": uri, "serving": spec.serving.model_dump(mode="json")}
    if own:
        arguments |= {"factories": own, "project": PROJECT}
    return services.service(spec.cluster, project, _served(spec.cluster, spec.serving, arguments))


def _check_serving(spec: Spec, notify: Notify) -> None:
    """Refuse what only `raymill serve` has."""
    serving = spec.serving
    if serving.tls is not None:
        raise UsageError("a RayService answers without TLS, but serving.tls is set", cure=(
            "End TLS at your Ingress or Gateway, and give --set serving.tls=null here."))
    if serving.grpc_port is not None:
        raise UsageError("a RayService has no gRPC endpoint of v2, but serving.grpc_port is set",
                         cure="Give --set serving.grpc_port=null; the same protocol is at /v2.")
    if serving.keys and spec.cluster.kubernetes.claim is None:
        raise UsageError("serving.keys needs a home that the pods share, where the keys are",
                         cure="Set cluster.kubernetes.claim, and make the keys in that home.")
    if not serving.keys:
        warn(notify, f"without serving.keys, any pod of the namespace "
                     f"{spec.cluster.kubernetes.namespace} may ask the endpoint")


def _served(
    cluster: ClusterSpec, spec: ServingSpec, arguments: dict[str, Any]
) -> services.Served:
    from raymill.serving.deploy import DEPLOYMENT, drain_s
    from raymill.serving.scaling import autoscaling

    from .served import IMPORT_PATH

    most = max(min(group.cpus / spec.cpus_per_replica,
                   group.gpus / spec.gpus_per_replica if spec.gpus_per_replica else math.inf)
               for group in cluster.nodes.workers)
    if most < 1:
        raise UsageError(
            f"a replica needs {spec.cpus_per_replica:g} CPUs and {spec.gpus_per_replica:g} GPUs, "
            "but no worker group of cluster.nodes has them", cure="Give one of them more.")
    settings = {
        "name": DEPLOYMENT, "autoscaling_config": autoscaling(spec),
        "ray_actor_options": {"num_cpus": spec.cpus_per_replica, "num_gpus": spec.gpus_per_replica},
    }
    return services.Served(IMPORT_PATH, arguments, settings, math.ceil(drain_s(spec)))


def _packed(spec_file: Path, overrides: Sequence[str]) -> tuple[Spec, Project]:
    """The project of a job whose results must outlive its pods."""
    spec, project = pack(spec_file, overrides)
    kept = spec.cluster.store is not None and _shared(spec.tracking.uri)
    if spec.cluster.kubernetes.claim is None and not kept:
        raise UsageError("what a job makes must outlive its pods", cure=(
            "Set cluster.kubernetes.claim to a PersistentVolumeClaim that all nodes mount "
            "(ReadWriteMany), which is the raymill home, at /state; or cluster.store, and "
            "tracking.uri to an MLflow server or PostgreSQL."))
    return spec, project


def _shared(uri: str | None) -> bool:
    """Whether runs and models are recorded where other machines see them."""
    return uri is not None and not uri.startswith("sqlite:")


def _of_run(
    version: ModelVersion, home: Home, overrides: Sequence[str]
) -> tuple[Spec, Project]:
    text = Run.open(home, version.run_id or "").spec_yaml
    spec = spec_from(yaml.safe_load(text), overrides)
    return spec, Project(version.name, {"raymill.yaml": text.encode()}, "raymill.yaml")


def validated(manifests: list[Manifest], schemas: Path | None) -> list[Manifest]:
    """The manifests, checked against the schemas in a folder where one is given.

    Raises:
        SpecError: with each field that is unknown or wrong.
    """
    if schemas is not None and (problems := check(manifests, read_schemas(schemas))):
        raise SpecError(problems)
    return manifests


def to_yaml(manifests: list[Manifest]) -> str:
    """For `kubectl apply -f -`."""
    return yaml.dump_all(manifests, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks, and no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)
