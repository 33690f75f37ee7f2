"""A run on a cluster whose nodes share no file system, but a store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from raymill.errors import SpecError, UsageError
from raymill.events import Event
from raymill.pipeline import run, train
from raymill.spec import spec_from
from raymill.stores import store_at

from .conftest import payments

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own deprecations


def spec(**parts: Any) -> Any:
    given = {"name": "fraud", "data": {"source": "tx.parquet", "target": "is_fraud"},
             "model": {"family": "linear"}, "training": {"epochs": 2},
             "tuning": {"trials": 2, "refit": "none"}, "cluster": {"store": "s3://rows/state"}}
    return spec_from({**given, **parts})


def test_a_run_leaves_in_the_store_what_another_machine_needs(
    s3: str, ray_local: None, tmp_path: Path
) -> None:
    parquet.write_table(payments(300), tmp_path / "tx.parquet")
    found = run(spec(), base=tmp_path, home=tmp_path / "home")
    assert not store_at("s3://rows/state/unended").names()
    trained = train(spec(), base=tmp_path, home=tmp_path / "home")
    store = store_at("s3://rows/state")
    assert store.folders() == ["data", "evaluate", "models", "runs", "search", "train"]
    assert not list((tmp_path / "home/cache").glob("data/*"))  # nothing is written twice
    [model] = (store / "models/fraud").folders()
    assert found.trained.digest.startswith(model)
    [run_] = [name for name in (store / "runs").folders() if name == found.run_id]
    assert {"journal.jsonl", "report.html", "spec.yaml"} <= set((store / "runs" / run_).names())
    [search] = (store / "search").folders()
    assert (store / "search" / search / "trials").folders() == [str(found.search.best_trial)]

    said: list[Event] = []  # another machine: it has neither the home nor the disk
    again = run(spec(), base=tmp_path, home=tmp_path / "other", notify=said.append)
    done = {event.data["name"]: event.data["status"] for event in said if event.kind == "stage"}
    assert [done[name] for name in ("prepare data", "search", "train", "evaluate")] == ["skipped"] * 4
    assert again.trained.digest == found.trained.digest
    said.clear()  # a model that was not registered: its checkpoints were published
    other = train(spec(), base=tmp_path, home=tmp_path / "other", notify=said.append)
    assert other.history == trained.history and not [e for e in said if e.kind == "epoch"]
    weights, others = ((made.bundle / "model.safetensors").read_bytes()
                       for made in (trained, other))
    assert weights == others


def test_what_a_store_does_not_take_is_refused_before_any_work(s3: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="takes whole checkpoints, not fsdp's"):
        spec(training={"strategy": "fsdp", "workers": 2})
    for wrong in ("rows/state", "s3://rows", "s3://me:hunter2@rows/x", "s3://rows/x?key=hunter2"):
        with pytest.raises(SpecError, match="a store is s3://bucket/prefix") as caught:
            spec(cluster={"store": wrong})
        assert "hunter2" not in str(caught.value)
    with pytest.raises(UsageError, match=r"cluster\.store must be"):
        run(spec(cluster={"store": "s3://none-such/x"}), base=tmp_path, home=tmp_path / "home")
    assert not list((tmp_path / "home" / "runs").iterdir())


KILLED = """
import os, signal, sys, time
from pathlib import Path
from raymill import stored_runs
from raymill.pipeline import run
from raymill.tuning import storage
from tests.road.test_store import going_on

storage.SHIPPED_S = stored_runs.SHIPPED_S = 0.2
stage = ""

def notify(event):
    global stage
    if event.kind == "stage":
        stage = event.data["name"]
    if event.kind == "trial" and event.data["state"] == "complete" and sys.argv[2] == "search":
        time.sleep(2)  # for what lags behind
        os.kill(os.getpid(), signal.SIGKILL)
    third = event.kind == "epoch" and event.data["metrics"]["epoch"] == 3
    if third and stage == sys.argv[2] == "train":
        os.kill(os.getpid(), signal.SIGKILL)  # the first epoch's checkpoint is published by now

base = Path(sys.argv[1])
run(going_on(), base=base, home=base / f"killed-in-{sys.argv[2]}", notify=notify)
"""


def going_on() -> Any:
    return spec(model={"family": "mlp"}, training={"epochs": 8, "patience": None},
                tuning={"trials": 3, "concurrency": 1, "refit": "scratch"},
                cluster={"store": "s3://rows/going-on", "cpus": 2})


@pytest.mark.timeout(400)
def test_a_killed_run_goes_on_on_a_machine_with_an_empty_disk(
    s3: str, ray_local: None, tmp_path: Path
) -> None:
    parquet.write_table(payments(300), tmp_path / "tx.parquet")
    root = Path(__file__).parents[2]
    for stage in ("search", "train"):
        done = subprocess.run([sys.executable, "-c", KILLED, tmp_path, stage], cwd=root,
                              env={**os.environ, "PYTHONPATH": f"{root}:{root / 'src'}"},
                              check=False, capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
    said: list[Event] = []
    found = run(going_on(), base=tmp_path, home=tmp_path / "last", notify=said.append)
    texts = [event.data["text"] for event in said if event.kind == "note"]
    assert any(text.endswith("(goes on)") for text in texts)
    done_ = {e.data["name"]: e.data["status"] for e in said if e.kind == "stage"}
    assert (done_["prepare data"], done_["search"]) == ("skipped", "skipped")
    assert len(found.search.trials) >= 3
    assert any("goes on after epoch" in text for text in texts)
    [run_] = store_at("s3://rows/going-on/runs").folders()  # one run, on three machines
    assert run_ == found.run_id
    resumed = [line for line in (tmp_path / "killed-in-train/runs" / run_ / "journal.jsonl")
               .read_text().splitlines() if "of 3 trials were finished before" in line]
    assert len(resumed) == 1
