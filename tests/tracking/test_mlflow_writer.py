"""MLflow shows what the journal holds; an outage neither stops a run nor loses a metric."""

from __future__ import annotations

import sqlite3
import stat
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from raymill.errors import TrainingError
from raymill.events import Event
from raymill.tracking import mlflow_writer
from raymill.tracking.home import Home
from raymill.tracking.mlflow_writer import MLflowWriter, catch_up, mlflow_run_id, sync
from raymill.tracking.runs import Run
from raymill.tracking.store import open_store
from raymill.tracking.system import Meter

# MLflow 3.17 calls a loader that SQLAlchemy 2.1 is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")
DIGEST = "ab" * 32


def journal_search(run: Run) -> None:
    """What a run of two trials and a final training tells."""
    journal = run.journal
    journal.append("environment", git_commit="c0ffee", user="me", python="3.12",
                   packages=["torch==2.13.0"], command="raymill run x")
    journal.append("params", **{"model.family": "mlp", "db_password": "hunter2"})
    journal.append("dataset", name="fraud", digest=DIGEST, rows=100,
                   source=["s3://me:hunter2@payments/a.parquet"])
    for number, state in ((0, "complete"), (1, "pruned")):
        params = {"training.lr": 0.1 * (number + 1)}
        journal.append_event(Event("trial", {"number": number, "state": "running",
                                             "params": params}))
        for epoch in range(3):
            metrics = {"val_loss": 1.0 / (epoch + 1), "val_f1@0.5": 0.5}
            journal.append_event(Event("epoch", {"trial": number, "epoch": epoch,
                                                 "metrics": metrics, "rows_per_s": 1e5}))
        journal.append_event(Event("trial", {"number": number, "state": state, "params": params,
                                             "value": 0.9 - number}))
    for epoch in range(5):
        metrics = {"train_loss": 0.5 - epoch / 10}
        journal.append_event(Event("epoch", {"trial": None, "epoch": epoch, "metrics": metrics}))
    journal.append("metrics", test_roc_auc=0.93)
    report = run.path / "report.html"
    report.write_text("<h1>fraud</h1>")
    journal.append("artifact", path=str(report), folder="report")
    journal.append("model", name="fraud", version=3, digest=DIGEST)
    journal.append_event(Event("stage", {"name": "train", "status": "finished", "seconds": 2.5}))


def shown(home: Home, run: Run) -> tuple[Any, Any, list[Any]]:
    """MLflow's client, the run as MLflow has it, and its trials by number."""
    client = open_store(home.tracking_uri, home)
    run_id = mlflow_run_id(run, home.tracking_uri)
    assert run_id is not None
    parent = client.get_run(run_id)
    children = client.search_runs([parent.info.experiment_id],
                                  f"tags.`mlflow.parentRunId` = '{run_id}'")
    return client, parent, sorted(children, key=lambda c: int(c.data.tags["raymill.trial"]))


def recorded(home: Home, name: str) -> Run:
    with Run.begin(home, name, name, f"name: {name}") as run:
        with MLflowWriter(home.tracking_uri, name, run, home):
            journal_search(run)
    return run


def rows(home: Home, run_id: str) -> int:
    with closing(sqlite3.connect(home.db)) as connection:
        where = "select count(*) from metrics where run_uuid = ?"
        return int(connection.execute(where, (run_id,)).fetchone()[0])


def test_run_is_shown_whole(home: Home) -> None:
    run = recorded(home, "whole")
    client, parent, trials = shown(home, run)
    assert parent.info.status == "FINISHED"
    assert parent.info.run_name == run.id
    assert parent.data.metrics["test_roc_auc"] == 0.93
    assert parent.data.metrics["seconds/train"] == 2.5
    assert parent.data.tags["mlflow.source.git.commit"] == "c0ffee"
    assert parent.data.tags["raymill.model.version"] == "3"
    assert parent.data.params["model.family"] == "mlp"
    history = client.get_metric_history(parent.info.run_id, "train_loss")
    assert [(m.step, m.value) for m in history] == [(e, 0.5 - e / 10) for e in range(5)]
    assert [t.info.status for t in trials] == ["FINISHED", "KILLED"]
    assert [t.data.tags["raymill.state"] for t in trials] == ["complete", "pruned"]
    assert [t.data.params["training.lr"] for t in trials] == ["0.1", "0.2"]
    steps = client.get_metric_history(trials[0].info.run_id, "val_f1_0.5")
    assert [m.step for m in steps] == [0, 1, 2]


def test_the_best_trial_is_marked_and_a_better_one_takes_the_mark(home: Home) -> None:
    with Run.begin(home, "best", "best", "name: best") as run:
        with MLflowWriter(home.tracking_uri, "best", run, home):
            journal_search(run)
            run.journal.append_event(Event("place", {"trial": 1, "gpus": [2], "device": "cuda:0"}))
            run.journal.append("best", trial=0, value=0.9)
            run.journal.append("best", trial=1, value=0.95)
            run.journal.append("metrics", **Meter().read())
    _, parent, trials = shown(home, run)
    assert [t.data.tags["raymill.best"] for t in trials] == ["false", "true"]
    assert parent.data.tags["raymill.best_trial"] == "1"
    assert parent.data.metrics["best_objective"] == 0.95
    assert trials[1].data.tags["raymill.gpus"] == "2"
    assert 0 <= parent.data.metrics["system/cpu_utilization_percentage"] <= 100
    assert parent.data.metrics["system/system_memory_usage_megabytes"] > 0


def test_data_set_has_our_fingerprint(home: Home) -> None:
    run = recorded(home, "dataset")
    _, parent, _ = shown(home, run)
    dataset = parent.inputs.dataset_inputs[0].dataset
    assert dataset.digest == DIGEST[:36]
    assert DIGEST in dataset.profile


def test_files_are_in_the_home(home: Home) -> None:
    run = recorded(home, "files")
    client, parent, _ = shown(home, run)
    names = {f.path for f in client.list_artifacts(parent.info.run_id)}
    assert names == {"report", "environment"}
    assert Path(parent.info.artifact_uri).is_relative_to(home.artifacts)


def test_store_holds_no_secret_and_is_its_owners(home: Home) -> None:
    recorded(home, "secrets")
    assert stat.S_IMODE(home.db.stat().st_mode) == 0o600
    for file in home.path.glob("mlflow.db*"):
        assert b"hunter2" not in file.read_bytes()
    with closing(sqlite3.connect(home.db)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_failed_run_is_shown_as_failed(home: Home) -> None:
    with pytest.raises(TrainingError), Run.begin(home, "failing", "k", "") as run:
        with MLflowWriter(home.tracking_uri, "failing", run, home):
            run.journal.append_event(Event("trial", {"number": 0, "state": "running"}))
            raise TrainingError("the loss is not finite")
    _, parent, trials = shown(home, run)
    assert parent.info.status == "FAILED"
    assert parent.data.tags["raymill.cause"] == "TrainingError: the loss is not finite."
    assert trials[0].info.status == "KILLED"


def test_sending_all_again_changes_nothing(home: Home) -> None:
    run = recorded(home, "again")
    _, parent, trials = shown(home, run)
    before = [rows(home, r.info.run_id) for r in (parent, *trials)]
    (run.path / mlflow_writer.STATE).unlink()
    assert sync(run, home.tracking_uri, home)
    _, same, children = shown(home, run)
    assert same.info.run_id == parent.info.run_id
    assert [c.info.run_id for c in children] == [t.info.run_id for t in trials]
    assert [rows(home, r.info.run_id) for r in (same, *children)] == before
    assert len(same.inputs.dataset_inputs) == 1
    assert same.info.status == "FINISHED"


def test_resumed_run_stays_one(home: Home) -> None:
    with pytest.raises(KeyboardInterrupt), Run.begin(home, "resumed", "k", "") as run:
        with MLflowWriter(home.tracking_uri, "resumed", run, home):
            run.journal.append("metrics", a=1.0)
            raise KeyboardInterrupt
    _, first, _ = shown(home, run)
    assert first.info.status == "KILLED"
    with Run.begin(home, "resumed", "k", "") as run:
        with MLflowWriter(home.tracking_uri, "resumed", run, home):
            run.journal.append("metrics", b=2.0)
    _, second, _ = shown(home, run)
    assert second.info.run_id == first.info.run_id
    assert (second.info.status, second.data.metrics) == ("FINISHED", {"a": 1.0, "b": 2.0})


def test_outage_stops_nothing_and_is_made_up_for(
    home: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(uri: str, home: Home) -> Any:
        raise ConnectionError("refused by https://me:hunter2@mlflow")

    with Run.begin(home, "outage", "k", "") as run:
        with monkeypatch.context() as patch:
            patch.setattr(mlflow_writer, "open_store", refuse)
            began = time.monotonic()
            with MLflowWriter(home.tracking_uri, "its own", run, home, patience_s=1) as writer:
                journal_search(run)
                assert time.monotonic() - began < 1
            assert time.monotonic() - began < 4
    assert writer.unsent
    assert "does not have all of run outage" in caplog.text
    assert "hunter2" not in caplog.text
    assert run.status == "finished"
    assert catch_up(home.tracking_uri, home) >= 1
    client, parent, trials = shown(home, run)
    assert len(trials) == 2
    assert parent.info.status == "FINISHED"
    assert client.get_experiment(parent.info.experiment_id).name == "its own"


def test_what_mlflow_never_takes_does_not_hold_up_the_rest(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    with Run.begin(home, "refused", "k", "") as run:
        with MLflowWriter(home.tracking_uri, "refused", run, home) as writer:
            run.journal.append("params", lr=1)
            run.journal.append("artifact", path=str(run.path / "nothing"), folder=None)
            writer.add(Event("note", {}))
            time.sleep(3)
            run.journal.append("params", lr=2)
            run.journal.append("metrics", a=1.0)
    _, parent, _ = shown(home, run)
    assert (parent.data.params, parent.data.metrics) == ({"lr": "1"}, {"a": 1.0})
    assert "nothing is gone" in caplog.text


def test_killed_run_is_shown_as_killed_by_the_next(home: Home) -> None:
    with pytest.raises(KeyboardInterrupt), Run.begin(home, "killed", "k", "") as run:
        with MLflowWriter(home.tracking_uri, "killed", run, home):
            raise KeyboardInterrupt
    run._update(status="running")
    open_store(home.tracking_uri, home).update_run(
        str(mlflow_run_id(run, home.tracking_uri)), status="RUNNING")
    assert run.status == "dead"
    assert catch_up(home.tracking_uri, home) == 1
    assert shown(home, run)[1].info.status == "KILLED"
    assert catch_up(home.tracking_uri, home) == 0
