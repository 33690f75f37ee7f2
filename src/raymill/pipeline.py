"""The road: data, search, train, evaluate, gate, register, report; and its stages alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from raymill.errors import UsageError
from raymill.evaluation.results import Evaluation
from raymill.events import Notify, ignore
from raymill.spec import Spec
from raymill.tuning.own import Callback, Own

from . import steps
from .plan import cluster_nodes
from .plan import make as make_plan
from .results import RunResult, SearchOutcome, TrainOutcome
from .workspace import workspace

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from ray.tune.schedulers import TrialScheduler

    from raymill.training.profile import Profile
    from raymill.tuning.study import Study


def run(
    spec: Spec, *, base: Path | None = None, home: Path | None = None, notify: Notify = ignore
) -> RunResult:
    """From the data to a registered model and its report.

    Stages whose inputs did not change are skipped; a killed run goes on where it stopped.

    Args:
        spec: what to do.
        base: the spec's folder, which relative paths and the user's own modules are looked up in
            (default: the folder that `load_spec` read it from, else the working folder).
        home: where state lives (default: `$RAYMILL_HOME` or `.raymill`).
        notify: is called with every `raymill.events.Event`.

    Raises:
        RaymillError: with problems that the user can mend. A model that a gate refuses is no
            error: see `RunResult.passed`.
    """
    from raymill.training.placement import holding

    with workspace(spec, "run", base, home, notify) as work:
        make_plan(spec, cluster_nodes()).require()
        data = steps.prepare_data(work)
        with holding(data):
            found = steps.search(work, data)
            trained = steps.train(work, data, found)
        evaluation = steps.evaluate(work, data, trained.open())
        verdicts = steps.gate(work, evaluation)
        version, champion = steps.register(work, trained, evaluation, verdicts)
        report = steps.write_report(work, data, found, trained, evaluation, verdicts, version)
        return RunResult(
            run_id=work.run.id, name=spec.name, metric=evaluation.metric, search=found,
            trained=trained, evaluation=evaluation, verdicts=verdicts, version=version,
            champion=champion, report=report, data=steps.summary(data),
        )


def tune(
    spec: Spec, *, base: Path | None = None, home: Path | None = None, notify: Notify = ignore,
    callbacks: Sequence[Callback] = (), sampler: BaseSampler | None = None,
    scheduler: TrialScheduler | None = None,
) -> Study:
    """The search alone. A later `run` or `tune` of the same spec finds its trials done.

    Args:
        spec, base, home, notify: as in `run`.
        callbacks: each is called as `f(study, trial)` after a trial has ended; `study.stop()` ends
            the search.
        sampler: an Optuna sampler, in place of `tuning.sampler`.
        scheduler: a Ray Tune scheduler, in place of `tuning.scheduler`; without metric and mode.

    Raises:
        RaymillError: with problems that the user can mend.
    """
    from raymill.tuning.storage import bring, storage_in
    from raymill.tuning.study import Study

    own = Own(tuple(callbacks), sampler, scheduler)
    own.check()
    if spec.tuning.trials == 0:
        raise UsageError("a search needs at least one trial", cure="Set tuning.trials.")
    with workspace(spec, "tune", base, home, notify) as work:
        make_plan(spec, cluster_nodes(), only="search").require()
        found = steps.search(work, steps.prepare_data(work), own)
        assert found.folder is not None, "a search has a folder"
        if work.store is not None and spec.tuning.storage == "journal":
            bring(found.folder, work.store / f"search/{found.folder.name}")
    return Study.of(found, storage_in(found.folder, spec.tuning.storage))


def train(
    spec: Spec, *, base: Path | None = None, home: Path | None = None, notify: Notify = ignore,
    profiled: Callable[[Profile], None] | None = None,
) -> TrainOutcome:
    """Train the spec's own values, without a search, and write the bundle.

    With `profiled`, some steps are timed first; it hears where their time goes.
    """
    with workspace(spec, "train", base, home, notify) as work:
        make_plan(spec, cluster_nodes(), only="train").require()
        data = steps.prepare_data(work)
        if profiled is not None:
            profiled(steps.profile(work, data))
        return steps.train(work, data, SearchOutcome(steps.metric_of(work, data)))


def evaluate(
    spec: Spec, model: str | None = None, *, base: Path | None = None, home: Path | None = None,
    notify: Notify = ignore,
) -> Evaluation:
    """Measure a registered model (default: the spec's own champion) on the spec's test rows."""
    with workspace(spec, "evaluate", base, home, notify) as work:
        version = work.registry.resolve(model or spec.name)
        return steps.evaluate(work, steps.prepare_data(work), version.open())
