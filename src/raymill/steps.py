"""The steps of the road, each a function of the work and of what came before it.

What is slow to import (Ray Tune, scikit-learn) is imported by the step that needs it, when it is
not skipped.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raymill.data.prepare import Prepared, prepare
from raymill.errors import ArtifactError, Problem, RaymillError, SpecError, UsageError
from raymill.evaluation.gates import Verdict, judge
from raymill.evaluation.report import ReportData, render
from raymill.evaluation.results import Evaluation
from raymill.evaluation.search_report import SearchData, render_search
from raymill.evaluation.threshold import choose
from raymill.evaluation.words import findings
from raymill.events import note, warn
from raymill.spec import Spec
from raymill.tracking.registry import GATES_TAG, ModelVersion
from raymill.training.auto import AUTO, why
from raymill.training.bundle import Bundle
from raymill.training.bundle import write as write_bundle
from raymill.training.factories import allow, allowed
from raymill.training.job import EXECUTION, make_job
from raymill.training.objective import DEFAULT_METRIC
from raymill.training.params import is_factory
from raymill.training.predictor import Predictor
from raymill.training.spec import ModelSpec, TrainingSpec
from raymill.tuning.explain import explain, rung_epochs
from raymill.tuning.own import Own
from raymill.tuning.space import stated_fields

from .project import check_task, code_digest
from .refit import plan_of, refit
from .results import SearchOutcome, TrainOutcome
from .stages import key_of
from .workspace import Work

if TYPE_CHECKING:
    from raymill.training.profile import Profile


def prepare_data(work: Work) -> Prepared:
    """Read, check, split and describe the data; its own cache knows when nothing changed."""
    spec = work.spec
    data = prepare(spec.data, work.base, work.home.cache / "data", work.notify,
                   spec.objective.positive, work.store and work.store / "data")
    if problems := check_task(spec, data.contract):
        raise SpecError(problems)
    work.record("dataset", name=spec.name, digest=data.fingerprint, rows=data.total_rows,
                source=spec.data.source)
    return data


def summary(data: Prepared) -> dict[str, Any]:
    """Of the data, for results and reports."""
    return {"fingerprint": data.fingerprint, "task": data.contract.task, "rows": data.rows,
            "total_rows": data.total_rows, "quarantined": data.quarantined,
            "in_gap": data.in_gap, "notes": data.notes,
            "images": data.transform.schema.image is not None}


def metric_of(work: Work, data: Prepared) -> str:
    """The metric that is optimised."""
    objectives = work.spec.tuning.objectives
    stated = objectives[0].metric if objectives else work.spec.objective.metric
    return stated or DEFAULT_METRIC[data.contract.task]


def _inputs(work: Work, data: Prepared) -> dict[str, Any]:
    """What search and training depend on alike."""
    return {"data": data.path.name, "metric": metric_of(work, data),
            "code": code_digest(work.spec, work.base)}


def search(work: Work, data: Prepared, own: Own | None = None) -> SearchOutcome:
    """Search hyperparameters; the spec's own values when `tuning.trials` is 0."""
    spec, metric = work.spec, metric_of(work, data)
    if spec.tuning.trials == 0:
        return SearchOutcome(metric)
    own = own or Own()
    free = {"trials", "budget", "concurrency", "resources", "max_failures", "storage", "choose"}
    later = {"refit", "ensemble"}  # what is made of the trials, not what they are
    inputs = {
        **_inputs(work, data),
        "model": spec.model.model_dump(mode="json"),
        "training": spec.training.model_dump(mode="json", exclude={*EXECUTION, "workers"}),
        "tuning": spec.tuning.model_dump(mode="json", exclude=free | later),
        "kept": spec.tuning.kept,
        "stated": sorted(stated_fields(spec.model, spec.training)),
        "own": own.names(),
    }

    def build(folder: Path) -> dict[str, Any]:
        from raymill.tuning.search import search as search_space

        found = search_space(spec.model, spec.training, metric, spec.tuning, data, folder,
                             work.notify, work.project, name=spec.name,
                             code=inputs["code"], own=own,
                             store=work.store and work.store / f"search/{folder.name}")
        return {
            "metric": metric, "best_params": found.best_params, "best_value": found.best_value,
            "trials": [trial.to_dict() for trial in found.trials],
            "explained": explain(found, spec.tuning, spec.training.epochs),
            "model": found.model.model_dump(mode="json"),
            "training": found.training.model_dump(mode="json"),
            "objectives": found.objectives, "front": found.front, "ended_by": found.ended_by,
            "study": found.study_name, "best_trial": found.best_trial,
        }

    wanted = key_of(spec.tuning.model_dump(mode="json", include=free))
    folder, result = work.stages.run(
        "search", inputs, build, mark=f"done-{wanted}", metric=metric, trials=spec.tuning.trials,
        rungs=rung_epochs(spec.tuning, spec.training.epochs),
        detail=lambda r: f"{len(r['trials'])} trials, best {metric} {r['best_value']:.4f}",
    )
    outcome = SearchOutcome(**result, folder=folder)
    work.record("params", **outcome.best_params)
    work.record("best", trial=outcome.best_trial, value=outcome.best_value)
    page = work.run.path / "search.html"
    page.write_text(render_search(f"{spec.name}: the search", _search_data(outcome)), "utf-8")
    work.record("artifact", path=str(page), folder="search")
    note(work.notify, f"the search as a page: {page}")
    return outcome


def _search_data(found: SearchOutcome) -> SearchData:
    return SearchData(found.metric, found.trials, found.best_trial, objectives=found.objectives,
                      front=found.front, **found.explained)


def train(work: Work, data: Prepared, found: SearchOutcome) -> TrainOutcome:
    """Train the found parameters with all of `training.workers`, and write the bundle."""
    spec = work.spec
    model, training = as_found(spec, found)
    job = make_job(model, training, metric_of(work, data), data.transform.schema, work.project)
    if model.family == AUTO:
        note(work.notify, f"model.family auto: {job.family} ({why(job.family, training)})")
    if is_factory(spec.model.family):
        allow(work.home.path, spec.model.family, work.base, model=spec.name)

    def build(folder: Path) -> dict[str, Any]:
        began = time.monotonic()
        made = refit(work, data, job, found, folder)
        info = {"run": work.run.id, "name": spec.name, "data": data.fingerprint,
                "epochs": len(made.history), "best_epoch": made.best_epoch,
                "validation": made.metrics, **({"averaged": made.members} if made.members else {})}
        factories = allowed(work.home.path)
        draft = write_bundle(folder / "draft", made.job, made.weights, data, {}, info, made.offset)
        predictor = Predictor(draft, factories=factories)
        objective = {"metric": job.metric, **_threshold(work, data, predictor)}
        weights, offset = made.last or (made.weights, made.offset)
        final = write_bundle(folder / "bundle", made.job, weights, data, objective, info, offset)
        return {"digest": final.digest, "family": made.job.family,
                "params": made.job.params, "metrics": made.metrics, "history": made.history,
                "resumes": made.resumes, "seconds": time.monotonic() - began}

    inputs = {**_inputs(work, data), "job": job.said(), **plan_of(work, found),
              "threshold": spec.objective.threshold.model_dump(mode="json")}
    folder, result = work.stages.run(
        "train", inputs, build, metric=job.metric, good=partial(_whole, work),
        detail=lambda r: f"{r['family']}, validation {job.metric} {_value(r, job.metric):.4f}",
    )
    work.record("params", **{"model.family": result["family"]})
    work.record("metrics", **{k: v for k, v in result["metrics"].items() if k.startswith("val_")})
    return TrainOutcome(bundle=folder / "bundle", **result)


def as_found(spec: Spec, found: SearchOutcome) -> tuple[ModelSpec, TrainingSpec]:
    """The found model and training, run as the spec says now."""
    if found.model is None or found.training is None:
        return spec.model, spec.training
    execution = spec.training.model_dump(include=EXECUTION)
    return (ModelSpec.model_validate(found.model),
            TrainingSpec.model_validate({**found.training, **execution}))


def profile(work: Work, data: Prepared) -> Profile:
    """Time some steps of the spec's own training; the trace goes into the run's folder."""
    from raymill.training.profile import profile as profile_job

    job = make_job(work.spec.model, work.spec.training, metric_of(work, data),
                   data.transform.schema, work.project)
    with work.stages.announced("profile") as said:
        measured = profile_job(job, data, work.run.path / "profile")
        said["detail"] = f"{measured.step_s * 1e3:.2f} ms a step"
    work.record("artifact", path=str(measured.trace), folder="profile")
    return measured


def _whole(work: Work, folder: Path, result: dict[str, Any]) -> bool:
    """Whether a finished training's bundle is still as it was written, or is so in the store."""
    try:
        Bundle.open(folder / "bundle", result["digest"])
    except ArtifactError:
        try:
            return work.registry.bring(work.spec.name, result["digest"], folder / "bundle")
        except ArtifactError:
            return False
    return True


def _value(result: dict[str, Any], metric: str) -> float:
    return float(result["metrics"][f"val_{metric}"])


def _threshold(work: Work, data: Prepared, predictor: Predictor) -> dict[str, Any]:
    if data.contract.task != "binary":
        return {}
    table = data.table("validation")
    return choose(data.transform.targets(table), predictor.scores(table),
                  work.spec.objective.threshold)


def evaluate(work: Work, data: Prepared, bundle: Bundle) -> Evaluation:
    """Measure the bundle, the baselines and the champion on the test rows.

    Raises:
        UsageError: the model reads other columns, or predicts another thing, than this data has.
    """
    objective = work.spec.objective
    champion, reason = _champion(work, bundle.digest)
    _check_fits(bundle, data)
    inputs = {"data": data.path.name, "digest": bundle.digest, "reason": reason,
              "champion": champion.digest if champion is not None else None,
              "code": code_digest(work.spec, work.base),
              "objective": objective.model_dump(mode="json")}

    def build(folder: Path) -> dict[str, Any]:
        from raymill.evaluation.evaluate import evaluate as measure

        factories = allowed(work.home.path)
        rival, why = None, reason
        if champion is not None:
            try:
                rival = Predictor(champion.open(), factories=factories)
            except RaymillError as error:
                why = str(error)
        predictor = Predictor(bundle, factories=factories)
        measured = measure(predictor, data, objective, metric_of(work, data), work.notify,
                           champion=rival)
        if why:
            measured = replace(measured, skipped={**measured.skipped, "champion": why})
        return measured.to_dict()

    def detail(result: dict[str, Any]) -> str:
        measured = Evaluation.from_dict(result)
        return f"test {measured.metric} {measured.headline.value:.4f}"

    _, result = work.stages.run("evaluate", inputs, build, detail=detail)
    evaluation = Evaluation.from_dict(result)
    for line in evaluation.notes:
        note(work.notify, line)
    for finding in findings(evaluation, bundle.family, data.transform.schema.image is not None):
        warn(work.notify, finding.title)
    work.record("metrics", **{
        f"test_{name}": estimate.value for name, estimate in evaluation.metrics.items()})
    return evaluation


def _champion(work: Work, digest: str) -> tuple[ModelVersion | None, str]:
    """The champion to compare with, when it is another model; or why it can't be."""
    try:
        champion = work.registry.champion(work.spec.name)
    except ArtifactError as error:
        return None, str(error)
    return (champion, "") if champion is not None and champion.digest != digest else (None, "")


def _check_fits(bundle: Bundle, data: Prepared) -> None:
    """A registered model is measured only on data of its own kind."""
    theirs, ours = bundle.contract, data.contract
    if (theirs.task, theirs.classes, theirs.target) != (ours.task, ours.classes, ours.target):
        raise UsageError(Problem(
            rule=f"the model predicts {theirs.target} ({theirs.task}, {theirs.classes})",
            got=f"data with {ours.target} ({ours.task}, {ours.classes})",
            cure="Train it anew with: raymill run"))
    if missing := sorted(set(theirs.features) - set(ours.columns)):
        raise UsageError(Problem(rule="the data must have the columns that the model reads",
                                 got=f"data without {', '.join(missing)}",
                                 cure="Train it anew with: raymill run"))


def gate(work: Work, evaluation: Evaluation) -> list[Verdict]:
    """Judge the model by the spec's gates."""
    with work.stages.announced("gate") as said:
        verdicts = judge(work.spec.objective.gates, evaluation)
        refused = [v for v in verdicts if not v.passed]
        said["detail"] = f"{len(verdicts) - len(refused)} of {len(verdicts)} passed"
    for verdict in refused:
        warn(work.notify, f"refused by {verdict.gate!r}: {verdict.why}")
    return verdicts


def register(
    work: Work, trained: TrainOutcome, evaluation: Evaluation, verdicts: list[Verdict]
) -> tuple[int, bool]:
    """Register the bundle; the version, and whether it is now the champion."""
    name, passed = work.spec.name, all(verdict.passed for verdict in verdicts)
    with work.stages.announced("register") as said:
        metrics = {f"test_{key}": e.value for key, e in evaluation.metrics.items()}
        version = work.registry.register(name, trained.open(), work.run.id, metrics,
                                         {GATES_TAG: "passed" if passed else "refused"})
        champion = work.registry.champion(name)
        is_champion = champion is not None and champion.digest == trained.digest
        if passed and not is_champion and work.spec.tracking.promote == "auto":
            if work.registry.was_champion(name, version.version):
                warn(work.notify, f"version {version.version} was champion before and was replaced:"
                     f" it stays as it is; raymill promote {name} {version.version} brings it back")
            else:
                work.registry.promote(name, version.version, actor=f"run {work.run.id}",
                                      reason="every gate passed")
                is_champion = True
        said["detail"] = f"{name} version {version.version}" + (
            " @champion" if is_champion else " @challenger")
    work.record("model", name=name, version=version.version, digest=trained.digest)
    return version.version, is_champion


def write_report(
    work: Work, data: Prepared, found: SearchOutcome, trained: TrainOutcome,
    evaluation: Evaluation, verdicts: list[Verdict], version: int,
) -> Path:
    """The run's HTML page."""
    path: Path = work.run.path / "report.html"
    with work.stages.announced("report") as said:
        page = render(ReportData(
            title=f"{work.spec.name} version {version}", spec_yaml=work.run.spec_yaml,
            evaluation=evaluation, verdicts=verdicts, history=trained.history,
            search=_search_data(found) if found.trials else None,
            profile=data.profile,
            family=trained.family, lineage=lineage(work, data, trained, version), notes=data.notes,
        ))
        path.write_text(page, encoding="utf-8")
        said["detail"] = str(path)
    work.record("artifact", path=str(path), folder="report")
    return path


def lineage(work: Work, data: Prepared, trained: TrainOutcome, version: int) -> dict[str, Any]:
    """The ids that tie a model to its run, data, spec and environment."""
    return {"run": work.run.id, "model": f"{work.spec.name} version {version}",
            "bundle digest": trained.digest, "data fingerprint": data.fingerprint,
            "contract version": data.contract.version, "spec": work.run.key,
            **work.run.environment}
