"""What a user of the Python API brings to a search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raymill.errors import UsageError

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

    from .study import Study

Callback = Callable[["Study", "FrozenTrial"], None]


@dataclass(frozen=True)
class Own:
    """Callbacks `f(study, trial)` after each trial that ends, an Optuna sampler, a Ray Tune scheduler.

    The sampler's and the scheduler's state lies in the instances: a search that is gone on with
    draws and stops by what new ones know.
    """

    callbacks: Sequence[Callback] = ()
    sampler: BaseSampler | None = None
    scheduler: Any = None  # ray.tune.schedulers.TrialScheduler

    def names(self) -> list[str]:
        """The classes of the instances, which tell one search from another."""
        return [type(each).__qualname__ for each in (self.sampler, self.scheduler)
                if each is not None]

    def check(self) -> None:
        """Refuse what is no sampler and no scheduler, and schedulers that pause trials.

        Raises:
            UsageError: names what was given.
        """
        from optuna.samplers import BaseSampler
        from ray.tune.schedulers import TrialScheduler

        if self.sampler is not None and not isinstance(self.sampler, BaseSampler):
            raise UsageError(f"sampler is an optuna.samplers.BaseSampler, but got {self.sampler!r}")
        if self.scheduler is not None and not isinstance(self.scheduler, TrialScheduler):
            raise UsageError("scheduler is a ray.tune.schedulers.TrialScheduler, but got "
                             f"{self.scheduler!r}")
        if cure := _instead(self.scheduler):
            raise UsageError(f"{type(self.scheduler).__name__} pauses trials and goes on with Ray's "
                             "own checkpoints of them, which raymill's trials do not write",
                             cure=cure)


def _instead(scheduler: Any) -> str:
    """What to take in place of a scheduler that pauses trials; empty: this one does not."""
    from ray.tune import schedulers

    populations = (schedulers.PopulationBasedTraining, schedulers.PopulationBasedTrainingReplay)
    if isinstance(scheduler, populations):
        return "Set tuning.scheduler to pbt instead."
    if isinstance(scheduler, schedulers.HyperBandScheduler):  # and HyperBandForBOHB
        return "Set tuning.scheduler to hyperband, or pass an AsyncHyperBandScheduler."
    if isinstance(scheduler, schedulers.MedianStoppingRule) and not scheduler._hard_stop:
        return "Set tuning.scheduler to median, or pass one with hard_stop=True."
    if isinstance(scheduler, schedulers.ResourceChangingScheduler):
        return "Set tuning.resources, which every trial holds."
    return ""
