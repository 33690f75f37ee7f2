"""Where a run works: its spec, home, record, Ray instance and listeners."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raymill.cluster.attach import located
from raymill.cluster.local import Capacity, ray_session
from raymill.errors import Problem, RaymillError, SpecError
from raymill.events import Event, Notify
from raymill.spec import Spec, dump_yaml
from raymill.stores import Store, Unreached, store_at
from raymill.tracking.environment import environment, user
from raymill.tracking.home import Home
from raymill.tracking.mlflow_writer import MLflowWriter
from raymill.tracking.registry import Registry
from raymill.tracking.runs import Run
from raymill.tracking.system import metered

from .project import check_code, check_nodes, own_code
from .stages import Stages, key_of
from .stored_runs import stored, take_up


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
    store: Store | None

    @property
    def project(self) -> str | None:
        """The folder of the user's own code, when the spec names some."""
        return str(self.base) if own_code(self.spec) else None

    def record(self, kind: str, **data: Any) -> None:
        """Put a fact into the journal, and so into MLflow."""
        self.run.journal.append(kind, **data)

    @property
    def registry(self) -> Registry:
        return Registry(self.tracking_uri, self.home, self.store)


def store_of(spec: Spec) -> Store | None:
    """The store of the cluster; None: every node sees the home."""
    return store_at(spec.cluster.store) if spec.cluster.store is not None else None


def prepared_in(spec: Spec) -> Store | None:
    """Where the prepared data lies, if not in the home.

    Raises:
        UsageError: the store can't be written.
    """
    store = store_of(spec)
    if store is None:
        return None
    store.check()
    return store / "data"


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
    store = store_of(spec)
    if store is not None:
        store.check()
    key = key_of({"verb": verb, "spec": spec.model_dump(mode="json"), "base": str(base)})
    with ExitStack() as stack:
        if store is not None:
            take_up(place, key, store)
            after = stack.enter_context(ExitStack())
        run = stack.enter_context(Run.begin(place, spec.name, key, dump_yaml(spec)))
        if store is not None:
            after.enter_context(stored(run, store, notify))
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
        if store is not None and (problems := check_nodes(spec)):
            raise SpecError(problems)
        try:
            yield Work(spec, base, place, run, Stages(place.cache, tell, store), tell,
                       capacity, uri, store)
        except Unreached as error:
            raise RaymillError(Problem(
                rule="cluster.store must answer while a run goes on", got=str(error),
                cure="Mend the store and give the same command again: the run goes on.")) from error
