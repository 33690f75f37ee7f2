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
        """Refuse what is no sampler and no scheduler, and schedulers that exchange weights.

        Raises:
            UsageError: names what was given.
        """
        from optuna.samplers import BaseSampler
        from ray.tune.schedulers import PopulationBasedTraining, TrialScheduler

        if self.sampler is not None and not isinstance(self.sampler, BaseSampler):
            raise UsageError(f"sampler is an optuna.samplers.BaseSampler, but got {self.sampler!r}")
        if self.scheduler is not None and not isinstance(self.scheduler, TrialScheduler):
            raise UsageError("scheduler is a ray.tune.schedulers.TrialScheduler, but got "
                             f"{self.scheduler!r}")
        if isinstance(self.scheduler, PopulationBasedTraining):
            raise UsageError("Ray's population based training needs its own checkpoints",
                             cure="Set tuning.scheduler to pbt instead.")
