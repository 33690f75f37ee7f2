"""Spaces go to Optuna and drawn values come back to the specs."""

from typing import Any

import pytest
from optuna.distributions import BaseDistribution
from optuna.storages import InMemoryStorage

from raymill.errors import UsageError
from raymill.training.params import DEFAULT_SPACES
from raymill.training.spec import ModelSpec, TrainingSpec
from raymill.tuning.ledger import Ledger
from raymill.tuning.objectives import Objectives
from raymill.tuning.space import (
    decode,
    draw,
    encode,
    own_values,
    space_for,
    stated_fields,
    to_optuna,
)
from raymill.tuning.spec import Dimension, TuningSpec
from raymill.tuning.walk import flat, with_params


def test_whole_bounds_draw_whole_numbers() -> None:
    space = {"model.depth": Dimension(low=2, high=4), "training.lr": Dimension(low=0.1, high=1)}
    drawn = to_optuna(space)
    assert type(drawn["model.depth"]).__name__ == "IntDistribution"
    assert type(drawn["training.lr"]).__name__ == "FloatDistribution"


def test_a_last_part_step_is_left_out_without_a_warning() -> None:
    drawn = to_optuna({"a": Dimension(low=0, high=10, step=4)})["a"]
    assert (drawn.low, drawn.high, drawn.step) == (0, 8, 4)


def test_a_choice_that_is_no_scalar_comes_back_as_it_was() -> None:
    space = {"model.layers": Dimension(choice=[[64, 64], [128]])}
    label = to_optuna(space)["model.layers"].choices[1]
    assert decode(space, {"model.layers": label}) == {"model.layers": [128]}
    assert encode(space, {"model.layers": [128]}) == {"model.layers": label}


def test_own_values_outside_the_space_are_left_out() -> None:
    space = {"training.lr": Dimension(low=0.1, high=1.0), "model.width": Dimension(choice=[8, 256])}
    own = own_values(ModelSpec(family="mlp"), TrainingSpec(lr=1e-3), "mlp", space)
    assert own == {"model.width": 256}


@pytest.mark.parametrize("family", DEFAULT_SPACES)
def test_every_default_space_holds_the_family_s_defaults(family: str) -> None:
    space = space_for(family, {})
    assert own_values(ModelSpec(family=family), TrainingSpec(), family, space).keys() == space.keys()


def test_a_factory_of_one_s_own_needs_a_space() -> None:
    with pytest.raises(UsageError, match=r"no search space is known.*tuning\.space"):
        space_for("own:build", {})


@pytest.mark.parametrize("field", ["workers", "max_failures", "cpus_per_worker", "gpu"])
def test_how_training_runs_is_not_searched(field: str) -> None:
    space = {f"training.{field}": Dimension(choice=[1, 2])}
    with pytest.raises(UsageError, match=rf"training\.{field} can't be searched"):
        space_for("mlp", space)


def test_what_comes_after_the_search_is_not_searched() -> None:
    with pytest.raises(UsageError, match=r"model\.regrow can't be searched: it comes after"):
        space_for("gbdt", {"model.regrow": Dimension(choice=[True, False])})


def test_what_the_spec_states_is_left_out_of_a_default_space_only() -> None:
    model = ModelSpec.model_validate({"family": "mlp", "width": 64})
    stated = stated_fields(model, TrainingSpec(lr=2e-3, epochs=3))
    space = space_for("mlp", {}, stated)
    assert space.keys() == DEFAULT_SPACES["mlp"].keys() - {"model.width", "training.lr"}
    own = {"training.lr": Dimension(low=0.1, high=1.0)}
    assert space_for("mlp", own, stated) == own
    assert stated_fields(ModelSpec(), TrainingSpec()) == frozenset()


def test_a_spec_that_states_all_leaves_nothing_to_search() -> None:
    stated = stated_fields(ModelSpec(family="linear"), TrainingSpec(lr=1e-2, weight_decay=0.0))
    with pytest.raises(UsageError, match=r"nothing left to search.*tuning\.space"):
        space_for("linear", {}, stated)


def test_drawn_values_replace_fields_of_the_specs() -> None:
    model, training = with_params(
        ModelSpec(family="mlp", dropout=0.3), TrainingSpec(epochs=7),
        {"model.width": 128, "training.lr": 0.01},
    )
    assert model.params == {"dropout": 0.3, "width": 128}
    assert (training.lr, training.epochs) == (0.01, 7)


FAMILIES = {
    "training.lr": {"low": 1e-4, "high": 1e-1, "log": True},
    "model.family": {"choice": {
        "linear": {"training.weight_decay": {"low": 0.0, "high": 0.1}},
        "mlp": {
            "training.weight_decay": {"low": 0.1, "high": 0.2},
            "model.numeric_embedding": {"choice": {
                "none": {}, "periodic": {"model.frequencies": {"low": 4, "high": 16}}}},
        },
    }},
}


def branching() -> dict[str, Dimension]:
    return {path: Dimension.model_validate(fields) for path, fields in FAMILIES.items()}


def test_a_branch_is_drawn_only_below_its_option() -> None:
    space = branching()
    asked: list[str] = []

    def suggest(name: str, given: BaseDistribution) -> Any:
        asked.append(name)
        return {"model.family": "mlp", "mlp/model.numeric_embedding": "periodic"}.get(name, 7)

    drawn = draw(space, suggest)
    assert list(drawn) == asked
    assert asked == ["training.lr", "model.family", "mlp/training.weight_decay",
                     "mlp/model.numeric_embedding", "mlp/periodic/model.frequencies"]
    params = decode(space, drawn)
    assert params["model.frequencies"] == params["training.weight_decay"] == 7
    lies = {**params, "training.lr": 0.01, "training.weight_decay": 0.15}
    assert decode(space, encode(space, lies)) == lies


def test_a_value_of_another_branch_is_no_value_of_this_one() -> None:
    params = {"model.family": "linear", "model.numeric_embedding": "none",
              "training.weight_decay": 0.15}
    assert encode(branching(), params) == {"model.family": "linear"}


def test_another_family_starts_from_its_own_defaults() -> None:
    model, _ = with_params(ModelSpec(family="mlp", width=64), TrainingSpec(),
                           {"model.family": "linear"})
    assert model == ModelSpec(family="linear")
    model, _ = with_params(ModelSpec(family="mlp", width=64), TrainingSpec(),
                           {"model.family": "mlp", "model.depth": 2})
    assert model.params == {"width": 64, "depth": 2}


def test_families_in_a_list_bring_their_default_spaces() -> None:
    space = space_for("mlp", {
        "model.family": Dimension(choice=["linear", "mlp"]),
        "training.lr": Dimension(low=1e-4, high=1e-1, log=True),
    }, frozenset({"model.width"}))
    names = [name for name, _, _ in flat(space)]
    assert "linear/training.weight_decay" in names and "mlp/model.depth" in names
    assert not {"mlp/training.lr", "mlp/model.width"} & set(names)


def test_whole_bounds_of_a_field_of_fractions_draw_fractions() -> None:
    space = space_for("mlp", {"training.weight_decay": Dimension(low=0, high=1),
                              "model.depth": Dimension(low=1, high=3)})
    assert not space["training.weight_decay"].integer
    assert space["model.depth"].integer


def test_options_that_are_no_words_are_what_they_say() -> None:
    dimension = Dimension.model_validate({"choice": {"256": {}, "true": {}, "0.5": {}, "a": {}}})
    assert dimension.options == [256, True, 0.5, "a"]


@pytest.mark.parametrize("options", [[1, 1], [True, 1], [[1], "[1]"], [{"a": {1, 2}}]])
def test_options_that_can_t_be_told_apart_are_refused(options: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"option"):
        Dimension(choice=options)


def test_tpe_learns_in_the_branches() -> None:
    space = branching()
    tuning = TuningSpec(trials=30)
    ledger = Ledger(InMemoryStorage(), "s", Objectives.of("log_loss", tuning), tuning, space)
    for _ in range(30):
        number, drawn = ledger.ask()
        params = decode(space, drawn)
        worse = params["model.family"] == "linear"
        ledger.epoch(number, 1, abs(params["training.weight_decay"] - 0.11) + worse)
        ledger.end(number, "complete")
    last = [decode(space, record.params)["model.family"] for record in ledger.records()[20:]]
    assert last.count("mlp") > last.count("linear")
