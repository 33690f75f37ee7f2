"""MLflow's store: made once, whoever comes first."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

OPEN = """\
import sys
from pathlib import Path
from raymill.tracking.home import Home
from raymill.tracking.store import open_store
home = Home.find(Path(sys.argv[1]))
client = open_store(home.tracking_uri, home)
name = client.get_experiment("0").name
client.create_run("0", run_name=sys.argv[2])
print(name, len(client.search_experiments()))
"""


def test_processes_that_open_a_new_store_at_once_share_one(tmp_path: Path) -> None:
    opening = [
        subprocess.Popen([sys.executable, "-c", OPEN, str(tmp_path / "home"), str(number)],
                         stdout=subprocess.PIPE, text=True)
        for number in range(4)
    ]
    assert [process.communicate()[0] for process in opening] == ["Default 1\n"] * 4


@pytest.mark.parametrize("tables", [1, 12])
def test_store_whose_making_was_killed_is_made_anew(tmp_path: Path, tables: int) -> None:
    home = tmp_path / "home"
    command = [sys.executable, "-c", OPEN, str(home), "killed"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        while process.poll() is None and not _has_tables(home / ".mlflow.db.new", tables):
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
    assert not (home / "mlflow.db").exists()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == "Default 1\n"
    assert not (home / ".mlflow.db.new").exists()


def _has_tables(file: Path, count: int) -> bool:
    if not file.exists():
        return False
    try:
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
            found = connection.execute("select count(*) from sqlite_master where type = 'table'")
            return bool(found.fetchone()[0] >= count)
    except sqlite3.OperationalError:
        return False
