"""A search killed in the middle goes on where it was."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tuning_problem import project

from raymill.tuning.storage import held

SCRIPT = """
import json, sys
from pathlib import Path
import ray
here, out, own = sys.argv[1:]
sys.path.insert(0, here)
from tuning_problem import FakePrepared
from raymill.training.spec import ModelSpec, TrainingSpec
from raymill.tuning import budget
from raymill.tuning.search import search
from raymill.tuning.spec import Dimension, TuningSpec

def notify(event):
    if event.kind == "trial":
        print(json.dumps(event.data), flush=True)

budget._WRITE_EVERY_S = 0.5
ray.init(address="local", num_cpus=2, log_to_driver=False, include_dashboard=False)
result = search(
    ModelSpec(family="own:build"), TrainingSpec(epochs=4, patience=None, loop="own:slow"), None,
    TuningSpec(trials=5, concurrency=1, scheduler="none",
               space={"model.noise": Dimension(low=0.0, high=4.0)}),
    FakePrepared(), Path(out), notify, own,
)
print(json.dumps({"resumed": result.resumed, "trials": len(result.trials)}), flush=True)
ray.shutdown()
"""


def start(tmp_path: Path) -> subprocess.Popen[str]:
    own = project(tmp_path / "own")
    command = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(tmp_path / "out"), own]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                            start_new_session=True)


def epochs(tmp_path: Path) -> int:
    """How many epochs were trained, by whichever search."""
    path = tmp_path / "own" / "epochs"
    return len(path.read_text().splitlines()) if path.exists() else 0


def storage(path: Path) -> Any:
    import optuna

    return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))


@pytest.mark.timeout(240)
def test_a_killed_search_runs_no_finished_trial_again_and_goes_on_in_the_running_one(
    tmp_path: Path
) -> None:
    import optuna

    process = start(tmp_path)
    assert process.stdout is not None
    before = []
    for line in process.stdout:
        before.append(json.loads(line))
        if before[-1]["number"] == 2 and before[-1]["state"] == "running":
            break
    while epochs(tmp_path) < 4 + 4 + 3:  # into the third trial's last epoch but one
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()

    with held(tmp_path / "out", "journal") as book:
        spent = optuna.load_study(study_name=None, storage=book).user_attrs["spent"]
    assert spent["wall_s"] > 1  # the killed search's time counts

    resumed = start(tmp_path)
    output, _ = resumed.communicate(timeout=180)
    *after, last = [json.loads(line) for line in output.splitlines()]
    assert last == {"resumed": 2, "trials": 5}
    lost = next(e for e in before if e["number"] == 2)
    assert after[0]["state"] == "running"
    assert after[0]["params"] == lost["params"]
    assert len([e for e in after if e["state"] == "running"]) == 3
    assert epochs(tmp_path) <= 5 * 4 + 2  # the epoch that was cut, and one not on disk yet

    study = optuna.load_study(study_name=None, storage=storage(tmp_path / "out" / "study.journal"))
    states = [trial.state.name for trial in study.trials]
    assert states.count("COMPLETE") == 5
    assert "RUNNING" not in states
    assert "WAITING" not in states
    gone_on = study.trials[-3]
    assert gone_on.user_attrs["again_of"] == 2
    assert sorted(gone_on.intermediate_values) == [1, 2, 3, 4]
    assert not (tmp_path / "out" / "scratch").exists()
    assert not (tmp_path / "out" / "trials").exists()
