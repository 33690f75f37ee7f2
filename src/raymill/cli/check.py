"""`raymill check` and `raymill schema`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from raymill.errors import Problem, SpecError
from raymill.events import Notify
from raymill.spec import Spec, json_schema, load_spec

from .output import emit_json
from .progress import shown


def check_verb(options: argparse.Namespace) -> None:
    """Every problem of the spec, then of contract and data, then (--train) of the model."""
    spec = load_spec(options.spec, options.overrides)
    from raymill.cluster.attach import located
    from raymill.cluster.local import ray_session
    from raymill.data.prepare import check
    from raymill.project import check_code, check_task
    from raymill.tracking.home import Home

    base = Path(options.spec).resolve().parent
    problems = check_code(spec, base)
    checks: list[dict[str, Any]] = []
    cluster = located(spec.cluster, Home.find().path)
    with shown() as notify, ray_session(cluster, base, notify):
        problems += check(spec.data, base, notify, spec.objective.positive,
                          lambda contract: check_task(spec, contract))
        if not problems and options.train:
            checks, problems = _rehearsed(spec, base, notify, quiet=options.json)
    if problems:
        raise SpecError(problems)
    if options.json:
        emit_json({"ok": True, "problems": [], "checks": checks})
    else:
        good = "spec, contract, data and model" if options.train else "spec, contract and data"
        print(f"{options.spec}: {good} are good")


def _rehearsed(
    spec: Spec, base: Path, notify: Notify, *, quiet: bool
) -> tuple[list[dict[str, Any]], list[Problem]]:
    """Each check of the spec's model on its own rows, said as it ends, and what went wrong."""
    from raymill.rehearsal import rehearse

    checks, problems = [], []
    for verdict in rehearse(spec, base, notify):
        checks.append({"name": verdict.name, "rule": verdict.rule, "ok": verdict.ok})
        if verdict.problem is not None:
            problems.append(verdict.problem)
        if not quiet:
            print(f"{'ok    ' if verdict.ok else 'FAILED'} {verdict.name}: {verdict.rule}",
                  flush=True)
    return checks, problems


def schema_verb(options: argparse.Namespace) -> None:
    """The JSON Schema of the spec."""
    json.dump(json_schema(), sys.stdout, indent=2)
    sys.stdout.write("\n")
