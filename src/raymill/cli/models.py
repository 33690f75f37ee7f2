"""`raymill models`, `promote`, `rollback`, `runs` and `ui`."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from typing import Any

from raymill.tracking.environment import user
from raymill.tracking.home import Home

from .output import emit_json, emit_table, number


def _registry(options: argparse.Namespace, home: Home) -> Any:
    from raymill.tracking.registry import Registry

    return Registry(options.tracking or home.tracking_uri, home)


def models_verb(options: argparse.Namespace) -> None:
    """Every version: aliases, metrics, who serves it."""
    from raymill.serving.service import status
    from raymill.tracking.registry import GATES_TAG

    home = Home.find()
    versions = _registry(options, home).versions(options.name)
    serving = {(s.name, s.version): s.url for s in status(home.path) if s.state == "ready"}
    documents = [
        {**version.to_dict(), "served_at": serving.get((version.name, version.version))}
        for version in versions
    ]
    if options.json:
        emit_json({"ok": True, "models": documents})
        return
    emit_table("models", ["name", "version", "aliases", "gates", "test metrics", "run",
                          "served at"], [
        [d["name"], d["version"], " ".join(f"@{a}" for a in d["aliases"]),
         d["tags"].get(GATES_TAG, ""),
         "  ".join(f"{k.removeprefix('test_')} {number(v)}"
                   for k, v in list(d["metrics"].items())[:3]), d["run"], d["served_at"]]
        for d in documents
    ])


def promote_verb(options: argparse.Namespace) -> None:
    """Move the champion alias to a version; a running service follows, or refuses it."""
    from raymill.serving import change

    home = Home.find()
    registry = _registry(options, home)
    service = change.running(home.path, options.name)
    if service is None:
        _say(options, registry.promote(
            options.name, options.version, actor=user(), reason=options.reason).to_dict())
        return
    done = change.promote(
        service, registry.resolve(f"{options.name}:{options.version}"),
        accept_contract=options.accept_contract, tracking=options.tracking or "", actor=user(),
        reason=options.reason, said=_said)
    _say(options, done["champion"])


def rollback_verb(options: argparse.Namespace) -> None:
    """End the rollout of a running service; without one, the previous champion is it again. The
    service switches first, and tells what the registry says: MLflow takes seconds to be imported."""
    from raymill.serving import change

    home = Home.find()
    service = change.running(home.path, options.name)
    if service is None:
        _say(options, _registry(options, home).rollback(
            options.name, actor=user(), reason=options.reason).to_dict())
        return
    done = change.rollback(
        service, lambda: _registry(options, home).resolve(f"{options.name}@previous"),
        actor=user(), reason=options.reason, said=_said)
    _say(options, done.get("champion") or _registry(options, home).resolve(options.name).to_dict())


def _said(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _say(options: argparse.Namespace, version: dict[str, Any]) -> None:
    """Of a version, as `ModelVersion.to_dict` has it: it is the champion."""
    from raymill.tracking.registry import GATES_TAG

    if version["tags"].get(GATES_TAG) == "refused":
        _said(f"warning: a gate refused version {version['version']} of {version['name']}")
    if options.json:
        emit_json({"ok": True, **version})
    else:
        print(f"{version['name']} version {version['version']} is the champion")


def runs_verb(options: argparse.Namespace) -> None:
    """The runs of this home, newest first."""
    from raymill.tracking.runs import Run

    documents = [run.to_dict() for run in reversed(Run.list(Home.find(), options.name))]
    if options.json:
        emit_json({"ok": True, "runs": documents})
        return
    emit_table("runs", ["run", "project", "status", "began", "cause"], [
        [d["id"], d["name"], d["status"],
         time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(d["began"])), d["cause"]]
        for d in documents
    ])


def ui_verb(options: argparse.Namespace) -> int:
    """MLflow's UI on the local store, until Ctrl-C."""
    from raymill.tracking.store import ui_command

    # Without it, MLflow shows runs among the evaluations of language models.
    url = f"http://127.0.0.1:{options.port}/#/experiments?workflowType=machine_learning"
    if options.json:
        emit_json({"ok": True, "url": url})
    else:
        print(f"MLflow at {url} (Ctrl-C stops it)")
    with subprocess.Popen(ui_command(Home.find(), options.port)) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.terminate()
            process.wait()
            raise
