"""Where a run works: its spec, home, record, Ray instance and listeners."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raymill.cluster.attach import located
from raymill.cluster.local import Capacity, ray_session
from raymill.errors import SpecError
from raymill.events import Event, Notify
from raymill.spec import Spec, dump_yaml
from raymill.tracking.environment import environment, user
from raymill.tracking.home import Home
from raymill.tracking.mlflow_writer import MLflowWriter
from raymill.tracking.registry import Registry
from raymill.tracking.runs import Run
from raymill.tracking.system import metered

from .project import check_code, own_code
from .stages import Stages, key_of


@dataclass(frozen=True)
class Work:
    """All that a stage needs to know of its run."""

    spec: Spec
    base: Path
    home: Home
    run: Run
    stages: Stages
    notify: Notify
    capacity: Capacity
    tracking_uri: str

    @property
    def project(self) -> str | None:
        """The folder of the user's own code, when the spec names some."""
        return str(self.base) if own_code(self.spec) else None

    def record(self, kind: str, **data: Any) -> None:
        """Put a fact into the journal, and so into MLflow."""
        self.run.journal.append(kind, **data)

    @property
    def registry(self) -> Registry:
        return Registry(self.tracking_uri, self.home)


@contextmanager
def workspace(
    spec: Spec, verb: str, base: Path | None, home: Path | None, notify: Notify
) -> Iterator[Work]:
    """Open a run for `verb`, or go on with one of the same spec that did not end.

    Every event goes to the caller, the run's journal and MLflow. The run is marked finished,
    interrupted or failed, and Ray is stopped, however the block ends.
    """
    base = (base or spec.base or Path.cwd()).resolve()
    if problems := check_code(spec, base):
        raise SpecError(problems)
    place = Home.find(home)
    uri = spec.tracking.uri or place.tracking_uri
    key = key_of({"verb": verb, "spec": spec.model_dump(mode="json"), "base": str(base)})
    with ExitStack() as stack:
        run = stack.enter_context(Run.begin(place, spec.name, key, dump_yaml(spec)))
        writer = stack.enter_context(
            MLflowWriter(uri, spec.tracking.experiment or spec.name, run, place)
        )

        def tell(event: Event) -> None:
            run.journal.append_event(event)
            writer.add(event)
            notify(event)

        tell(Event("note", {"text": f"run {run.id}" + (" (goes on)" if run.resumed else "")}))
        run.journal.append("environment", **environment(base), user=user())
        run.journal.append("artifact", path=str(run.path / "spec.yaml"), folder="spec")
        if spec.tracking.system_metrics:
            stack.enter_context(metered(lambda reading: run.journal.append("metrics", **reading)))
        cluster = located(spec.cluster, place.path)
        if cluster.address == "local":
            tell(Event("note", {"text": "Ray is starting"}))
        capacity = stack.enter_context(ray_session(cluster, base, tell))
        yield Work(spec, base, place, run, Stages(place.cache, tell), tell, capacity, uri)
