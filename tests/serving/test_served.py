"""The application that KubeRay's Serve imports fetches the registered model, and no other."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import yaml

from raymill.errors import ArtifactError, UsageError
from raymill.events import Event
from raymill.kube import job, service, to_yaml
from raymill.serving.environment import METRICS
from raymill.serving.order import Order
from raymill.serving.spec import ServingSpec
from raymill.stores import store_at
from raymill.tracking.home import Home
from raymill.tracking.registry import Registry
from raymill.training.bundle import Bundle

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Serve's, when imported


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, bundle: Bundle) -> Home:
    """A home in which `toy` version 1 is champion."""
    place = Home.find(tmp_path_factory.mktemp("served") / "home")
    registry = Registry(place.tracking_uri, place)
    version = registry.register("toy", bundle, None, {}, {})
    registry.promote("toy", version.version, actor="test")
    return place


def bound(home: Home, monkeypatch: pytest.MonkeyPatch, digest: str) -> Any:
    """What `raymill.served:app` binds: the replica's class, and what it is made with."""
    from raymill import served

    found: dict[str, Any] = {}

    def catch(spec: Any, order: Any, load: Any, replica: Any) -> None:
        found.update(order=order, load=load, replica=replica)

    monkeypatch.setenv("RAYMILL_HOME", str(home.path))
    monkeypatch.setenv(METRICS, "")
    monkeypatch.setattr(served, "application", catch)
    served.app({"name": "toy", "version": 1, "digest": digest, "tracking_uri": None,
                "serving": ServingSpec().model_dump(mode="json")})
    return SimpleNamespace(**found)


def test_a_replica_fetches_its_model_and_answers(
    home: Home, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bound(home, monkeypatch, bundle.digest)
    replica = made.replica(made.order, made.load)

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(replica.__serve_build_asgi_app__())
        async with httpx.AsyncClient(transport=transport, base_url="http://e") as client:
            return await client.post("/predict", json={"rows": [{"x": 1.0, "colour": "red"}]})

    answer = asyncio.run(ask())
    assert answer.status_code == 200, answer.text
    assert answer.json()["predictions"][0]["prediction"] in ("no", "yes")


def test_another_model_than_was_asked_for_is_not_served(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bound(home, monkeypatch, "0" * 64)
    with pytest.raises(ArtifactError, match="is to be served"):
        made.replica(made.order, made.load)


SPEC = """
name: toy
data: {source: "s3://bucket/x.parquet", target: y}
cluster:
  nodes: {workers: [{name: cpu, min: 1, max: 3, cpus: 2, memory_gb: 4}]}
  kubernetes: {image: "registry.example/raymill:1", claim: state}
"""


def test_a_service_names_its_version_and_digest(
    home: Home, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYMILL_HOME", str(home.path))
    (tmp_path / "raymill.yaml").write_text(SPEC)
    made = service("toy", tmp_path / "raymill.yaml", [], None)
    assert list(yaml.safe_load_all(to_yaml(made))) == made
    config = yaml.safe_load(made[-1]["spec"]["serveConfigV2"])["applications"][0]
    assert config["args"]["version"] == 1 and config["args"]["digest"] == bundle.digest
    with pytest.raises(UsageError, match="able to read the model"):
        service("toy", tmp_path / "raymill.yaml", ["cluster.kubernetes.claim=null"], None)
    with pytest.raises(UsageError, match="no worker group"):
        service("toy", tmp_path / "raymill.yaml", ["serving.cpus_per_replica=9"], None)


@pytest.mark.parametrize(("overrides", "told"), [
    (["serving.tls={cert: c.pem, key: k.pem}"], "without TLS"),
    (["serving.grpc_port=9000"], "no gRPC"),
    (["serving.keys=true", "cluster.kubernetes.claim=null"], "home that the pods share"),
])
def test_what_a_ray_service_has_not_is_refused(
    overrides: list[str], told: str, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYMILL_HOME", str(home.path))
    (tmp_path / "raymill.yaml").write_text(SPEC)
    with pytest.raises(UsageError, match=told):
        service("toy", tmp_path / "raymill.yaml", overrides, None)


@pytest.mark.parametrize("keys", [False, True])
def test_an_endpoint_without_keys_is_told_of(
    keys: bool, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYMILL_HOME", str(home.path))
    (tmp_path / "raymill.yaml").write_text(SPEC)
    told: list[Event] = []
    service("toy", tmp_path / "raymill.yaml", [f"serving.keys={str(keys).lower()}"], None,
            told.append)
    assert any("any pod of the namespace default" in str(event.data) for event in told) != keys


APART = ["cluster.kubernetes.claim=null", "cluster.store=s3://rows/state",
         "tracking.uri=postgresql://db/mlflow"]


def test_pods_without_a_shared_volume_fetch_the_model_from_the_store(
    s3: str, home: Home, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from raymill import served

    here = Home.find(tmp_path / "here")
    Registry(here.tracking_uri, here, store_at("s3://rows/state")).register(
        "toy", bundle, None, {}, {})
    (tmp_path / "raymill.yaml").write_text(SPEC)
    monkeypatch.setenv("RAYMILL_HOME", str(here.path))
    made = service("toy:1", tmp_path / "raymill.yaml", APART, None)
    config = yaml.safe_load(made[-1]["spec"]["serveConfigV2"])["applications"][0]
    assert config["args"]["tracking_uri"] == "postgresql://db/mlflow"
    pod = Home.find(tmp_path / "pod")
    order = Order(name="toy", version=1, digest=bundle.digest, bundle="", spec=ServingSpec(),
                  home=str(pod.path), folder=str(tmp_path), parent=0)
    contract, _ = served._load(order, tracking_uri=here.tracking_uri, factories=[], project=None)
    assert contract == bundle.contract
    assert list(pod.artifacts.rglob("model.safetensors"))
    monkeypatch.setenv("RAYMILL_HOME", str(home.path))  # there its files are on this machine only
    with pytest.raises(UsageError, match="able to read the model"):
        service("toy", tmp_path / "raymill.yaml", APART, None)


def test_a_job_needs_a_volume_or_a_store_and_a_shared_record(tmp_path: Path) -> None:
    spec = tmp_path / "raymill.yaml"
    spec.write_text(SPEC)
    claims = [volume["persistentVolumeClaim"] for manifests in (job(spec, []), job(spec, APART))
              for volume in _volumes(manifests) if "persistentVolumeClaim" in volume]
    assert claims and all(claim == {"claimName": "state"} for claim in claims)
    assert not any("persistentVolumeClaim" in volume for volume in _volumes(job(spec, APART)))
    for missing in (APART[:2], [APART[0], APART[2]]):
        with pytest.raises(UsageError, match="outlive its pods"):
            job(spec, missing)


def _volumes(document: Any) -> list[dict[str, Any]]:
    if isinstance(document, dict):
        return [*document.get("volumes", []),
                *(found for value in document.values() for found in _volumes(value))]
    return [found for value in document for found in _volumes(value)] if isinstance(
        document, list) else []
