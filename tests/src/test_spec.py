"""The spec: defaults, places, overrides, searched fields, and its JSON Schema."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raymill.cluster.spec import HeadNode, Machine
from raymill.descriptions import below, texts
from raymill.errors import SpecError
from raymill.spec import Spec, dump_yaml, json_schema, load_spec, spec_from
from raymill.training.spec import ModelSpec, Workers

THREE = {"name": "toy", "data": {"source": "x.csv", "target": "y"}}


def test_three_keys_make_a_spec() -> None:
    spec = spec_from(THREE)
    assert spec.tuning.trials > 0 and spec.serving.host == "127.0.0.1"


def test_the_resolved_spec_reads_back_as_itself(tmp_path: Path) -> None:
    spec = spec_from(THREE, ["model.family=mlp", "model.width=64"])
    (tmp_path / "spec.yaml").write_text(dump_yaml(spec))
    again = load_spec(tmp_path / "spec.yaml")
    assert again.model_dump() == spec.model_dump() and again.base == tmp_path


# Overrides are YAML values; dotted names of the search space keep their dot.
def test_overrides_set_any_key() -> None:
    spec = spec_from(THREE, [
        "training.lr=1e-2", "data.drop=[a, b]", "tuning.space.training.lr={low: 0.1, high: 1}",
    ])
    assert spec.training.lr == 0.01 and spec.data.drop == ["a", "b"]
    assert spec.tuning.space["training.lr"].high == 1


@pytest.mark.parametrize("role", ["time=when", "group=when", "key=[when]"])
def test_a_column_that_the_rows_go_by_is_not_dropped(role: str) -> None:
    with pytest.raises(SpecError, match=r"can't be in data\.drop"):
        spec_from(THREE, [f"data.{role}", "data.drop=[when]"])


def test_an_override_that_is_refused_names_itself() -> None:
    with pytest.raises(SpecError) as caught:
        spec_from(THREE, ["training.lr=-1"])
    assert caught.value.problems[0].where == "--set training.lr"


@pytest.mark.parametrize(("override", "said"), [
    ('training.workers={"min": 3, "max": 2}', "training.workers.min: min must not be above"),
    ("training.batch_size=0", "training.batch_size: input should be greater"),
    ("training.watchdog=5x", "training.watchdog: .*duration"),
    ('training.class_weights={"yes": -1}', "training.class_weights.yes: input should be greater"),
])
def test_a_value_of_several_forms_is_refused_once_where_it_is_wrong(
    override: str, said: str
) -> None:
    with pytest.raises(SpecError, match=said) as caught:
        spec_from(THREE, [override])
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize("verb", ["status", "stop", "keys", "pause", "resume", "abort"])
def test_a_name_is_no_word_of_serve_or_rollout(verb: str) -> None:
    with pytest.raises(SpecError, match=f"what serve or rollout does .*{verb}"):
        spec_from({**THREE, "name": verb})


# A searched value must be one that the field itself would take.
@pytest.mark.parametrize(("override", "said"), [
    ("tuning.space.training.lr={choice: [1, fast]}", "'fast' is refused"),
    ("tuning.space.model.width={low: 0, high: 10}", "0 is refused"),
    ("tuning.space.serving.port={low: 2000, high: 3000}", "serving.port can't be searched"),
    ("tuning.space.data.drop={choice: [[a], [b]]}", "the data is prepared once"),
    ("tuning.space.training.workers={low: 1, high: 2}", "says how training runs"),
    ("tuning.space.model.widht={low: 1, high: 10}", "did you mean 'model.width'"),
    ("tuning.space.training.epochs={low: 1.0, high: 3.0}", "1.0 is refused"),
    ("tuning.space.training.lr={choice: {0.1: {model.widht: {low: 1, high: 2}}}}",
     r"choice\.0\.1\.model\.widht: there is no field"),
    ("tuning.space.model.family={low: 1, high: 2}", "families have no order"),
    ("tuning.space.model.family={choice: [mlp, liner]}", "did you mean 'linear'"),
    ("tuning.space.model.family={choice: {mlp: {}, liner: {}}}", r"choice\.liner.*'linear'"),
    ("tuning.space.model.family={choice: {linear: {model.width: {low: 1, high: 2}}}}",
     r"choice\.linear\.model\.width: there is no field"),
    ("tuning.space.model.family.choice.mlp.model.depth={low: 3, high: 2}", "low < high"),
    ("tuning.space.training.lr={choice: {0.1: {training.lr: {low: 0.1, high: 2}}}}",
     "training.lr is searched twice"),
    ("tuning.space.model.depth={low: 1, high: 5, step: 0.5}", "1.5 is refused"),
    ("tuning.space.training.lr={low: true, high: 2}", r"lr\.low: it is a number, but got True"),
    ("tuning.space.training.lr={low: 1e-3, high: '2'}", r"lr\.high: it is a number, but got '2'"),
])
def test_a_space_is_checked_against_the_fields(override: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        spec_from(THREE, ["model.family=mlp", override])


@pytest.mark.parametrize(("override", "cure"), [
    ("training.lr={low: 2, high: 1}", "Swap them"),
    ("training.lr={low: 0, high: 1, log: true}", "Raise low"),
    ("training.lr={low: 1, high: 2, step: 3}", "smaller steps"),
    ("training.lr={low: 0, high: 1}", "that training.lr itself takes"),
    ("training.foo={low: 0, high: 1}", "Fields are: training.accumulate, "),
    ("foo={low: 0, high: 1}", "starts with model. or training."),
    ("data.drop={choice: [[a], [b]]}", "Take it out"),
])
def test_a_refused_dimension_says_what_to_do(override: str, cure: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec_from(THREE, ["model.family=mlp", f"tuning.space.{override}"])
    assert cure in caught.value.problems[0].cure


LR = "tuning.space.training.lr={low: 1e-4, high: 1e-2}"
FAMILIES = "tuning.space.model.family={choice: [mlp, linear]}"


@pytest.mark.parametrize(("overrides", "said"), [
    ([LR, "tuning.points=[{training.rl: 1e-3}]"], "did you mean 'training.lr'"),
    ([LR, "tuning.points=[{training.lr: 1}]"], "a point lies in the space, but got 1"),
    ([LR, "tuning.points=[{training.lr: fast}]"], "but got 'fast'"),
    (["model.family=mlp", "tuning.points=[{model.width: 127}]"], "but got 127"),
    ([FAMILIES, "tuning.points=[{model.width: 127}]"], "but got 127"),
])
def test_a_point_outside_of_the_space_is_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        spec_from(THREE, overrides)


@pytest.mark.parametrize("overrides", [
    [LR, "tuning.points=[{training.lr: 1e-4}, {training.lr: 1e-2}]"],
    ["model.family=mlp", "tuning.points=[{model.width: 128, training.lr: 1e-3}]"],
    [FAMILIES, "tuning.points=[{model.family: mlp, model.width: 128}, {model.family: linear}]"],
    ["tuning.points=[{model.family: mlp, model.width: 128}]"],  # auto: known with the data
])
def test_a_point_of_the_space_is_taken(overrides: list[str]) -> None:
    assert spec_from(THREE, overrides).tuning.points


@pytest.mark.parametrize(("overrides", "said"), [
    ([LR, "tuning.sampler=grid"], r"space\.training\.lr: a grid needs steps"),
    (["model.family=mlp", "tuning.sampler=grid", "tuning.space.model.dropout={low: 0, high: 0.5}"],
     "a grid needs steps"),
    (["tuning.sampler=grid", ("tuning.space.model.family={choice: {mlp: {model.dropout: "
                              "{low: 0, high: 0.5}}, linear: {}}}")],
     r"choice\.mlp\.model\.dropout: a grid needs steps"),
    (["tuning.sampler=grid"], "which no family's default one has"),
    ([LR, "tuning.sampler=cmaes"], "two or more numbers"),
])
def test_a_space_that_the_sampler_can_t_search_is_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        spec_from(THREE, overrides)


def test_a_grid_of_steps_choices_and_whole_numbers_is_taken() -> None:
    grid = "tuning.sampler=grid"
    spec_from(THREE, [grid, "tuning.space.training.lr={low: 0.1, high: 0.4, step: 0.1}",
                      "tuning.space.training.ema={choice: [0.9, 0.99]}"])
    spec_from(THREE, ["model.family=mlp", grid, "tuning.space.model.depth={low: 1, high: 3}"])
    spec_from(THREE, [grid, "tuning.trials=0"])


SGD = "{choice: {adamw: {}, sgd: {training.momentum: {low: 0.5, high: 0.9}}}}"
WRONG = "{choice: {sgd: {}, adamw: {training.momentum: {low: 0.5, high: 0.9}}}}"


@pytest.mark.parametrize(("overrides", "said"), [
    (["tuning.space.training.momentum={low: 0.5, high: 0.9}"],
     r"space\.training\.momentum: momentum does nothing here.*every trial with training\.momentum"),
    (["training.loss=mse", "tuning.space.training.label_smoothing={low: 0.0, high: 0.1}"],
     r"label_smoothing: 0\.1 would fail"),
    (["tuning.space.training.momentum={low: 0.5, high: 0.9}",
      "tuning.space.training.optimizer={choice: [sgd, adamw]}"],
     r"every trial with training\.optimizer: adamw would fail"),
    ([f"tuning.space.training.optimizer={WRONG}"],
     r"every trial with training\.optimizer: adamw would fail"),
])
def test_a_searched_value_that_always_conflicts_is_refused(
    overrides: list[str], said: str
) -> None:
    with pytest.raises(SpecError, match=said):
        spec_from(THREE, ["model.family=mlp", *overrides])


@pytest.mark.parametrize("overrides", [
    [f"tuning.space.training.optimizer={SGD}"],
    ["training.optimizer=sgd", "tuning.space.training.momentum={low: 0.5, high: 0.9}"],
    ["tuning.space.training.huber_delta={low: 0.5, high: 2}",
     "tuning.space.training.loss={choice: [huber]}"],
])
def test_a_space_whose_values_go_together_is_taken(overrides: list[str]) -> None:
    assert spec_from(THREE, ["model.family=mlp", *overrides]).tuning.space


@pytest.mark.parametrize(("overrides", "said"), [
    (["model.family=gbdt", "tuning.refit=checkpoint"], r"tuning\.refit: .*gbdt has none"),
    (["tuning.space.model.family={choice: [mlp, gbdt]}", "tuning.refit=checkpoint"], "gbdt has"),
    (["training.resample=balanced", "tuning.ensemble=2"], r"tuning\.ensemble: .*corrects one model"),
    (["tuning.space.training.resample={choice: [none, balanced]}", "tuning.refit=none"],
     "corrects one model"),
    (["tuning.ensemble=3", "tuning.constraints=[model_mb <= 20]"], "can't keep to model_mb"),
    (["tuning.ensemble=3", "tuning.objectives=[roc_auc, p99_latency_ms]"], "keep to p99_latency"),
])
def test_a_refit_that_the_winner_can_t_be_given_is_refused_before_the_search(
    overrides: list[str], said: str
) -> None:
    with pytest.raises(SpecError, match=said):
        spec_from(THREE, overrides)


def test_a_refit_that_only_a_search_would_make_is_no_concern_without_one() -> None:
    spec_from(THREE, ["model.family=gbdt", "tuning.refit=checkpoint", "tuning.trials=0"])
    spec_from(THREE, ["training.resample=balanced", "training.prior_correction=false",
                      "tuning.ensemble=2"])


@pytest.mark.parametrize("key", ["strategy=fsdp", "guard_every=7"])
def test_what_needs_several_workers_is_refused_with_one(key: str) -> None:
    mlp = {**THREE, "model": {"family": "mlp"}}
    with pytest.raises(SpecError, match="does nothing with one worker"):
        spec_from(mlp, [f"training.{key}"])
    for several in ("training.workers={min: 1, max: 2}", "training.workers=2",
                    "tuning.resources.workers=2"):
        spec_from(mlp, [f"training.{key}", several])


def test_a_family_s_parameter_stands_in_its_branch() -> None:
    with pytest.raises(SpecError, match=r"put it into the branch of its family"):
        spec_from(THREE, ["tuning.space.model.family={choice: [mlp, linear]}",
                          "tuning.space.model.width={low: 8, high: 16}"])


def test_a_bad_branch_is_refused_at_its_line(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text("""\
name: a
data: {source: a.csv, target: b}
tuning:
  space:
    model.family:
      choice:
        linear: {}
        mlp:
          model.width: {low: 64, high: 128}
          model.depth: {low: 0, high: 4, log: true}
""")
    with pytest.raises(SpecError, match=r"spec\.yaml:10:11: .*log needs low > 0"):
        load_spec(tmp_path / "spec.yaml")


def test_yaml_numbers_words_and_dates_are_read_as_written(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(
        "name: no\ndata: {source: 2018-07-25.csv, target: on}\ntraining: {lr: 1e-3}\n")
    spec = load_spec(tmp_path / "spec.yaml")
    assert spec.name == "no" and spec.data.target == "on" and spec.training.lr == 0.001


def test_the_schema_is_json_and_knows_every_part() -> None:
    schema = json.loads(json.dumps(json_schema()))
    assert set(schema["properties"]) == set(Spec.model_fields)
    assert "width" in json.dumps(schema["$defs"]["ModelSpec"])


def test_every_field_of_the_schema_says_what_it_is() -> None:
    schema = json_schema()
    places = {"": schema["properties"]}
    places |= {name: part["properties"] for name, part in schema["$defs"].items()
               if "properties" in part}
    for family in schema["$defs"]["ModelSpec"]["allOf"]:
        name = family["if"]["properties"]["family"]["const"]
        places[name] = family["then"]["properties"]
    bare = [f"{place}.{name}" for place, fields in places.items() for name, field in fields.items()
            if not field.get("description")]
    assert len(places) > 20 and not bare


def test_a_field_that_is_stated_anew_keeps_its_description() -> None:
    assert texts(HeadNode)["cpus"] == texts(Machine)["cpus"] != ""
    assert "auto, a family's name" in texts(ModelSpec)["family"]
    assert below(Spec)["Workers"] is Workers
