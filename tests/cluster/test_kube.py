"""Manifests for KubeRay: hardened, closed, sized; and checked so that a typo is an error."""

from __future__ import annotations

import copy
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from raymill.cluster.kube.clusters import cluster, network_policy
from raymill.cluster.kube.jobs import cron, job
from raymill.cluster.kube.schema import check, read_schemas
from raymill.cluster.kube.services import Served, service
from raymill.cluster.project import Project
from raymill.cluster.spec import ClusterSpec
from raymill.errors import UsageError

SCHEMAS = "RAYMILL_KUBERAY_SCHEMAS"
PROJECT = Project("Fraud_v1", {"raymill.yaml": b"name: x\n", "pkg/m.py": b"A = 1\n"},
                  "raymill.yaml", ["training.epochs=3"])
SERVED = Served("raymill.served:app", {"name": "fraud", "version": 3}, {"name": "Replica"}, 15)
SPEC = ClusterSpec.model_validate({
    "nodes": {"workers": [
        {"name": "cpu", "min": 1, "max": 4, "cpus": 8, "memory_gb": 32},
        {"name": "gpu", "min": 0, "max": 2, "cpus": 16, "gpus": 2, "memory_gb": 128,
         "type": "g5.12xlarge"},
    ]},
    "kubernetes": {"image": "registry.example/raymill:0.1.0", "namespace": "ml",
                   "claim": "raymill-state", "secrets": ["mlflow", "aws"],
                   "redis": {"address": "redis:6379", "password_secret": "redis"}},
})
FIXED = ClusterSpec.model_validate({
    "kubernetes": {"image": "registry.example/raymill:0.1.0", "claim": "raymill-state"}})


def every(spec: ClusterSpec = SPEC) -> dict[str, list[dict[str, Any]]]:
    return {
        "cluster": cluster(spec, PROJECT), "job": job(spec, PROJECT),
        "cron": cron(spec, PROJECT, "0 3 * * *", "Europe/Paris"),
        "service": service(spec, PROJECT, SERVED),
    }


def pods(document: Any) -> Iterator[dict[str, Any]]:
    """Every pod's spec in a manifest."""
    if isinstance(document, dict):
        if "containers" in document:
            yield document
        for value in document.values():
            yield from pods(value)
    elif isinstance(document, list):
        for value in document:
            yield from pods(value)


@pytest.mark.parametrize("what", ["cluster", "job", "cron", "service"])
def test_every_pod_is_hardened_and_sized(what: str) -> None:
    found = list(pods(every()[what]))
    assert len(found) >= 3
    for pod in found:
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            rights = container["securityContext"]
            assert rights["readOnlyRootFilesystem"] and not rights["allowPrivilegeEscalation"]
            assert rights["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"] == container["resources"]["requests"]
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert mounted <= {volume["name"] for volume in pod["volumes"]}


def test_the_token_is_asked_for_and_secrets_are_only_named() -> None:
    for manifests in every().values():
        text = yaml.safe_dump_all(manifests)
        assert "mode: token" in text and "secretName: raymill-token" in text
        assert "kind: Secret" not in text
        assert re.search(r"LoadBalancer|NodePort|hostNetwork|privileged", text) is None


def test_only_the_project_and_the_operator_get_in() -> None:
    policy = network_policy(SPEC, PROJECT)
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    own, operator = policy["spec"]["ingress"]
    assert own["from"] == [{"podSelector": policy["spec"]["podSelector"]}]
    assert {port["port"] for port in operator["ports"]} == {8000, 8265, 52365}
    assert len(network_policy(SPEC, PROJECT, endpoint=True)["spec"]["ingress"]) == 3


def test_the_head_runs_no_task_and_groups_scale_by_ray() -> None:
    spec = cluster(SPEC, PROJECT)[-1]["spec"]
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert spec["enableInTreeAutoscaling"] and spec["autoscalerOptions"]["version"] == "v2"
    cpu, gpu = spec["workerGroupSpecs"]
    assert (cpu["minReplicas"], cpu["maxReplicas"], gpu["minReplicas"]) == (1, 4, 0)
    container = gpu["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 2
    assert spec["gcsFaultToleranceOptions"]["redisPassword"]["valueFrom"]["secretKeyRef"] == {
        "name": "redis", "key": "password"}
    assert "enableInTreeAutoscaling" not in cluster(FIXED, PROJECT)[-1]["spec"]


def test_pods_of_a_service_wait_longer_than_its_requests_take() -> None:
    spec = service(SPEC, PROJECT, SERVED)[-1]["spec"]
    config = yaml.safe_load(spec["serveConfigV2"])
    assert config["applications"][0]["import_path"] == "raymill.served:app"
    assert spec["upgradeStrategy"] == {"type": "NewCluster"} and spec["excludeHeadPodFromServeSvc"]
    for group in spec["rayClusterConfig"]["workerGroupSpecs"]:
        pod = group["template"]["spec"]
        waits = int(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][2].split()[1][:-1])
        assert SERVED.drain_s < waits < pod["terminationGracePeriodSeconds"]


def test_a_job_runs_the_spec_where_its_files_are() -> None:
    config, _, made = job(SPEC, PROJECT)
    assert config["data"] == {"raymill.yaml": "name: x\n", "pkg__m.py": "A = 1\n"}
    shell, flag, line = shlex.split(made["spec"]["entrypoint"])
    assert (shell, flag) == ("sh", "-c") and line.startswith("cd /project && exec raymill run ")
    assert "--set training.epochs=3" in line and "cluster.address=auto" in line
    volume = next(v for pod in pods(made) for v in pod["volumes"] if v["name"] == "project")
    assert {"key": "pkg__m.py", "path": "pkg/m.py"} in volume["configMap"]["items"]
    assert made["metadata"]["name"] == "fraud-v1"


def test_another_project_is_another_config() -> None:
    other = Project(PROJECT.name, PROJECT.files, PROJECT.spec)
    assert job(SPEC, other)[0]["metadata"]["name"] != job(SPEC, PROJECT)[0]["metadata"]["name"]


def test_pods_need_an_image_and_files_that_fit() -> None:
    with pytest.raises(UsageError, match=r"cluster\.kubernetes\.image"):
        cluster(ClusterSpec(), PROJECT)
    with pytest.raises(UsageError, match="900,000"):
        cluster(SPEC, Project("big", {"raymill.yaml": b"x" * 900_001}, "raymill.yaml"))


CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
spec:
  names: {kind: RayCluster}
  versions:
  - name: v1
    schema:
      openAPIV3Schema:
        type: object
        properties:
          apiVersion: {type: string}
          kind: {type: string}
          metadata: {type: object}
          spec:
            type: object
            required: [size]
            properties:
              size: {anyOf: [{type: integer}, {type: string}], x-kubernetes-int-or-string: true}
              labels: {type: object, additionalProperties: {type: string}}
              free: {type: object, x-kubernetes-preserve-unknown-fields: true, properties: {}}
              groups: {type: array, items: {type: object, properties: {name: {type: string}}}}
"""


@pytest.mark.parametrize("spec, place", [
    ({"size": 1, "free": {"any": 1}, "labels": {"a": "b"}, "groups": [{"name": "x"}]}, None),
    ({"size": 1, "sise": 2}, "RayCluster: spec"),
    ({"size": 1, "groups": [{"nane": "x"}]}, "RayCluster: spec.groups.0"),
    ({"size": 1.5}, "RayCluster: spec.size"),
    ({}, "RayCluster: spec"),
    ({"size": 1, "labels": {"a": 1}}, "RayCluster: spec.labels.a"),
])
def test_fields_that_a_schema_does_not_name_are_refused(
    spec: dict[str, Any], place: str | None, tmp_path: Path
) -> None:
    (tmp_path / "crd.yaml").write_text(CRD)
    manifest = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": {"x": 1}, "spec": spec}
    found = check([manifest, {"kind": "ConfigMap"}], read_schemas(tmp_path))
    assert [problem.rule for problem in found] == ([place] if place else [])


def test_a_folder_without_schemas_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="kubectl get crd"):
        read_schemas(tmp_path)


@pytest.mark.skipif(SCHEMAS not in os.environ, reason=f"{SCHEMAS} names no folder of KubeRay's CRDs")
@pytest.mark.parametrize("spec", [SPEC, FIXED], ids=["scaling", "fixed"])
def test_every_manifest_holds_against_kuberays_own_schemas(spec: ClusterSpec) -> None:
    schemas = read_schemas(Path(os.environ[SCHEMAS]))
    for what, manifests in every(spec).items():
        assert not check(manifests, schemas), what
        planted = copy.deepcopy(manifests)
        where = next(pods(planted[-1]))
        where["containers"][0]["securityContext"]["readOnlyRootFileSystem"] = True
        assert check(planted, schemas), what
