"""Looks at raymill's own state, beside the machine's: runs, services, MLflow's store."""

from __future__ import annotations

import os

from raymill.cluster.doctor import look
from raymill.cluster.findings import Finding, bad, doubtful, good
from raymill.errors import RaymillError
from raymill.serving import state as services
from raymill.tracking.home import Home
from raymill.tracking.redact import redact
from raymill.tracking.runs import Run
from raymill.tracking.store import open_store


def diagnose(home: Home, tracking_uri: str | None = None) -> list[Finding]:
    """Every finding about this machine and about the state in `home`."""
    return [*look(home.path), *runs(home), *served(home), store(home, tracking_uri),
            artifacts(home)]


def runs(home: Home) -> list[Finding]:
    """Runs that were killed: they hold nothing, and the same command goes on with them."""
    every = Run.list(home)
    dead = [run for run in every if run.status == "dead"]
    found = [doubtful("runs", f"{run.id} was killed while it ran",
                      "The same command goes on where it stopped.") for run in dead]
    return found or [good("runs", f"{len(every)} runs, none was killed on its way")]


def served(home: Home) -> list[Finding]:
    """Services whose process is gone, and locks of services that nobody holds any more."""
    names = sorted(path.stem for path in home.services.glob("*.json"))
    known = [status for name in names if (status := services.read(home.path, name)) is not None]
    gone = [status for status in known if status.state in ("dead", "failed")]
    found = [doubtful("services", f"{status.name} is {status.state}: {status.error or 'killed'}",
                      f"raymill serve stop {status.name}") for status in gone]
    alive = [status for status in known if status.alive]
    return found or [good("services", f"{len(alive)} running")]


def store(home: Home, tracking_uri: str | None) -> Finding:
    """MLflow's store answers."""
    uri = tracking_uri or home.tracking_uri
    if tracking_uri is None and not home.db.exists():
        return good("mlflow", f"a store will be made at the first run, in {home.db}")
    try:
        open_store(uri, home)
    except RaymillError as error:
        problem = error.problems[0]
        return bad("mlflow", problem.rule, problem.cure)
    return good("mlflow", f"{redact(uri)} answers")


def artifacts(home: Home) -> Finding:
    """The place of the models' files can be written."""
    probe = home.artifacts / f".doctor.{os.getpid()}"
    try:
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        return bad("artifacts", f"{home.artifacts} can't be written: {error.strerror}",
                   "Set RAYMILL_HOME to a folder of yours.")
    return good("artifacts", f"{home.artifacts} can be written")


