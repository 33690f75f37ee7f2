"""A model changes in a service on Ray: its replicas stay, and every request is answered."""

from __future__ import annotations

from pathlib import Path

import httpx

from raymill.ports import free_port
from raymill.serving import change, service
from raymill.serving.plan import acks
from raymill.serving.spec import ReplicasSpec, ServingSpec
from raymill.tracking.home import Home
from raymill.tracking.registry import Registry

from .models import small_bundle
from .test_conductor import load, rollout, said, terms, until, versions


def test_a_canary_completes_and_goes_back_without_a_new_replica(tmp_path: Path) -> None:
    home = Home.find(tmp_path / "home")
    registry = Registry(home.tracking_uri, home)
    for factor in (1.0, 1.0001):
        bundle = small_bundle(tmp_path / str(factor), change=lambda weight, by=factor: weight * by)
        registry.register("toy", bundle, None, {}, {})
    champion = registry.promote("toy", 1)
    spec = ServingSpec(port=free_port(), replicas=ReplicasSpec(min=1, max=1))
    served = service.start_detached(champion, spec, home.path, lambda event: None)
    try:
        replicas = {path.name for path in (Path(served.folder) / "acks").iterdir()}
        with load(served) as seen:
            change.begin(served, registry.resolve("toy@challenger"), terms(canary=0.5), actor="t",
                         said=said)
            until(lambda: rollout(registry).state == "completed")
            until(lambda: versions(served) == {2})
            assert service.status(home.path, "toy")[0].version == 2
            change.rollback(served, lambda: champion, actor="t", reason="", said=said)
            assert versions(served) == {1}
        assert {version for _, version in seen} == {1, 2}
        assert {path.name for path in (Path(served.folder) / "acks").iterdir()} == replicas
        assert len(acks(Path(served.folder))) == len(replicas) == 1
        assert 'version="2"} 0.0' in httpx.get(served.url + "/metrics").text
    finally:
        service.stop(home.path, "toy")
    assert registry.resolve("toy").version == 1
    actions = [entry["action"] for entry in registry.audit.read() if entry["action"] != "register"]
    assert actions[1:] == ["rollout start", "rollout step", "rollout step", "promote",
                           "rollout complete", "rollback"]
