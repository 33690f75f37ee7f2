"""MLflow on a PostgreSQL of the machine's own packages, where there is one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from raymill.tracking.home import Home
from raymill.tracking.mlflow_writer import MLflowWriter
from raymill.tracking.registry import Registry
from raymill.tracking.runs import Run
from raymill.tracking.store import open_store
from raymill.training.bundle import Bundle

# MLflow 3.17 calls a loader that SQLAlchemy 2.1 is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")
MakeBundle = Callable[[float], Bundle]


def test_runs_and_models_live_in_postgres(
    home: Home, make_bundle: MakeBundle, postgres: str
) -> None:
    with Run.begin(home, "kept", "k", "name: kept") as run:
        with MLflowWriter(postgres, "kept", run, home):
            run.journal.append("params", width=64)
            run.journal.append("artifact", path=str(run.path / "spec.yaml"), folder="spec")
        registry = Registry(postgres, home)
        for weight in (1.0, 2.0):
            registry.register("kept", make_bundle(weight), run.id, {"m": weight}, {})
    registry.promote("kept", 1)
    registry.promote("kept", 2)
    assert registry.rollback("kept").version == 1
    assert registry.was_champion("kept", 2) and not registry.was_champion("kept", 3)
    client = open_store(postgres, home)
    [parent] = client.search_runs([client.get_experiment_by_name("kept").experiment_id])
    assert (parent.info.status, parent.data.params) == ("FINISHED", {"width": "64"})
    assert [file.path for file in client.list_artifacts(parent.info.run_id)] == ["spec"]
