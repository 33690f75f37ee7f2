"""`raymill doctor`."""

from __future__ import annotations

import argparse
import os

from raymill.errors import EXIT_FAILED, EXIT_OK
from raymill.spec import load_spec
from raymill.tracking.home import Home

from .output import emit_json

SIGNS = {"ok": "ok  ", "warn": "WARN", "fail": "FAIL"}


def doctor_verb(options: argparse.Namespace) -> int:
    """Look at the machine and the state; exits 1 when something can't work or is open."""
    from raymill.doctor import diagnose

    spec = load_spec(options.spec) if options.spec else None
    uri = spec.tracking.uri if spec is not None else os.environ.get("MLFLOW_TRACKING_URI")
    findings = diagnose(Home.find(), uri)
    counts = {level: sum(f.level == level for f in findings) for level in SIGNS}
    if options.json:
        emit_json({"ok": counts["fail"] == 0, "findings": [f.to_dict() for f in findings]})
    else:
        for finding in findings:
            print(f"{SIGNS[finding.level]}  {finding.check}: {finding.text}")
            if finding.cure:
                print(f"        cure: {finding.cure}")
        print(f"{counts['ok']} ok, {_counted(counts['warn'], 'warning')}, "
              f"{_counted(counts['fail'], 'failure')}")
    return EXIT_FAILED if counts["fail"] else EXIT_OK


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
