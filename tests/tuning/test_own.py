"""What a user brings to a search is one that a search can use."""

import optuna
import pytest
from ray.tune import schedulers

from raymill.errors import UsageError
from raymill.tuning.own import Own


@pytest.mark.parametrize("scheduler", [
    schedulers.HyperBandScheduler(),
    schedulers.HyperBandForBOHB(),
    schedulers.MedianStoppingRule(hard_stop=False),
    schedulers.PopulationBasedTraining(hyperparam_mutations={"lr": [1, 2]}),
    schedulers.ResourceChangingScheduler(),
], ids=lambda scheduler: type(scheduler).__name__)
def test_a_scheduler_that_pauses_trials_is_refused_with_what_to_take(
    scheduler: schedulers.TrialScheduler
) -> None:
    with pytest.raises(UsageError, match=r"pauses trials.*Set tuning\."):
        Own(scheduler=scheduler).check()


def test_what_stops_trials_or_draws_is_taken() -> None:
    for scheduler in (schedulers.ASHAScheduler(), schedulers.MedianStoppingRule(), None):
        Own(scheduler=scheduler, sampler=optuna.samplers.RandomSampler()).check()
    with pytest.raises(UsageError, match="BaseSampler"):
        Own(sampler="tpe").check()  # type: ignore[arg-type]
