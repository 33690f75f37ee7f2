"""What is sent to a cluster: the spec, its contract and own code; never data, never a secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from raymill.errors import SpecError, UsageError
from raymill.package import pack

SPEC = "name: p\ndata: {source: rows.csv, target: y}\nmodel: {family: 'own:build'}\n"


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    (tmp_path / "raymill.yaml").write_text(SPEC)
    (tmp_path / "rows.csv").write_text("a,y\n1,0\n")
    (tmp_path / "own.py").write_text("def build(schema):\n    return None\n")
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "part.py").write_text("A = 1\n")
    return tmp_path / "raymill.yaml"


def test_own_code_goes_along_and_data_stays(spec: Path) -> None:
    _, project = pack(spec, ["training.epochs=2"], ["B", "A", "A"], "same files")
    assert set(project.files) == {"raymill.yaml", "own.py", "pkg/part.py"}
    assert project.settings == ["training.epochs=2", f'data.source=["{spec.parent}/rows.csv"]']
    assert project.variables == ["A", "B"]
    command = project.command()
    assert command[:3] == ["raymill", "run", "raymill.yaml"] and "cluster.address=auto" in command


def test_other_machines_need_data_that_they_see(spec: Path) -> None:
    with pytest.raises(UsageError, match=r"must see data\.source"):
        pack(spec, [])
    _, project = pack(spec, ["data.source=s3://bucket/rows.csv"])
    assert project.settings == ["data.source=s3://bucket/rows.csv"]


@pytest.mark.parametrize("override", [
    "tracking.uri=postgresql://me:hunter2@db/mlflow",
    "data.source=s3://bucket/x.csv?secret_key=hunter2",
])
def test_a_spec_with_a_password_is_not_sent(spec: Path, override: str) -> None:
    with pytest.raises(SpecError, match="no password") as refused:
        pack(spec, [override], where="same files")
    assert "hunter2" not in str(refused.value)


def test_a_user_without_a_password_is_no_secret(spec: Path) -> None:
    pack(spec, ["tracking.uri=postgresql://me@db/mlflow"], where="same files")


def test_the_size_of_a_local_ray_stays_at_home(spec: Path) -> None:
    _, project = pack(spec, ["cluster.cpus=2"], where="same files")
    assert project.settings[-1] == "cluster.cpus=null"


def test_a_contract_elsewhere_is_refused(spec: Path) -> None:
    with pytest.raises(SpecError, match="spec's folder"):
        pack(spec, ["data.contract=../contract.yaml"], where="same files")
