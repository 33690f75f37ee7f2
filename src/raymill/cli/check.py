"""`raymill check` and `raymill schema`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from raymill.errors import SpecError
from raymill.spec import json_schema, load_spec

from .output import emit_json
from .progress import shown


def check_verb(options: argparse.Namespace) -> None:
    """Every problem of the spec, then of contract and data."""
    spec = load_spec(options.spec, options.overrides)
    from raymill.cluster.attach import located
    from raymill.cluster.local import ray_session
    from raymill.data.contract import Contract
    from raymill.data.prepare import check
    from raymill.project import check_code, check_task
    from raymill.tracking.home import Home

    base = Path(options.spec).resolve().parent
    problems = check_code(spec, base)
    with shown() as notify, ray_session(
        located(spec.cluster, Home.find().path), base, notify
    ):
        problems += check(spec.data, base, notify, spec.objective.positive)
    if not problems and spec.data.contract is not None:
        problems += check_task(spec, Contract.read(base / spec.data.contract))
    if problems:
        raise SpecError(problems)
    if options.json:
        emit_json({"ok": True, "problems": []})
    else:
        print(f"{options.spec}: spec, contract and data are good")


def schema_verb(options: argparse.Namespace) -> None:
    """The JSON Schema of the spec."""
    json.dump(json_schema(), sys.stdout, indent=2)
    sys.stdout.write("\n")
