"""The road from data to an answered request, as a user walks it."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from .conftest import Process, Raymill, typed

pytestmark = pytest.mark.timeout(600)
URL = "http://127.0.0.1:8000"  # of the README's service


def test_the_readmes_commands_go_from_a_table_to_answers(walked: dict[str, Process]) -> None:
    assert walked["predict"].stdout.count('"prediction"') == 5


def test_a_run_trains_measures_gates_and_registers(ran: dict[str, Any]) -> None:
    assert ran["ok"] and ran["version"] == 1 and ran["alias"] == "champion"
    assert ran["data"]["total_rows"] == 800
    assert ran["test"]["roc_auc"]["value"] > 0.6
    assert set(ran["baselines"]) >= {"constant", "linear", "boosting"}
    assert len(ran["trials"]) == 8
    assert Path(ran["report"]).read_text().startswith("<!")


def test_what_did_not_change_is_not_done_again(again: Process, ran: dict[str, Any]) -> None:
    for stage in ("search", "train"):
        assert f"{stage} skipped" in again.stderr
    assert ran["version"] == 1


def test_the_bundle_holds_no_pickle_and_a_flipped_byte_is_refused(
    ran: dict[str, Any], tmp_path: Path
) -> None:
    import shutil

    import raymill as rm
    from raymill.errors import ArtifactError

    bundle = Path(ran["bundle"])
    assert {path.suffix for path in bundle.iterdir()} == {".safetensors", ".json"}
    copy = tmp_path / "bundle"
    shutil.copytree(bundle, copy)
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"model\.safetensors"):
        rm.load_model(copy)


def test_mlflow_shows_parent_trials_epochs_and_the_champion(
    folder: Path, ran: dict[str, Any]
) -> None:
    code = """
import json, sys, warnings
warnings.simplefilter("ignore")
import mlflow
mlflow.set_tracking_uri(sys.argv[1])
client = mlflow.MlflowClient()
experiment = client.get_experiment_by_name("fraud")
runs = client.search_runs([experiment.experiment_id], max_results=100)
parents = {r.info.run_id: r for r in runs if "mlflow.parentRunId" not in r.data.tags}
children = [r for r in runs if r.data.tags.get("mlflow.parentRunId") in parents]
parent = parents[children[0].data.tags["mlflow.parentRunId"]]
assert "test_roc_auc" in parent.data.metrics
epochs = [len(client.get_metric_history(c.info.run_id, "val_roc_auc")) for c in children]
version = client.get_model_version_by_alias("fraud", "champion")
model = mlflow.pyfunc.load_model("models:/fraud@champion")
print(json.dumps({"children": len(children), "epochs": epochs, "version": int(version.version),
                  "signature": model.metadata.signature is not None}))
"""
    uri = f"sqlite:///{folder / '.raymill' / 'mlflow.db'}"
    done = subprocess.run([sys.executable, "-c", code, uri], cwd=folder, text=True,
                          capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["children"] == 8 and min(seen["epochs"]) >= 1
    assert seen["version"] == ran["version"] and seen["signature"]


def test_the_endpoint_answers_as_the_loaded_model_does(
    raymill: Raymill, ran: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import httpx
    import pandas as pd

    import raymill as rm

    monkeypatch.setenv("RAYMILL_HOME", str(folder / ".raymill"))
    frame = pd.read_parquet(folder / "tx.parquet").head(200).drop(columns="is_fraud")
    frame.to_csv(folder / "rows.csv", index=False)
    answers = json.loads(raymill("predict", "fraud", "--input", "rows.csv", "--json").stdout)
    loaded = rm.load_model("fraud:1").predict(frame)
    assert len(answers["predictions"]) == 200
    for answer, (_, row) in zip(answers["predictions"], loaded.iterrows(), strict=True):
        assert answer["prediction"] == row["prediction"]
        for name, p in answer["probability"].items():
            assert math.isclose(p, row[f"probability_{name}"], abs_tol=1e-6)
    _refusals(httpx, URL, json.loads((folder / "rows.jsonl").read_text().splitlines()[0]))


def test_a_service_stops_and_mlflows_ui_opens_and_ends(
    raymill: Raymill, walked: dict[str, Process], folder: Path
) -> None:
    *_, stop, ui = typed()
    stopped = raymill(*stop)
    assert stopped.returncode == 0, stopped.stderr
    command = [sys.executable, "-m", "raymill", *ui, "--port", "5057"]
    environment = {**os.environ, "RAYMILL_HOME": str(folder / ".raymill")}
    with subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            _until_answers("http://127.0.0.1:5057/health", process)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise
    assert process.returncode == 130


def _until_answers(url: str, process: subprocess.Popen[bytes]) -> None:
    import httpx

    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(url, timeout=2, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    raise AssertionError(f"{url} did not answer")


def _refusals(httpx: Any, url: str, row: dict[str, Any]) -> None:
    """Bad requests get 4xx, a problem document, and no value of theirs back."""
    first = next(iter(row))
    bad: list[tuple[dict[str, Any], int, str]] = [
        ({"content": b"{"}, 400, ""),
        ({"content": b"[]"}, 400, ""),
        ({"json": {"rows": []}}, 422, ""),
        ({"json": {"rows": [{**row, first: "secret-value"}]}}, 422, first),
        ({"json": {"rows": [{**row, "extra": 1}]}}, 422, "extra"),
        ({"json": {"rows": [{k: v for k, v in row.items() if k != first}]}}, 422, first),
        ({"json": {"rows": [row, {**row, first: None}]}}, 422, first),
        ({"content": b'{"rows": [{"a": NaN}]}'}, 400, ""),
        ({"content": b"[" * 100_000}, 400, ""),
    ]
    for request, status, field in bad:
        headers = {"content-type": "application/json"}
        answer = httpx.post(f"{url}/predict", headers=headers, timeout=30, trust_env=False,
                            **request)
        assert answer.status_code in (status, 422 if status == 400 else status), answer.text
        assert "secret-value" not in answer.text and field in answer.text
        assert answer.headers["content-type"].startswith("application/problem+json")
    assert httpx.get(f"{url}/predict", timeout=10, trust_env=False).status_code == 405
    assert httpx.get(f"{url}/nowhere", timeout=10, trust_env=False).status_code == 404


def test_a_refused_gate_exits_3_then_promote_rollback_and_the_audit_log(
    raymill: Raymill, ran: dict[str, Any], folder: Path
) -> None:
    listed = json.loads(raymill("models", "--json").stdout)["models"]
    assert [m["version"] for m in listed] == [1] and "champion" in listed[0]["aliases"]
    done = raymill("run", "fraud/raymill.yaml", "--json",
                   "--set", "objective.gates=['roc_auc > 1']",
                   "--set", "training.seed=1", "--set", "tuning.trials=0")
    refused = json.loads(done.stdout)
    assert done.returncode == 3 and refused["version"] == 2, done.stderr
    assert refused["alias"] == "challenger"
    assert not refused["gates"][0]["passed"] and "not > 1" in refused["gates"][0]["why"]
    assert raymill("promote", "fraud", "2").returncode == 0
    back = json.loads(raymill("rollback", "fraud", "--json").stdout)
    assert back["version"] == 1
    audit = [json.loads(line) for line in
             (folder / ".raymill" / "audit.jsonl").read_text().splitlines()]
    assert [e["action"] for e in audit][-2:] == ["promote", "rollback"]


def _search_ledger(home: Path) -> list[dict[str, Any]]:
    journals = list(home.glob("runs/*/journal.jsonl"))
    lines = [json.loads(line) for path in journals for line in path.read_text().splitlines() if line]
    return [line for line in lines if line["kind"] == "trial"]


def test_a_killed_run_does_not_run_finished_trials_again(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "raymill.yaml").write_text(
        f"name: killed\ndata: {{source: {folder / 'tx.parquet'}, target: is_fraud}}\n"
        "training: {epochs: 8}\ntuning: {trials: 6, concurrency: 1, scheduler: none}\n"
        "objective: {bootstrap: 200}\n")
    home = tmp_path / ".raymill"
    command = [sys.executable, "-m", "raymill", "run", "raymill.yaml", "--json"]
    environment = {**os.environ, "RAYMILL_HOME": str(home)}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 180
        while sum(t["data"]["state"] == "complete" for t in _search_ledger(home)) < 2:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
    finished = {t["data"]["number"] for t in _search_ledger(home)
                if t["data"]["state"] == "complete"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, text=True, capture_output=True,
                          timeout=280, check=False)
    assert done.returncode in (0, 3), done.stderr
    document = json.loads(done.stdout)
    assert sum(t["state"] == "complete" for t in document["trials"]) == 6
    started_again = [t for t in _search_ledger(home) if t["data"]["state"] == "complete"]
    counts = {number: sum(t["data"]["number"] == number for t in started_again)
              for number in finished}
    assert set(counts.values()) == {1}
