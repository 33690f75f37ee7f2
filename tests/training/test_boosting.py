"""`gbdt` is a family like any other: it learns, stops, resumes exactly and is kept as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raymill.data.schema import InputSchema
from raymill.errors import ArtifactError, SpecError
from raymill.events import Event, ignore
from raymill.training.bundle import Bundle, write
from raymill.training.checkpoint import at, load_weights, numbers
from raymill.training.families.gbdt import GBDT
from raymill.training.job import TrainJob, make_job
from raymill.training.loop import fit
from raymill.training.predictor import Predictor
from raymill.training.regrowing import Silent, regrow, regrows
from raymill.training.session import InlineSession
from raymill.training.session import Interrupted as Asked
from raymill.training.shard import Shard
from raymill.training.spec import ModelSpec, TrainingSpec
from raymill.training.testing import CATEGORIES, IMAGES, NUMBERS, TABLE, random_batch
from raymill.training.trees import parse

from .samples import BINARY, CLASSES, VALUES, block, prepared, shards
from .test_bundle import table


def job(schema: InputSchema = BINARY, model: dict[str, Any] | None = None, **training: Any
        ) -> TrainJob:
    small = {"rounds": 24, "learning_rate": 0.2, "leaves": 8, "min_rows": 5}
    spec = ModelSpec.model_validate({"family": "gbdt", **small, **(model or {})})
    values = {"epochs": 4, "gpu": "never", **training}
    return make_job(spec, TrainingSpec.model_validate(values), None, schema, None)


@pytest.mark.parametrize(("schema", "metric", "bar"), [
    (BINARY, "val_roc_auc", 0.95), (CLASSES, "val_accuracy", 0.8), (VALUES, "val_r2", 0.8),
])
def test_each_task_is_learnt(schema: InputSchema, metric: str, bar: float) -> None:
    result = fit(job(schema, {"rounds": 80}), *shards(schema, 400), InlineSession())
    assert result.best[metric] > bar


def test_categories_are_learnt_as_such() -> None:
    draw = np.random.default_rng(0)
    rows = {"categorical": draw.integers(0, 6, size=(300, 1))}
    rows["target"] = np.array([0, 2, 1, 2, 0, 1])[rows["categorical"][:, 0]]
    fitted = fit(job(CATEGORIES), Shard([rows]), Shard([rows]), InlineSession())
    assert fitted.best["val_accuracy"] == 1


def test_an_epoch_is_a_share_of_the_rounds() -> None:
    seen: list[Event] = []
    result = fit(job(model={"rounds": 10}), *shards(), InlineSession(), seen.append)
    assert [row["trees"] for row in result.history] == [2, 5, 7, 10]
    assert [event.data["epoch"] for event in seen if event.kind == "epoch"] == [1, 2, 3, 4]
    assert result.history[-1]["train_loss"] < result.history[0]["train_loss"]


def test_an_epoch_is_a_round_at_least() -> None:
    result = fit(job(model={"rounds": 3}, epochs=100, patience=None), *shards(), InlineSession())
    assert [row["trees"] for row in result.history] == [1, 2, 3]


def test_the_train_loss_is_that_of_the_model() -> None:
    made, (train, validation) = job(CLASSES), shards(CLASSES)
    fitted = fit(made, train, validation, InlineSession())
    model = GBDT(CLASSES)
    model.load_state_dict(fitted.weights)
    with torch.no_grad():
        output = model({name: t for name, t in train.tensors.items() if name != "target"})
    loss = torch.nn.functional.cross_entropy(output, train.tensors["target"])
    assert fitted.history[fitted.best_epoch - 1]["train_loss"] == pytest.approx(float(loss), 1e-5)


def test_patience_ends_it_and_the_best_epoch_is_kept() -> None:
    draw = np.random.default_rng(0)
    noise = [{"numeric": draw.normal(size=(150, 2)).astype(np.float32),
              "categorical": draw.integers(2, 6, size=(150, 1)),
              "target": draw.integers(0, 2, size=150)} for _ in range(2)]
    made = job(model={"rounds": 400}, epochs=40, patience=2)
    result = fit(made, Shard(noise[:1]), Shard(noise[1:]), InlineSession())
    assert result.epochs < 40
    assert result.best["val_roc_auc"] == max(row["val_roc_auc"] for row in result.history)


def test_it_ends_when_no_split_is_worth_it() -> None:
    result = fit(job(model={"min_rows": 1000, "rounds": 40}, epochs=20), *shards(), InlineSession())
    assert (result.epochs, result.best["val_roc_auc"]) == (2, 0.5)


class Interrupted(InlineSession):
    """A session whose process dies after two epochs."""

    def report(self, metrics: Any) -> None:
        super().report(metrics)
        if metrics["epoch"] == 2:
            raise KeyboardInterrupt


@pytest.mark.parametrize("schema", [BINARY, CLASSES, VALUES])
def test_a_resumed_run_grows_the_same_trees(tmp_path: Path, schema: InputSchema) -> None:
    made = job(schema)
    whole = fit(made, *shards(schema), InlineSession(tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        fit(made, *shards(schema), Interrupted(tmp_path / "cut"))
    cut = fit(made, *shards(schema), InlineSession(tmp_path / "cut"))
    assert whole.history == cut.history
    assert whole.checkpoint is not None and cut.checkpoint is not None
    one, other = load_weights(whole.checkpoint), load_weights(cut.checkpoint)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_seeds_decide_the_trees() -> None:
    def weights(seed: int) -> torch.Tensor:
        return fit(job(seed=seed), *shards(), InlineSession()).weights["_extra_state"]

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_class_weights_move_the_probabilities() -> None:
    def mean(**training: Any) -> float:
        model = GBDT(BINARY)
        model.load_state_dict(fit(job(**training), *shards(), InlineSession()).weights)
        return float(model(random_batch(BINARY, 200)).sigmoid().mean())

    assert mean(class_weights={"yes": 20.0}) > mean() + 0.02


@pytest.mark.parametrize("schema", [BINARY, CLASSES])
def test_a_prior_correction_takes_the_weights_back_out_of_the_probabilities(
    tmp_path: Path, schema: InputSchema
) -> None:
    """A class of weight 20 makes its trees' odds that much higher; the bundle answers without."""
    heavy = {(schema.classes or ())[-1]: 20.0}

    def mean(name: str, **training: Any) -> float:
        made = job(schema, {"leaves": 4}, **training)
        fitted = fit(made, *shards(schema, 400), InlineSession())
        bundle = write(tmp_path / name, made, fitted.weights, prepared(tmp_path, schema), {}, {},
                       fitted.offset)
        scores = Predictor(bundle).scores(table(300, schema))
        return float((scores if scores.ndim == 1 else scores[:, -1]).mean())

    plain, weighted = mean("a"), mean("b", class_weights=heavy)
    corrected = mean("c", class_weights=heavy, prior_correction=True)
    assert weighted > plain + 0.02
    assert abs(corrected - plain) < abs(weighted - plain) / 2


@pytest.mark.parametrize("schema", [TABLE, NUMBERS, CATEGORIES])
def test_it_answers_like_any_family(schema: InputSchema) -> None:
    rows = Shard([{name: t.numpy() for name, t in random_batch(schema, 200).items()}])
    weights = fit(job(schema), rows, rows, InlineSession()).weights
    model, batch = GBDT(schema), random_batch(schema, 100, seed=1)
    assert model(batch).shape == (100, schema.outputs)
    model.load_state_dict(weights)
    whole = model.eval()(batch)
    alone = [model({k: t[i : i + 1] for k, t in batch.items()}) for i in range(100)]
    assert torch.equal(whole, torch.cat(alone))
    assert all(torch.equal(t, model.state_dict()[name]) for name, t in weights.items())


@pytest.mark.parametrize("schema", [BINARY, CLASSES, VALUES])
def test_its_bundle_answers_as_the_model_did(tmp_path: Path, schema: InputSchema) -> None:
    made = job(schema)
    fitted = fit(made, *shards(schema), InlineSession())
    data = prepared(tmp_path, schema)
    predictor = Predictor(write(tmp_path / "b", made, fitted.weights, data, {}, {}))
    again = Predictor(Bundle.open(tmp_path / "b"))
    rows = table(50, schema)
    assert np.array_equal(predictor.scores(rows), again.scores(rows))
    assert len(predictor.predict(rows)) == 50


def text_of(schema: InputSchema = BINARY) -> str:
    weights = fit(job(schema), *shards(schema), InlineSession()).weights
    return weights["_extra_state"].numpy().tobytes().decode()


def test_lightgbm_reads_the_text_as_it_is() -> None:
    import lightgbm

    text, rows = text_of(CLASSES), block(20, CLASSES)
    model = GBDT(CLASSES)
    model.forest = parse(text, 3, 3)
    matrix = np.concatenate([rows["numeric"], rows["categorical"]], axis=1)
    raw = lightgbm.Booster(model_str=text).predict(matrix, raw_score=True)
    batch = {name: torch.from_numpy(array) for name, array in rows.items()}
    assert np.allclose(raw, model(batch).numpy())


@pytest.mark.parametrize(("old", "new"), [
    ("split_feature=", "split_feature=7 "),
    ("max_feature_idx=2", "max_feature_idx=1"),
    ("num_leaves=8", "num_leaves=9"),
    ("left_child=1", "left_child=0"),
    ("right_child=", "right_child=-90 "),
    ("leaf_value=", "leaf_value=nan "),
    ("is_linear=0", "is_linear=1"),
    ("Tree=1\n", "Tree=5\n"),
    ("version=v4", "version=v3"),
    ("decision_type=2", "decision_type=99"),
    ("shrinkage=", "init=evil\nshrinkage="),
    ("num_class=1", "num_class=3"),
])
def test_a_text_that_leads_outside_itself_is_refused(old: str, new: str) -> None:
    text = text_of()
    assert old in text
    parse(text, 3, 1)
    with pytest.raises(ArtifactError):
        parse(text.replace(old, new, 1), 3, 1)


def test_a_text_cut_short_is_refused() -> None:
    text = text_of()
    for end in range(0, text.index("end of trees"), 97):
        with pytest.raises(ArtifactError):
            parse(text[:end], 3, 1)


@pytest.mark.parametrize(("schema", "training", "words"), [
    (IMAGES, {}, "needs a column of numbers"),
    (BINARY, {"gpu": "require"}, "on the CPU"),
    (VALUES, {"class_weights": "balanced"}, "class task"),
])
def test_what_it_cannot_do_is_refused(
    schema: InputSchema, training: dict[str, Any], words: str
) -> None:
    with pytest.raises(SpecError, match=words):
        fit(job(schema, **training), *shards(VALUES), InlineSession())


def test_it_is_grown_again_on_all_rows(tmp_path: Path) -> None:
    train, validation = shards(BINARY, 200)
    seen: list[Event] = []
    session = InlineSession(tmp_path / "checkpoints")
    first = fit(job(patience=1), train, validation, session)
    silent = Silent(session, tmp_path / "regrown")
    last = regrow(job(patience=1), train, validation, silent, seen.append, first)
    rounds = int(first.history[first.best_epoch - 1]["trees"])
    assert first.checkpoint is not None
    assert last.checkpoint is not None
    assert len(last.history) == first.best_epoch
    assert last.history[-1]["trees"] == rounds
    same = fit(job(model={"rounds": rounds}, epochs=first.best_epoch, patience=None),
               Shard.joined(train, validation), validation, InlineSession(tmp_path / "same"))
    assert load_weights(last.checkpoint).keys() == load_weights(first.checkpoint).keys()
    again = at(tmp_path / "same", max(numbers(tmp_path / "same")))
    assert same.history[-1]["trees"] == rounds
    for name, tensor in load_weights(last.checkpoint).items():
        assert torch.equal(tensor, load_weights(again)[name])
    assert [event.kind for event in seen] == ["note"]
    assert f"{train.rows + validation.rows} rows" in str(seen[0].data)


def test_an_unfinished_regrowing_goes_on(tmp_path: Path) -> None:
    train, validation = shards(BINARY, 200)
    session = InlineSession(tmp_path / "first")
    first = fit(job(), train, validation, session)
    whole, cut = Silent(session, tmp_path / "whole"), Silent(session, tmp_path / "cut")
    unbroken = regrow(job(), train, validation, whole, ignore, first)
    session.stopping = True
    with pytest.raises(Asked):
        regrow(job(), train, validation, cut, ignore, first)
    session.stopping = False
    resumed = regrow(job(), train, validation, cut, ignore, first)
    assert unbroken.checkpoint is not None
    assert resumed.checkpoint is not None
    assert [r["exact"] for r in resumed.resumes] == ["bitwise"]
    for name, tensor in load_weights(unbroken.checkpoint).items():
        assert torch.equal(tensor, load_weights(resumed.checkpoint)[name])


def test_who_does_not_want_it_is_not_regrown() -> None:
    assert regrows(job())
    assert not regrows(job(model={"regrow": False}))
