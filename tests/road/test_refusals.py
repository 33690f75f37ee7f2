"""Every kind of bad input gets one clear paragraph and the documented exit code."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from raymill.cli.main import main

GOOD = """\
name: toy
data: {source: rows.csv, target: y}
"""
ROWS = "a,b,y\n" + "".join(f"{i},{'pq'[i % 2]},{'no' if i % 3 else 'yes'}\n" for i in range(60))


@dataclass(frozen=True)
class Done:
    """What a command came to."""

    code: int
    stdout: str
    stderr: str


Raymill = Callable[..., Done]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all: MLflow takes seconds to make a new store."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def raymill(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Raymill]:
    """Runs a command in `tmp_path`, in this process: those that need Ray take the module's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAYMILL_HOME", str(home))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    mask = os.umask(0o077)

    def call(*arguments: str) -> Done:
        capsys.readouterr()
        code = main(arguments)
        return Done(code, *capsys.readouterr())

    yield call
    os.umask(mask)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def write(folder: Path, spec: str = GOOD, rows: str | bytes = ROWS) -> None:
    (folder / "spec.yaml").write_text(spec)
    (folder / "rows.csv").write_bytes(rows.encode() if isinstance(rows, str) else rows)


# (the spec, the place that must be named, what must be said)
BAD_SPECS = {
    "unknown key": (GOOD + "trainin: {}\n", "spec.yaml:3:1", "did you mean 'training'"),
    "unknown nested key": (GOOD + "training: {epoch: 3}\n", "spec.yaml:3:12", "'epochs'"),
    "missing name": ("data: {source: rows.csv, target: y}\n", "spec.yaml", "name is required"),
    "missing target": ("name: toy\ndata: {source: rows.csv}\n", "spec.yaml:2", "data.target"),
    "not yaml": ("name: [toy\n", "spec.yaml:2", "must be YAML"),
    "a list": ("- name: toy\n", "spec.yaml", "mapping"),
    "key twice": ("name: toy\nname: two\n", "spec.yaml:2:1", "twice"),
    "an alias": ("name: &n toy\ndata: {source: *n, target: y}\n", "spec.yaml:2", "aliases"),
    "a python tag": ("name: !!python/object:os.system ls\n", "spec.yaml:1", "plain YAML"),
    "a bad name": (GOOD.replace("toy", "../toy"), "spec.yaml:1:1", "a name is"),
    "negative batch": (GOOD + "training: {batch_size: -1}\n", "spec.yaml:3:12", "greater"),
    "text for a number": (GOOD + "training: {lr: fast}\n", "spec.yaml:3:12", "number"),
    "unknown family": (GOOD + "model: {family: mpl}\n", "spec.yaml:3", "did you mean 'mlp'"),
    "a parameter of another family": (
        GOOD + "model: {family: linear, width: 3}\n", "spec.yaml:3", "width"),
    "a gate in no language": (
        GOOD + "objective: {gates: ['auc high']}\n", "spec.yaml:3", "a gate is"),
    "an unknown metric": (GOOD + "objective: {metric: auc2}\n", "spec.yaml:3", "a metric is one"),
    "low over high": (
        GOOD + "tuning: {space: {training.lr: {low: 1, high: 0.1}}}\n", "spec.yaml:3", "low < high"),
    "log of zero": (
        GOOD + "tuning: {space: {training.lr: {low: 0, high: 1, log: true}}}\n", "spec.yaml:3",
        "log needs"),
    "a searched field that isn't": (
        GOOD + "tuning: {space: {training.rl: {low: 0.1, high: 1}}}\n", "spec.yaml:3", "'training.lr'"),
    "shares over one": (
        GOOD.replace("target: y", "target: y, split: {train: 0.9}"), "spec.yaml:2", "must be 1"),
    "time split without time": (
        GOOD.replace("target: y", "target: y, split: {by: time}"), "spec.yaml:2", "data.time"),
    "a file store": (GOOD + "tracking: {uri: ./mlruns}\n", "spec.yaml:3", "sqlite"),
    "an open host": (GOOD + "serving: {host: 0.0.0.0}\n", "spec.yaml:3", "needs keys"),
    "a bad duration": (GOOD + "tuning: {budget: {wall: soon}}\n", "spec.yaml:3", "duration"),
}


@pytest.mark.parametrize("kind", BAD_SPECS)
def test_a_bad_spec_exits_2_and_names_the_place(
    raymill: Raymill, kind: str, tmp_path: Path
) -> None:
    spec, place, said = BAD_SPECS[kind]
    write(tmp_path, spec)
    done = raymill("check", "spec.yaml")
    assert done.code == 2, done.stderr
    assert place in done.stderr and said in done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""


def test_all_problems_of_a_spec_come_at_once(raymill: Raymill, tmp_path: Path) -> None:
    write(tmp_path, GOOD + "training: {lr: fast, epoch: 3}\nserving: {prot: 1}\n")
    done = raymill("check", "spec.yaml", "--json")
    document = json.loads(done.stdout)
    assert done.code == 2 and not document["ok"]
    assert len(document["problems"]) == 3


@pytest.mark.parametrize(("arguments", "said"), [
    (["check", "none.yaml"], "must exist"),
    (["check", "spec.yaml", "--set", "training.lr"], "--set takes"),
    (["check", "spec.yaml", "--set", "training.rl=1"], "unknown key 'training.rl'"),
    (["frob"], "invalid choice"),
    (["init", "../x y", "--data", "rows.csv", "--target", "y"], "name"),
    (["serve", "nobody", "--detach"], "nobody"),
    (["predict", "nobody", "--input", "rows.csv"], "nobody"),
    (["promote", "nobody", "1"], "nobody"),
    (["rollback", "nobody"], "nobody"),
])
def test_bad_usage_exits_2(
    raymill: Raymill, arguments: list[str], said: str, tmp_path: Path
) -> None:
    write(tmp_path)
    done = raymill(*arguments)
    assert done.code == 2, done.stderr
    assert said in done.stderr and "Traceback" not in done.stderr


# (the rows, the place that must be named, what must be said)
BAD_DATA: dict[str, tuple[str | bytes, str, str]] = {
    "an empty file": ("", "rows.csv", "empty"),
    "a ragged row": (ROWS + "1,2\n", "rows.csv row 61", "3"),
    "not utf-8": (ROWS.encode() + b"1,\xff\xfe,no\n", "rows.csv", "UTF-8"),
    "no target": (ROWS.replace("a,b,y", "a,b,z", 1), "data.target", "The columns are 'a', 'b'"),
    "one class only": (ROWS.replace("yes", "no"), "'y'", "two different values"),
}


@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize("kind", BAD_DATA)
def test_bad_data_exits_2_and_names_file_and_row(
    raymill: Raymill, kind: str, tmp_path: Path
) -> None:
    rows, place, said = BAD_DATA[kind]
    write(tmp_path, GOOD, rows)
    done = raymill("check", "spec.yaml")
    assert done.code == 2, done.stderr
    assert place in done.stderr and said in done.stderr
    assert "Traceback" not in done.stderr
