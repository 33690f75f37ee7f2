"""Any number of workers trains the same model, and workers that drift apart are stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from raymill.training.checkpoint import load_weights
from raymill.training.evaluating import measure
from raymill.training.loop import fit
from raymill.training.model import build_model
from raymill.training.result import FitResult
from raymill.training.session import InlineSession

from .ranks import EXACT, SCENARIOS, WORLD, shards
from .samples import job

SOUND = [name for name in SCENARIOS if name.startswith(("ddp", "fsdp", "resampled"))
         and not name.endswith("stopped")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two ranks have trained every scenario."""
    made = tmp_path_factory.mktemp("ranks")
    script = Path(__file__).with_name("ranks.py")
    ranks = [subprocess.Popen([sys.executable, str(script), str(rank), str(made)])
             for rank in range(WORLD)]
    assert [rank.wait(timeout=240) for rank in ranks] == [0] * WORLD
    return made


def results(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads((folder / f"{name}-{rank}.json").read_text()) for rank in range(WORLD)]


def alone(path: Path, name: str) -> FitResult:
    """One worker's run of a scenario, in one piece and as DDP has nothing to do there."""
    return fit(job(**{**EXACT, **SCENARIOS[name][0]}), *shards(), InlineSession(path))


def check_same(one: list[dict[str, float]], other: list[dict[str, float]]) -> None:
    assert len(one) == len(other)
    for ours, theirs in zip(one, other, strict=True):
        for key in ("train_loss", "val_loss", "val_roc_auc"):
            assert ours[key] == pytest.approx(theirs[key], abs=1e-5), key


@pytest.mark.parametrize("name", SOUND)
def test_two_workers_train_as_one(tmp_path: Path, folder: Path, name: str) -> None:
    expected = alone(tmp_path, name)
    assert expected.checkpoint is not None
    one = load_weights(expected.checkpoint)
    for got in results(folder, name):
        check_same(got["history"], expected.history)
        other = load_weights(Path(got["checkpoint"]))
        assert one.keys() == other.keys()
        atol = 1e-3 if "muon" in str(SCENARIOS[name]) else 1e-5  # muon rounds to bfloat16
        assert all(torch.allclose(one[key], other[key], atol=atol) for key in one)


def test_accumulated_parts_make_the_same_step_as_the_whole_batch(tmp_path: Path) -> None:
    check_same(alone(tmp_path / "a", "ddp").history,
               alone(tmp_path / "b", "ddp-accumulate").history)


def test_a_loop_of_ones_own_weighs_rows_as_raymills_does(tmp_path: Path) -> None:
    own, ours = (alone(tmp_path / name, name).checkpoint for name in ("ddp-loop", "ddp"))
    assert own is not None and ours is not None
    one, other = load_weights(own), load_weights(ours)
    assert all(torch.allclose(one[key], other[key], atol=1e-5) for key in one)


@pytest.mark.parametrize("name", ["ddp-stopped", "fsdp-stopped"])
def test_a_stopped_run_goes_on_at_another_number_of_workers(
    tmp_path: Path, folder: Path, name: str
) -> None:
    assert [got["interrupted"] for got in results(folder, name)] == [True] * WORLD
    whole = alone(tmp_path, name)
    cut = fit(job(**{**EXACT, **SCENARIOS[name][0]}), *shards(), InlineSession(folder / name))
    assert cut.resumes == [{"epoch": 1, "steps": 3, "exact": "samples"}]
    check_same(cut.history, whole.history)


@pytest.mark.parametrize(("name", "when"), [
    ("no-all-reduce", "after step 2"), ("seed-by-rank", "at the start"),
    ("order-by-rank", "in epoch 1, first in row order"),
])
def test_the_guard_stops_a_run_whose_workers_differ(folder: Path, name: str, when: str) -> None:
    for got in results(folder, name):
        assert f"rank 1 differs {when}" in got["error"]


@pytest.mark.parametrize("name", ["norm-ddp", "norm-fsdp"])
def test_the_metrics_are_those_of_the_weights_that_are_kept(folder: Path, name: str) -> None:
    """Each worker's batch norm has seen other rows; one worker's statistics are exported."""
    made = job(**{**EXACT, **SCENARIOS[name][0]})
    model, validation = build_model(made), shards()[1]
    for got in results(folder, name):
        model.load_state_dict(load_weights(Path(got["checkpoint"])))
        with torch.no_grad():
            output = model.eval()(validation.tensors)
        measured = measure(output, validation.tensors["target"], made.schema)
        assert got["best"]["val_loss"] == pytest.approx(measured["val_loss"], abs=1e-6)


def test_workers_that_hold_all_rows_grow_trees_on_a_share_each(folder: Path) -> None:
    got, other = results(folder, "trees")
    assert got["history"] == other["history"] and got["epochs"] == 3
    # One worker goes on with them: it is a run on as many rows.
    again = alone(folder / "trees", "trees")
    assert again.history == got["history"]
    expected = alone(folder / "trees-alone", "trees").best
    assert got["best"]["train_loss"] == pytest.approx(expected["train_loss"], rel=0.05)


def test_each_worker_writes_its_part_and_takes_it_up_again(folder: Path) -> None:
    for got in results(folder, "fsdp-twice"):
        assert got["resumes"] == [{"epoch": 1, "steps": 3, "exact": "bitwise"}]
        names = {path.name for path in Path(got["checkpoint"]).iterdir()}
        assert {f"{group}.part-0000{rank}.safetensors" for rank in range(WORLD)
                for group in ("model", "optimizer", "ema")} <= names
        assert "model.safetensors" not in names
        sizes = [Path(got["checkpoint"], f"model.part-0000{rank}.safetensors").stat().st_size
                 for rank in range(WORLD)]
        assert max(sizes) < 0.7 * sum(sizes)
    assert not list((folder / "fsdp-twice").glob(".*"))
