"""A bundle is what was written, holds no code, and answers the same wherever it is opened."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from safetensors import SafetensorError

from raymill.data.schema import InputSchema
from raymill.errors import ArtifactError, DataError, TrainingError, UsageError
from raymill.training.bundle import Bundle, write
from raymill.training.factories import allow, allowed, load_object
from raymill.training.model import build_model
from raymill.training.predictor import Predictor

from .samples import BINARY, CLASSES, VALUES, job, prepared

FACTORY = (
    "from torch import nn\n"
    "class Net(nn.Module):\n"
    "    def __init__(self, outputs):\n"
    "        super().__init__()\n"
    "        self.layer = nn.Linear(2, outputs)\n"
    "    def forward(self, batch):\n"
    "        return self.layer(batch['numeric'])\n"
    "def make(schema):\n"
    "    return Net(schema.outputs)\n"
)


def bundle(folder: Path, schema: InputSchema = BINARY, **objective: Any) -> Bundle:
    made = job(schema)
    weights = build_model(made).state_dict()
    return write(folder / "bundle", made, weights, prepared(folder, schema), objective, {"run": 1})


def table(rows: int, schema: InputSchema = BINARY) -> pa.Table:
    draw = np.random.default_rng(0)
    columns = {"a": draw.normal(size=rows), "b": draw.normal(size=rows)}
    if schema.categorical:
        columns["c"] = draw.choice(list("pqrsz"), rows)
    return pa.table(columns)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    written = bundle(tmp_path, threshold=0.3, metric="f1")
    read = Bundle.open(tmp_path / "bundle", written.digest)
    assert read.schema == BINARY
    assert read.contract == prepared(tmp_path).contract
    assert read.transform == prepared(tmp_path).transform
    assert read.objective == {"threshold": 0.3, "metric": "f1"}
    assert (read.info, read.profile) == ({"run": 1}, {"rows": 3})


def test_equal_models_have_equal_digests(tmp_path: Path) -> None:
    assert bundle(tmp_path / "a").digest == bundle(tmp_path / "b").digest
    assert bundle(tmp_path / "a").digest != bundle(tmp_path / "a", threshold=0.1).digest


def test_it_holds_safetensors_and_json_only(tmp_path: Path) -> None:
    names = {path.suffix for path in bundle(tmp_path).path.iterdir()}
    assert names == {".safetensors", ".json"}


def test_a_full_disk_is_told_and_leaves_what_stood_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = bundle(tmp_path)

    def full(*_: Any) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("raymill.training.bundle.save_file", full)
    with pytest.raises(TrainingError, match=r"No space left on device .* Free some space"):
        bundle(tmp_path, threshold=0.1)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert Bundle.open(tmp_path / "bundle").digest == written.digest


@pytest.mark.parametrize("name", [
    "model.safetensors", "model.json", "transform.json", "contract.json", "profile.json",
    "objective.json", "info.json",
])
def test_a_flipped_byte_is_refused_by_name(tmp_path: Path, name: str) -> None:
    victim = bundle(tmp_path).path / name
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    with pytest.raises(ArtifactError, match=name.replace(".", r"\.")):
        Bundle.open(tmp_path / "bundle")


def test_another_bundle_in_its_place_is_refused(tmp_path: Path) -> None:
    registered = bundle(tmp_path).digest
    bundle(tmp_path, threshold=0.9)
    with pytest.raises(ArtifactError, match="digest"):
        Bundle.open(tmp_path / "bundle", registered)


def test_a_bundle_without_manifest_is_refused(tmp_path: Path) -> None:
    bundle(tmp_path)
    (tmp_path / "bundle" / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        Bundle.open(tmp_path / "bundle")


def test_code_is_loaded_only_where_its_project_allowed_it(tmp_path: Path) -> None:
    project, home = tmp_path / "project", tmp_path / "home"
    project.mkdir()
    home.mkdir()
    (project / "own_model.py").write_text(FACTORY)
    own = job(family="own_model:make", project=str(project))
    weights = build_model(own).state_dict()
    made = write(tmp_path / "bundle", own, weights, prepared(tmp_path), {}, {})
    with pytest.raises(ArtifactError, match="own_model:make"):
        made.model(allowed(home))
    allow(home, "own_model:make", project)
    assert Predictor(made, factories=allowed(home)).scores(table(3)).shape == (3,)
    assert (home / "factories.json").stat().st_mode & 0o077 == 0
    assert json.loads((home / "factories.json").read_text()) == {"own_model:make": str(project)}


def test_a_factory_that_changed_is_refused(tmp_path: Path) -> None:
    made = job()
    weights = build_model(job(model={"width": 8, "depth": 1})).state_dict()
    wrong = write(tmp_path / "bundle", made, weights, prepared(tmp_path), {}, {})
    with pytest.raises(ArtifactError, match=r"model\.safetensors must fit"):
        Predictor(wrong)


@pytest.mark.parametrize(("schema", "columns"), [
    (BINARY, ["prediction", "probability_no", "probability_yes"]),
    (CLASSES, ["prediction", "probability_x", "probability_y", "probability_z"]),
    (VALUES, ["prediction"]),
])
def test_answers_by_task(tmp_path: Path, schema: InputSchema, columns: list[str]) -> None:
    answers = Predictor(bundle(tmp_path, schema)).predict(table(5, schema))
    assert answers.column_names == columns
    assert len(answers) == 5
    if schema.classes is not None:
        sums = np.sum([answers[name].to_numpy() for name in columns[1:]], axis=0)
        assert np.allclose(sums, 1, atol=1e-6)


def test_no_rows_have_no_answers(tmp_path: Path) -> None:
    for schema in (BINARY, CLASSES, VALUES):
        assert len(Predictor(bundle(tmp_path, schema)).predict(table(0, schema))) == 0


def test_the_threshold_decides(tmp_path: Path) -> None:
    scores = Predictor(bundle(tmp_path)).scores(table(50))
    cut = float(np.median(scores))
    answers = Predictor(bundle(tmp_path, threshold=cut)).predict(table(50))
    yes = np.array(answers["prediction"].to_pylist()) == "yes"
    assert (yes == (scores >= cut)).all()


def test_an_answer_does_not_depend_on_its_batch(tmp_path: Path) -> None:
    predictor, rows = Predictor(bundle(tmp_path)), table(300)
    one_by_one = np.concatenate([predictor.scores(rows.slice(i, 1)) for i in range(300)])
    assert np.abs(predictor.scores(rows) - one_by_one).max() < 1e-6


def test_a_frame_is_checked_first(tmp_path: Path) -> None:
    predictor = Predictor(bundle(tmp_path))
    frame = table(4).to_pandas().set_index(np.array([7, 5, 3, 1]))
    answers = predictor.predict_frame(frame)
    assert list(answers.index) == [7, 5, 3, 1]
    frame.loc[3, "a"] = None
    with pytest.raises(DataError, match=r"rows\[2\]\.a"):
        predictor.predict_frame(frame)
    with pytest.raises(DataError, match="'b'"):
        predictor.predict_frame(frame.drop(columns="b"))


def test_two_projects_may_name_their_factories_alike(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    made = {}
    for name in ("one", "two"):  # each with a module `twin_parts` of its own, imported late
        project = tmp_path / name
        project.mkdir()
        (project / "twin_parts.py").write_text(f"{FACTORY}Net.project = {name!r}\n")
        (project / "twin_model.py").write_text(
            "def make(schema):\n    from twin_parts import make\n    return make(schema)\n")
        own = job(family="twin_model:make", project=str(project))
        weights = build_model(own).state_dict()
        made[name] = write(tmp_path / f"bundle-{name}", own, weights, prepared(tmp_path), {},
                           {"name": name})
        allow(home, "twin_model:make", project, model=name)
    for name in ("one", "two", "one"):
        assert made[name].model(allowed(home)).project == name  # type: ignore[comparison-overlap]
    other = write(tmp_path / "bundle-three", own, weights, prepared(tmp_path), {}, {"name": "three"})
    with pytest.raises(ArtifactError, match="twin_model:make"):
        other.model(allowed(home))


def test_a_module_of_another_project_is_no_substitute(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    (one / "only_there.py").write_text(FACTORY)
    load_object("only_there:make", one)
    with pytest.raises(UsageError, match="only another project"):
        load_object("only_there:make", two)


def test_a_module_loaded_from_elsewhere_does_not_hide_the_projects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hidden.py").write_text("here = True\n")
    monkeypatch.setitem(sys.modules, "hidden", ModuleType("hidden"))
    assert load_object("hidden:here", tmp_path) is True


def test_factories_allowed_at_once_are_all_kept(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: allow(tmp_path, "m:f", tmp_path, model=f"m{n}"), range(40)))
    assert len(json.loads((tmp_path / "factories.json").read_text())) == 40
