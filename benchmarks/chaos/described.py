"""Requests that schemathesis draws from the endpoint's own OpenAPI description, valid and not.

Each answer must be one that the description tells: no 5xx, a documented status, content type and
shape, and invalid rows refused. Lost counts the kinds of failure that schemathesis found.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.harness import Survival, sized
from benchmarks.served import plain_bundle, port_of, service
from raymill.errors import UsageError

CHECKS = ("not_a_server_error", "status_code_conformance", "content_type_conformance",
          "response_schema_conformance", "negative_data_rejection")
_LIMIT_S = 1800


def drawn(port: int, folder: Path, examples: int) -> dict[str, Any]:
    """schemathesis' own report of `examples` an operation at most."""
    report = folder / "report.json"
    subprocess.run(
        [Path(sys.executable).with_name("schemathesis"), "run", f"http://127.0.0.1:{port}/openapi.json",
         "--max-examples", str(examples), "--seed", "1", "--continue-on-failure", "--no-color",
         "--generation-database", "none", "--request-timeout", "30", "--checks", ",".join(CHECKS),
         "--report-json-path", str(report)],
        cwd=folder, check=False, timeout=_LIMIT_S,
    )
    said: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return said


def run() -> Survival:
    if importlib.util.find_spec("schemathesis") is None:
        raise UsageError("the figure described needs schemathesis, which is not installed",
                         cure="Run `make chaos NAME=described`, or pip install 'raymill[bench]'.")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        with service(plain_bundle(folder), folder / "home") as served:
            said = drawn(port_of(served), folder, sized(500, 20))
    cases = said["test_cases"]
    whole = said["complete"] and said["exit_code"] == 0 and not said["errors"]
    return Survival(
        name="described", fault="requests drawn from the OpenAPI description",
        lost=len(said["failures"]), injected=cases["generated"], survived=cases["generated"] if whole else 0,
        goal="0 of 5xx; every answer as described; invalid rows refused",
        details={"operations": said["operations"], "phases": said["phases"], "test_cases": cases,
                 "failures": said["failures"], "schemathesis": said["schemathesis_version"]},
    )
