"""Spaces go to Optuna and drawn values come back to the specs."""

import pytest

from raymill.errors import UsageError
from raymill.training.params import DEFAULT_SPACES
from raymill.training.spec import ModelSpec, TrainingSpec
from raymill.tuning.capacity import side_by_side, trial_gpu
from raymill.tuning.space import (
    decode,
    encode,
    own_values,
    space_for,
    stated_fields,
    to_optuna,
    with_params,
)
from raymill.tuning.spec import Dimension, TrialResources, TuningSpec


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


def test_trials_run_side_by_side_as_the_machines_allow() -> None:
    tuning = TuningSpec(trials=100, resources=TrialResources(cpu=2))
    assert side_by_side(tuning, 0, [{"CPU": 5.0}, {"CPU": 3.0}, {}]) == 3
    assert side_by_side(tuning, 0.5, [{"CPU": 16.0, "GPU": 1.0}]) == 2
    assert side_by_side(tuning.model_copy(update={"concurrency": 1}), 0, [{"CPU": 8.0}]) == 1


def test_a_trial_that_fits_no_machine_is_refused() -> None:
    tuning = TuningSpec(resources=TrialResources(cpu=8))
    with pytest.raises(UsageError, match="the largest has 4 CPUs"):
        side_by_side(tuning, 0, [{"CPU": 4.0}, {"CPU": 4.0}])


def test_a_trial_takes_a_gpu_where_there_is_one() -> None:
    training = TrainingSpec()
    assert trial_gpu(TuningSpec(), training, {"GPU": 2.0}) == 1
    assert trial_gpu(TuningSpec(), training, {}) == 0
    assert trial_gpu(TuningSpec(), TrainingSpec(gpu="never"), {"GPU": 2.0}) == 0
    with pytest.raises(UsageError, match=r"gpu is never.*resources\.gpu is 1"):
        trial_gpu(TuningSpec(resources=TrialResources(gpu=1)), TrainingSpec(gpu="never"), {})
    with pytest.raises(UsageError, match="has no GPU"):
        trial_gpu(TuningSpec(), TrainingSpec(gpu="require"), {})
