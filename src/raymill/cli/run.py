"""`raymill run`, `train`, `tune` and `evaluate`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from raymill.errors import EXIT_OK, EXIT_REFUSED
from raymill.spec import Spec, load_spec
from raymill.training.objective import METRICS

from .output import emit_json, emit_table, number
from .progress import Shown, shown


def _open(options: argparse.Namespace) -> tuple[Spec, Path, Shown]:
    spec = load_spec(options.spec, options.overrides)
    return spec, Path(options.spec).resolve().parent, shown()


def run_verb(options: argparse.Namespace) -> int:
    """The whole road; exits 3 when a gate refuses the model."""
    spec, base, progress = _open(options)
    with progress as notify:
        from raymill.pipeline import run

        result = run(spec, base=base, notify=notify)
    if options.json:
        emit_json(result.to_dict())
    else:
        _print_run(result)
    return EXIT_OK if result.passed else EXIT_REFUSED


def _print_run(result: Any) -> None:
    evaluation = result.evaluation
    _print_evaluation(evaluation)
    from raymill.evaluation.words import findings

    for finding in findings(evaluation, result.trained.family, result.data["images"]):
        print(f"\n{finding.title}. {finding.text}")
        for advice in finding.tries:
            print(f"  - {advice}")
    print()
    for verdict in result.verdicts:
        print(f"gate {'passed ' if verdict.passed else 'REFUSED'} {verdict.gate}: {verdict.why}")
    alias = "champion" if result.champion else "challenger"
    print(f"\n{result.name} version {result.version} @{alias}  run {result.run_id}")
    print(f"report {result.report}")
    if result.champion:
        print(_next(result.name, result.version))
    elif result.passed:
        print(f"next: raymill promote {result.name} {result.version}")
    else:
        print("the model stays a challenger: a gate refused it\n"
              f"next: the report, and other values in the spec; `raymill serve {result.name}"
              f"@challenger` tries it, `raymill promote {result.name} {result.version}` overrules"
              " the gate")


def _next(name: str, version: int) -> str:
    """What a new champion is good for: a running service does not follow by itself."""
    from raymill.serving.change import running
    from raymill.tracking.home import Home

    served = running(Home.find().path, name)
    if served is None:
        return f"next: raymill serve {name} --detach"
    if served.version == version:
        return f"{name} is served already, at {served.url}"
    return (f"the service at {served.url} still answers by version {served.version}\n"
            f"next: raymill promote {name} {version}")


def _print_evaluation(evaluation: Any) -> None:
    rivals = evaluation.rivals
    percent = round(100 * evaluation.confidence)
    rows = [
        [name, number(e.value), f"[{number(e.low)}, {number(e.high)}]",
         *(number(rival.metrics[name].value) if name in rival.metrics else ""
           for rival in rivals.values())]
        for name, e in evaluation.metrics.items()
    ]
    emit_table(f"{evaluation.rows:,} test rows", ["metric", "model", f"{percent} % interval",
                                                  *rivals], rows)


def train_verb(options: argparse.Namespace) -> None:
    """Train the spec's own values."""
    spec, base, progress = _open(options)
    with progress as notify:
        from raymill.pipeline import train
        from raymill.training.profile import Profile, summary

        found: list[Profile] = []
        trained = train(spec, base=base, notify=notify,
                        profiled=found.append if options.profile else None)
    if options.json:
        extra = {"profile": found[0].to_dict()} if found else {}
        emit_json({**extra, "ok": True, "bundle": str(trained.bundle), "digest": trained.digest,
                   "family": trained.family, "params": trained.params,
                   "validation": trained.metrics, "epochs": trained.history,
                   "resumes": trained.resumes,
                   "seconds": trained.seconds})
        return
    for profile in found:
        print(summary(profile), end="\n\n")
    kept = {k.removeprefix("val_"): v for k, v in trained.metrics.items() if k.startswith("val_")}
    emit_table("validation", ["metric", "value"], [[k, number(v)] for k, v in kept.items()])
    print(f"bundle {trained.bundle}\nnext: raymill run {options.spec}")


def tune_verb(options: argparse.Namespace) -> None:
    """Search hyperparameters."""
    spec, base, progress = _open(options)
    with progress as notify:
        from raymill.pipeline import tune

        found = tune(spec, base=base, notify=notify).outcome
    if options.json:
        emit_json({"ok": True, "metric": found.metric, "best_params": found.best_params,
                   "best_value": found.best_value, "trials": found.trials,
                   "best_trial": found.best_trial, "front": found.front, "study": found.study,
                   "ended_by": found.ended_by, "advice": found.explained["advice"]})
        return
    if found.front:
        _print_front(found)
    sign = -1 if METRICS[found.metric].maximize else 1
    ordered = sorted(found.trials, key=lambda t: (t["value"] is None, sign * (t["value"] or 0)))
    emit_table("trials, best first", ["trial", "state", "epochs", found.metric, "parameters"], [
        [t["number"], t["state"], len(t["values"]), number(t["value"]),
         "  ".join(f"{k}={number(v) if isinstance(v, float) else v}"
                   for k, v in t["params"].items())]
        for t in ordered
    ])
    _print_advice(found)
    print("next: put the best into the spec, or: raymill run " + options.spec)


def _print_advice(found: Any) -> None:
    """What mattered, and what to try next."""
    print()
    for line in found.explained["advice"]:
        print(f"- {line['found']}" + (f"\n    {line['do']}" if line["do"] else ""))
    print()


def _print_front(found: Any) -> None:
    """The trials that none other beats on every objective; the chosen one is marked."""
    by_number = {trial["number"]: trial for trial in found.trials}
    emit_table("Pareto front", ["trial", *found.objectives, "chosen"], [
        [n, *(number(by_number[n]["measures"][name]) for name in found.objectives),
         "*" if n == found.best_trial else ""]
        for n in found.front
    ])


def evaluate_verb(options: argparse.Namespace) -> None:
    """Measure a registered model on the spec's test rows."""
    spec, base, progress = _open(options)
    with progress as notify:
        from raymill.pipeline import evaluate

        evaluation = evaluate(spec, options.model, base=base, notify=notify)
    if options.json:
        emit_json({"ok": True, **evaluation.to_dict()})
    else:
        _print_evaluation(evaluation)
