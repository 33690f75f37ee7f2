"""Runs: one at a time, resumed when they did not end, and truthful about how they ended."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from raymill.errors import TrainingError, UsageError
from raymill.tracking.home import Home
from raymill.tracking.runs import Run


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.find(tmp_path / "home")


def begin_and_die(home: Home, how: str) -> subprocess.Popen[str]:
    """A process that begins a run of key `k`, says its id, then does `how`."""
    code = (
        "import os, sys, time; from pathlib import Path\n"
        "from raymill.tracking.home import Home; from raymill.tracking.runs import Run\n"
        f"with Run.begin(Home.find(Path({str(home.path)!r})), 'fraud', 'k', 'name: fraud') as run:\n"
        f"    print(run.id, flush=True); {how}\n"
    )
    return subprocess.Popen([sys.executable, "-c", code], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def test_run_that_ends_well_is_finished(home: Home) -> None:
    with Run.begin(home, "fraud", "k", "name: fraud") as run:
        assert run.status == "running"
        assert run.spec_yaml == "name: fraud"
    assert Run.open(home, run.id).status == "finished"
    assert [e.data["status"] for e in run.journal.read()] == ["running", "finished"]


@pytest.mark.parametrize(
    ("error", "status"), [(TrainingError("no"), "failed"), (KeyboardInterrupt(), "interrupted")]
)
def test_error_is_the_end_of_a_run(home: Home, error: BaseException, status: str) -> None:
    with pytest.raises(type(error)), Run.begin(home, "fraud", "k", "") as run:
        raise error
    assert run.status == status


def test_cause_of_a_failure_holds_no_password(home: Home) -> None:
    with pytest.raises(TrainingError), Run.begin(home, "fraud", "k", "") as run:
        raise TrainingError("no answer from postgresql://me:hunter2@db/x?password=hunter3")
    assert "hunter" not in str(run.to_dict()) + run.journal.path.read_text()


def test_kept_spec_holds_no_password_and_stays_yaml(home: Home) -> None:
    spec = {"tracking": {"uri": "postgresql://me:hunter2@db/mlflow?password=hunter3&n=1"},
            "model": {"token_width": 64}}
    with Run.begin(home, "fraud", "k", yaml.safe_dump(spec)) as run:
        kept = yaml.safe_load(run.spec_yaml)
    assert kept["tracking"]["uri"] == "postgresql://***@db/mlflow?password=***&n=1"
    assert kept["model"] == spec["model"]


def test_interrupted_run_goes_on_under_its_id(home: Home) -> None:
    with pytest.raises(KeyboardInterrupt), Run.begin(home, "fraud", "k", "") as first:
        raise KeyboardInterrupt
    with Run.begin(home, "fraud", "k", "") as second:
        assert (second.id, second.resumed) == (first.id, True)


def test_ended_run_and_other_specs_begin_anew(home: Home) -> None:
    with Run.begin(home, "fraud", "k", "") as first:
        pass
    with pytest.raises(KeyboardInterrupt), Run.begin(home, "fraud", "k", "") as second:
        raise KeyboardInterrupt
    with Run.begin(home, "fraud", "other", "") as third:
        assert not third.resumed
    assert len({first.id, second.id, third.id}) == 3
    assert [run.id for run in Run.list(home, "fraud")] == [first.id, second.id, third.id]
    assert Run.list(home, "churn") == []


def test_same_spec_is_refused_while_it_runs(home: Home) -> None:
    with Run.begin(home, "fraud", "k", "") as run:
        with pytest.raises(UsageError, match=rf"{run.id} is going on \(process {os.getpid()}\)"):
            with Run.begin(home, "fraud", "k", ""):
                pass
        assert run.status == "running"


def test_killed_run_is_dead_and_goes_on(home: Home) -> None:
    with begin_and_die(home, "time.sleep(60)") as process:
        assert process.stdout is not None
        id = process.stdout.readline().strip()
        assert Run.open(home, id).status == "running"
        process.send_signal(signal.SIGKILL)
    assert Run.open(home, id).status == "dead"
    with Run.begin(home, "fraud", "k", "") as run:
        assert (run.id, run.resumed) == (id, True)


def test_only_one_of_many_that_start_at_once_runs(home: Home) -> None:
    processes = [begin_and_die(home, "time.sleep(4)") for _ in range(4)]
    said = [process.communicate()[0].strip() for process in processes]
    assert sorted(map(bool, said)) == [False, False, False, True]
    assert [run.id for run in Run.list(home)] == [id for id in said if id]


def test_files_are_for_their_owner(home: Home) -> None:
    with Run.begin(home, "fraud", "k", "") as run:
        for path in run.path.iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("id", ["", "../x", "a/b", ".begin.lock", "nothing"])
def test_id_that_is_none_of_ours_is_refused(home: Home, id: str) -> None:
    with pytest.raises(UsageError, match="there is no"):
        Run.open(home, id)


def test_end_counts_once(home: Home) -> None:
    with Run.begin(home, "fraud", "k", "") as run:
        run.end(TrainingError("lost workers"))
    assert run.to_dict()["cause"] == "TrainingError: lost workers."


def test_environment_is_told_without_the_packages(home: Home) -> None:
    with Run.begin(home, "fraud", "k", "") as run:
        assert run.environment == {}
        run.journal.append("environment", python="3.12", packages=["a==1"])
        assert run.environment == {"python": "3.12"}
