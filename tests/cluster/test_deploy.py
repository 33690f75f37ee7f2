"""The image, the compose file, the batch script and the launcher's YAML hold what they promise."""

from __future__ import annotations

import json
import re
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest
import yaml

from raymill.cluster.launcher import launcher_yaml
from raymill.cluster.project import Project
from raymill.cluster.slurm import batch_script
from raymill.cluster.spec import ClusterSpec
from raymill.errors import UsageError

DEPLOY = Path(__file__).parents[2] / "deploy"
PROJECT = Project("fraud", {"raymill.yaml": b""}, "raymill.yaml", ["name=it's"])


def test_the_image_is_of_locked_packages_and_no_root() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    stages = re.findall(r"^FROM (\S+)(?: AS (\S+))?", text, flags=re.MULTILINE)
    names = {name for _, name in stages}
    assert {"cpu", "cuda"} <= names
    assert all(base in names or base.startswith("python:${PYTHON}-") for base, _ in stages)
    installs = re.findall(r"pip install(?:[^&\n]|\\\n)*whl", text)
    assert len(installs) == 2 and all("constraints.txt" in line for line in installs)
    assert re.search(r"^USER 1000$", text.split(" AS base")[1], flags=re.MULTILINE)
    assert "latest" not in text and not re.search(r"(?i)password|secret", text)


def test_the_compose_file_is_closed_and_holds_no_secret() -> None:
    document = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    assert set(document["services"]) == {"postgres", "objects", "mlflow"}
    for service in document["services"].values():
        assert service["read_only"] and service["cap_drop"] == ["ALL"] and service["user"] != "0"
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        assert "limits" in service["deploy"]["resources"] and "healthcheck" in service
        assert ":latest" not in service["image"]
        plain = [key for key in service["environment"] if "PASSWORD" in key and "FILE" not in key]
        assert not plain
    assert set(document["secrets"]) == {"postgres", "objects"}
    assert re.findall(r"PASSWORD=(.+)", (DEPLOY / "example.env").read_text()) == []


def test_a_batch_script_of_slurm_is_good_bash(tmp_path: Path) -> None:
    spec = ClusterSpec.model_validate({
        "nodes": {"workers": [{"max": 3, "cpus": 16, "gpus": 2, "memory_gb": 64}]},
        "slurm": {"partition": "gpu", "time": "08:00:00", "setup": ["module load cuda"]}})
    script = tmp_path / "raymill.sbatch"
    script.write_text(batch_script(spec, PROJECT, script.name))
    subprocess.run(["bash", "-n", str(script)], check=True)
    text = script.read_text()
    for line in ("--nodes=3", "--gpus-per-node=2", "--partition=gpu", "--mem=65536M"):
        assert f"#SBATCH {line}" in text
    assert text.index("RAY_AUTH_MODE=token") < text.index("ray start")
    assert "module load cuda" in text and """'name=it'"'"'s'""" in text


def test_a_batch_job_has_one_kind_of_nodes() -> None:
    spec = ClusterSpec.model_validate({"nodes": {"workers": [{"name": "a"}, {"name": "b"}]}})
    with pytest.raises(UsageError, match="2 groups"):
        batch_script(spec, PROJECT, "x")


@pytest.mark.parametrize("launcher", [
    {"provider": "aws", "region": "eu-west-1"},
    {"provider": "gcp", "region": "europe-west1", "zone": "europe-west1-b", "project": "p"},
    {"provider": "local", "head_ip": "10.0.0.1", "worker_ips": ["10.0.0.2"]},
], ids=lambda launcher: str(launcher["provider"]))
def test_the_launchers_yaml_is_as_ray_wants_it(launcher: dict[str, object]) -> None:
    from jsonschema import Draft7Validator

    spec = ClusterSpec.model_validate({
        "nodes": {"head": {"type": "m6i.large"},
                  "workers": [{"name": "gpu", "min": 0, "max": 4, "gpus": 1, "type": "g5.xlarge"}]},
        "launcher": launcher})
    document = yaml.safe_load(launcher_yaml(spec, PROJECT))
    schema = json.loads(files("ray.autoscaler").joinpath("ray-schema.json").read_text())
    assert not list(Draft7Validator(schema).iter_errors(document))
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert "RAY_AUTH_MODE=token" in document[key][1] and "auth_token" in document[key][1]
    if launcher["provider"] != "local":
        assert document["available_node_types"]["gpu"]["resources"] == {"CPU": 4, "GPU": 1}


def test_the_launcher_says_what_it_lacks() -> None:
    with pytest.raises(UsageError, match=r"cluster\.launcher"):
        launcher_yaml(ClusterSpec(), PROJECT)
    with pytest.raises(UsageError, match="machine type"):
        launcher_yaml(ClusterSpec.model_validate(
            {"launcher": {"provider": "aws", "region": "eu-west-1"}}), PROJECT)
    with pytest.raises(ValueError, match="needs zone, project"):
        ClusterSpec.model_validate({"launcher": {"provider": "gcp", "region": "europe-west1"}})
