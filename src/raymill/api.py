"""The Python API: the verbs of the command line that are about registered models, as functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raymill.data.contract import Contract
from raymill.errors import Problem, UsageError
from raymill.events import Notify, ignore
from raymill.serving.spec import ServingSpec
from raymill.spec import spec_from
from raymill.tracking.home import Home
from raymill.tracking.registry import ModelVersion, Registry
from raymill.tracking.runs import Run
from raymill.training.bundle import Bundle
from raymill.training.factories import allowed
from raymill.training.predictor import Predictor

if TYPE_CHECKING:
    import pandas as pd

    from raymill.serving.score import ScoreResult


class Model:
    """A loaded model: a bundle whose hashes held, ready to predict."""

    def __init__(self, predictor: Predictor, version: ModelVersion | None) -> None:
        self.predictor = predictor
        self.version = version

    @property
    def bundle(self) -> Bundle:
        return self.predictor.bundle

    def predict(self, frame: pd.DataFrame) -> pd.DataFrame:
        """`prediction` and, for class tasks, `probability_<class>`, row by row.

        Raises:
            DataError: rows that break the contract, each with its row, column and rule.
        """
        return self.predictor.predict_frame(frame)


def load_model(
    ref: str | Path, *, home: Path | None = None, tracking_uri: str | None = None,
    device: str = "cpu",
) -> Model:
    """A model by `name` (its champion), `name@alias`, `name:version`, or the path of a bundle.

    Raises:
        ArtifactError: a file of the bundle is not as it was written.
        UsageError: there is no such model.
    """
    place = Home.find(home)
    version = None
    if isinstance(ref, Path) or (Path(ref) / "manifest.json").is_file():
        bundle = Bundle.open(ref)
    else:
        version = Registry(tracking_uri or place.tracking_uri, place).resolve(ref)
        bundle = version.open()
    return Model(Predictor(bundle, device=device, factories=allowed(place.path)), version)


def load_contract(
    ref: str, *, home: Path | None = None, tracking_uri: str | None = None
) -> Contract:
    """The contract of a registered model: what its rows look like."""
    place = Home.find(home)
    return Registry(tracking_uri or place.tracking_uri, place).resolve(ref).open().contract


def serving_spec(version: ModelVersion, home: Home, overrides: Sequence[str] = ()) -> ServingSpec:
    """How a version is served: as its run's spec says, with `serving.a=b` overrides.

    Raises:
        SpecError: an override that the spec refuses.
    """
    if outside := [text for text in overrides if not text.startswith("serving.")]:
        raise UsageError(f"serve takes overrides of serving only, but got {outside[0]!r}",
                         cure="Write --set serving.KEY=VALUE.")
    document: dict[str, Any] = {"name": version.name, "data": {"source": "-", "target": "-"}}
    if "serving" in (resolved := _spec_of(version, home)):
        document["serving"] = resolved["serving"]
    return spec_from(document, overrides).serving


def serving_cluster(version: ModelVersion, home: Home, address: str | None = None) -> str:
    """The cluster that a version is served in: that at `address`, else the one that its run's spec
    means; see `cluster.attach.located`. "": a Ray of its own.

    Raises:
        UsageError: it is not on this machine, or asks for no token, or does not answer.
    """
    from raymill.cluster.attach import located
    from raymill.cluster.probe import require_guard
    from raymill.cluster.spec import ClusterSpec

    if address is None:
        said = _spec_of(version, home).get("cluster", {})
        keys = ("address", "cpus", "gpus", "object_store_mb")
        default = ClusterSpec()  # a run keeps the defaults, too: they are nobody's wish
        wished = {key: said[key] for key in keys if said.get(key) not in (None, getattr(default, key))}
        spec = ClusterSpec(**wished)
    else:
        spec = ClusterSpec(address=address)
    try:
        found = located(spec, home.path).address
        if found == "local":
            return ""
        found = found.replace("localhost:", "127.0.0.1:")
        if not found.startswith("127.0.0.1:"):
            raise UsageError(Problem(
                rule="a service shares files with its replicas, so its cluster is on this machine, "
                "at 127.0.0.1:PORT",
                got=f"{found}, by --address, the spec's cluster.address or RAY_ADDRESS",
                cure="raymill k8s service makes a service of another cluster."))
        require_guard(found)
    except UsageError as error:
        (problem,) = error.problems
        cure = f"{problem.cure} Or serve on a Ray of its own: --address local."
        raise UsageError(replace(problem, cure=cure.strip())) from error
    return found


def _spec_of(version: ModelVersion, home: Home) -> dict[str, Any]:
    """The spec of a version's run; empty for a run of another home."""
    import yaml

    try:
        found: dict[str, Any] = yaml.safe_load(Run.open(home, version.run_id or "").spec_yaml)
    except UsageError:
        return {}
    return found


def serve(
    ref: str, *, home: Path | None = None, tracking_uri: str | None = None,
    overrides: Sequence[str] = (), address: str | None = None, detach: bool = True,
    notify: Notify = ignore,
) -> Any:
    """Serve a registered model; with `detach` returns its `ServiceStatus` once it answers.

    Args:
        address: of the cluster that is to have the replicas; `auto` finds one, see
            `cluster.attach`; `local`: a Ray of their own. None: as the run's spec and RAY_ADDRESS
            say.

    Raises:
        UsageError: the name is served already, the port is taken, or the cluster is on another
            machine or asks for no token.
    """
    from raymill.serving import service

    place = Home.find(home)
    registry = Registry(tracking_uri or place.tracking_uri, place)
    version = registry.resolve(ref)
    spec = serving_spec(version, place, overrides)
    cluster = serving_cluster(version, place, address)
    start = service.start_detached if detach else service.run
    return start(version, spec, place.path, notify, registry.uri, cluster)


def score(
    ref: str, sources: str | Sequence[str], out: str | Path, *, home: Path | None = None,
    tracking_uri: str | None = None, address: str = "local", notify: Notify = ignore,
    **options: Any,
) -> ScoreResult:
    """Score every row of `sources` into part files below `out`; see `serving.score`.

    Args:
        address: of the Ray cluster; `auto` finds one, see `cluster.attach`. options: the fields of `serving.score.ScoreOptions`.

    Raises:
        DataError: a row breaks the model's contract; names file and row.
        UsageError: there is no such model, or `out` holds something else.
    """
    from raymill.cluster.attach import located
    from raymill.cluster.local import ray_session
    from raymill.cluster.spec import ClusterSpec

    place = Home.find(home)
    version = Registry(tracking_uri or place.tracking_uri, place).resolve(ref)
    cluster = located(ClusterSpec(address=address), place.path)
    named = [sources] if isinstance(sources, str) else list(sources)
    with ray_session(cluster, None, notify):
        from raymill.serving.score import ScoreOptions
        from raymill.serving.score import score as score_files

        return score_files(version, named, out, place.path, ScoreOptions(**options),
                           notify=notify)


def predictions(
    name: str, *, since: datetime | None = None, until: datetime | None = None,
    version: int | None = None, variant: str | None = None, labelled: bool = False,
    columns: Sequence[str] | None = None, home: Path | None = None,
) -> pd.DataFrame:
    """What the services of a model answered, a row each; see docs/predictions.md for its columns.

    Args:
        since, until: when, in UTC where they have no zone. variant: champion, challenger, shadow.
        labelled: only rows whose true label is known, with `label`, `labelled` and `by`. columns:
            only these of them.
    """
    import pandas as pd

    from raymill.monitoring import predictions as log
    from raymill.monitoring.store import log_folder

    folder = log_folder(Home.find(home).path, name)
    window = log.Window(since, until, version, variant)
    if not labelled:
        rows: pd.DataFrame = log.read(folder, window, columns).to_pandas()
        return rows
    parts = [table.to_pandas() for table in log.labelled(folder, window, columns)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


__all__ = ["Model", "load_model", "predictions", "score", "serve"]
