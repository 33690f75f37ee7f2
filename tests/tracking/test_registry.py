"""The registry: versions are whole, aliases move with an audit, and files are what they were."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow.models
import pytest

from raymill.data.contract import Contract
from raymill.errors import ArtifactError, UsageError
from raymill.stores import store_at
from raymill.tracking import registry as registry_module
from raymill.tracking.audit import Audit
from raymill.tracking.home import Home
from raymill.tracking.mlflow_writer import MLflowWriter, mlflow_run_id
from raymill.tracking.model_folder import example
from raymill.tracking.registry import Registry
from raymill.tracking.runs import Run
from raymill.tracking.store import StoreError, open_store
from raymill.training.bundle import Bundle

# MLflow 3.17 calls a loader that SQLAlchemy 2.1 is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")
MakeBundle = Callable[[float], Bundle]


@pytest.fixture
def registry(home: Home) -> Registry:
    return Registry(home.tracking_uri, home)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def aliases(registry: Registry, name: str) -> dict[str, int]:
    return {alias: v.version for v in registry.versions(name) for alias in v.aliases}


def test_version_holds_the_bundle_as_it_is(registry: Registry, make_bundle: MakeBundle) -> None:
    bundle = make_bundle(1.0)
    made = registry.register("whole", bundle, None, {"test_roc_auc": 0.9}, {"gates": "passed"})
    assert (made.version, made.digest, made.aliases) == (1, bundle.digest, ("challenger",))
    assert (made.metrics, made.tags["gates"]) == ({"test_roc_auc": 0.9}, "passed")
    assert made.bundle_path is not None
    assert content(made.bundle_path) == content(bundle.path)
    assert made.bundle_path.is_relative_to(registry.home.artifacts)


def test_same_bundle_is_the_same_version(registry: Registry, make_bundle: MakeBundle) -> None:
    first = registry.register("twice", make_bundle(1.0), None, {}, {})
    again = registry.register("twice", make_bundle(1.0), None, {}, {})
    other = registry.register("twice", make_bundle(2.0), None, {}, {})
    assert (first.version, again.version, other.version) == (1, 1, 2)
    assert aliases(registry, "twice") == {"challenger": 2}


def test_version_belongs_to_its_run(home: Home, make_bundle: MakeBundle) -> None:
    uri = home.tracking_uri
    with Run.begin(home, "lineage", "k", "") as run, MLflowWriter(uri, "lineage", run, home):
        pass
    made = Registry(uri, home).register("lineage", make_bundle(1.0), run.id, {}, {})
    assert made.run_id == run.id
    shown = open_store(uri, home).get_model_version("lineage", "1")
    assert shown.run_id == mlflow_run_id(run, uri)


@pytest.mark.parametrize("when", ["create_model_version", "set_registered_model_alias"])
def test_killed_register_leaves_no_half_version(
    registry: Registry, make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    name = f"killed.{when}"
    client = open_store(registry.uri, registry.home)
    whole = registry_module.open_store

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(registry_module, "open_store", lambda *_: client)
        patch.setattr(client, when, die)
        with pytest.raises(KeyboardInterrupt):
            registry.register(name, make_bundle(1.0), None, {}, {})
    assert registry_module.open_store is whole
    half = registry.versions(name)
    assert len(half) == (when == "set_registered_model_alias")
    made = registry.register(name, make_bundle(1.0), None, {}, {})
    assert (made.version, made.aliases) == (1, ("challenger",))
    assert [v.version for v in registry.versions(name)] == [1]
    assert not list((registry.home.artifacts / "models" / name).glob(".*"))


def test_promote_and_rollback_move_the_aliases(
    registry: Registry, make_bundle: MakeBundle
) -> None:
    assert registry.champion("road") is None
    for weight in (1.0, 2.0):
        registry.register("road", make_bundle(weight), None, {}, {})
    registry.promote("road", 1, actor="me", reason="first")
    assert aliases(registry, "road") == {"champion": 1, "challenger": 2}
    registry.promote("road", 2, actor="me")
    assert aliases(registry, "road") == {"champion": 2, "previous": 1}
    back = registry.rollback("road", actor="me", reason="alarms")
    assert (back.version, aliases(registry, "road")) == (1, {"champion": 1, "previous": 2})
    champion = registry.champion("road")
    assert champion is not None
    assert champion.version == 1
    told = [(e["action"], e["data"].get("version"), e["data"].get("was"))
            for e in Audit(registry.home.audit).read() if e["data"]["name"] == "road"]
    assert told == [("register", None, None)] * 2 + [
        ("promote", 1, None), ("promote", 2, 1), ("rollback", 1, 2)]
    assert Audit(registry.home.audit).verify() >= 5


def test_promoting_the_champion_changes_nothing(
    registry: Registry, make_bundle: MakeBundle
) -> None:
    registry.register("same", make_bundle(1.0), None, {}, {})
    registry.promote("same", 1)
    before = Audit(registry.home.audit).verify()
    registry.promote("same", 1)
    assert aliases(registry, "same") == {"champion": 1}
    assert Audit(registry.home.audit).verify() == before


def test_promotion_is_refused_when_the_champion_changed(
    registry: Registry, make_bundle: MakeBundle
) -> None:
    for weight in (1.0, 2.0, 3.0):
        registry.register("raced", make_bundle(weight), None, {}, {})
    registry.promote("raced", 2)
    with pytest.raises(UsageError, match="version 1 of raced must be the champion still"):
        registry.promote("raced", 3, expected=1)
    assert aliases(registry, "raced")["champion"] == 2
    assert registry.promote("raced", 3, expected=2).version == 3


def test_references(registry: Registry, make_bundle: MakeBundle) -> None:
    for weight in (1.0, 2.0):
        registry.register("refs", make_bundle(weight), None, {}, {})
    registry.promote("refs", 1)
    assert [registry.resolve(ref).version
            for ref in ("refs", "refs@challenger", "refs:2")] == [1, 2, 2]
    for ref, told in [("refs@nobody", "champion"), ("refs:9", "one of 1, 2"), ("none", "refs"),
                      ("refs:x", "NAME:VERSION"), ("../etc", "letters"), ("a'b", "letters")]:
        with pytest.raises(UsageError, match=told):
            registry.resolve(ref)
    with pytest.raises(UsageError, match="earlier champion"):
        registry.rollback("refs")


@pytest.mark.parametrize("file", ["model.safetensors", "contract.json", "manifest.json"])
def test_flipped_byte_is_refused(
    registry: Registry, make_bundle: MakeBundle, file: str
) -> None:
    name = f"flipped.{file}"
    made = registry.register(name, make_bundle(1.0), None, {}, {})
    assert made.bundle_path is not None
    path = made.bundle_path / file
    broken = bytearray(path.read_bytes())
    broken[len(broken) // 2] ^= 1
    path.write_bytes(broken)
    with pytest.raises(ArtifactError, match="manifest" if file == "manifest.json" else file):
        registry.resolve(f"{name}:1")
    with pytest.raises(ArtifactError):
        registry.promote(name, 1)
    assert aliases(registry, name) == {"challenger": 1}


def test_resolve_verifies_without_torch(registry: Registry, make_bundle: MakeBundle) -> None:
    registry.register("light", make_bundle(1.0), None, {}, {})
    registry.promote("light", 1)
    code = ("import sys; from pathlib import Path; from raymill.tracking.home import Home;"
            "from raymill.tracking.registry import Registry; home = Home(Path(sys.argv[1]));"
            "print(Registry(home.tracking_uri, home).resolve('light').version,"
            "      [m for m in ('torch', 'ray') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code, str(registry.home.path)], text=True,
                          capture_output=True, check=True)
    assert done.stdout.strip() == "1 []"


def test_swapped_bundle_with_a_manifest_of_its_own_is_refused(
    registry: Registry, make_bundle: MakeBundle
) -> None:
    made = registry.register("swapped", make_bundle(1.0), None, {}, {})
    other = make_bundle(2.0)
    assert made.bundle_path is not None
    for path in other.path.iterdir():
        (made.bundle_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ArtifactError, match="its digest differs"):
        registry.resolve("swapped:1")


def test_store_that_does_not_answer_is_told_without_its_password(
    home: Home, make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    registry = Registry("http://me:hunter2@127.0.0.1:9/", home)
    with pytest.raises(StoreError, match="must answer") as caught:
        registry.register("unreached", make_bundle(1.0), None, {}, {})
    assert "hunter2" not in str(caught.value)


def test_example_is_made_up_and_has_nothing_sensitive(make_bundle: MakeBundle) -> None:
    row = example(make_bundle(1.0).contract)
    assert row == {"amount": 50.0, "count": 2, "shop": "web", "name": "text",
                   "time": "2026-01-01T00:00:00"}
    contract = Contract.model_validate(
        {"target": "y", "task": "regression",
         "columns": {"picture": {"type": "binary", "kind": "image"},
                     "y": {"type": "float64", "kind": "numeric"}}})
    assert example(contract)["picture"].startswith("iVBOR")


def test_mlflow_reads_signature_and_example(
    registry: Registry, make_bundle: MakeBundle
) -> None:
    made = registry.register("described", make_bundle(1.0), None, {}, {})
    info = mlflow.models.get_model_info(made.source)
    assert info.signature is not None
    assert info.signature.inputs.input_names() == ["amount", "count", "shop", "name", "time"]
    assert info.signature.outputs.input_names() == ["prediction", "probability_no",
                                                    "probability_yes"]
    frame = mlflow.models.Model.load(made.source).load_input_example(made.source)
    assert frame.to_dict("records")[0]["amount"] == 50.0
    flavor = info.flavors["python_function"]
    assert (flavor["data"], flavor["digest"]) == ("bundle", made.digest)
    json.dumps(made.to_dict())


def test_files_in_a_store_are_fetched_by_their_digest_on_another_machine(
    s3: str, home: Home, make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, bundle = store_at(f"s3://rows/{tmp_path.name}"), make_bundle(3.0)
    here = Registry(home.tracking_uri, home, store)

    def killed(name: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(registry_module, "failpoint", killed)
        here.register("away", bundle, None, {}, {})
    assert here.versions("away") == []
    made = here.register("away", bundle, None, {}, {})
    assert (made.version, made.source) == (1, f"{store}/models/away/{bundle.digest[:32]}")
    there = Registry(home.tracking_uri, Home.find(tmp_path / "there"))
    found = there.resolve("away:1")
    assert found.bundle_path is not None
    assert found.bundle_path.is_relative_to(tmp_path / "there")
    assert content(found.bundle_path) == content(bundle.path)
    place = store_at(made.source) / "bundle"
    place.write("model.safetensors", place.read("model.safetensors") + b"x")
    third = Registry(home.tracking_uri, Home.find(tmp_path / "third"))
    with pytest.raises(ArtifactError, match="must be as it was written"):
        third.resolve("away:1")
    place.remove()
    with pytest.raises(ArtifactError, match=r"s3://.*where its version says") as caught:
        third.resolve("away:1")
    assert "testing" not in str(caught.value)
