"""Model versions with aliases, on MLflow's registry; every change of them is audited."""

from __future__ import annotations

import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raymill.errors import ArtifactError, Problem, RaymillError, UsageError
from raymill.failpoints import failpoint
from raymill.stores import SCHEME, Folder, Store, cause, store_at
from raymill.training.bundle_files import MANIFEST, read_bundle, read_manifest

from .audit import Audit
from .environment import user
from .files import locked
from .home import Home
from .mlflow_writer import mlflow_run_id
from .runs import Run
from .store import is_remote, open_store, store_error

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from raymill.training.bundle import Bundle

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
DIGEST_TAG, RUN_TAG, METRIC_TAG = "raymill.digest", "raymill.run", "raymill.metric."
GATES_TAG = "raymill.gates"  # passed or refused
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ModelVersion:
    """One registered bundle.

    Attributes:
        digest: sha256 of the bundle's manifest. run_id: raymill's run that made it.
        created: epoch seconds. bundle_path: the bundle on this machine; None: not fetched.
    """

    name: str
    version: int
    digest: str
    aliases: tuple[str, ...]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    run_id: str | None
    created: float
    source: str
    bundle_path: Path | None

    def open(self) -> Bundle:
        """The bundle, verified against the registered digest.

        Raises:
            ArtifactError: a file differs, or the bundle is not on this machine.
        """
        from raymill.training.bundle import Bundle

        return Bundle.open(self._here(), self.digest)

    def verify(self) -> None:
        """`open` without torch, which takes seconds to be imported.

        Raises:
            ArtifactError: as `open` does.
        """
        read_bundle(self._here(), self.digest)

    def _here(self) -> Path:
        if self.bundle_path is None:
            raise ArtifactError(f"{self.name}:{self.version} is not on this machine",
                                cure="Registry.resolve fetches it.")
        return self.bundle_path

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {"name": self.name, "version": self.version, "digest": self.digest,
                "aliases": list(self.aliases), "metrics": dict(self.metrics), "run": self.run_id,
                "created": self.created, "tags": dict(self.tags)}


class Registry:
    """The versions of every model. `champion` serves, `challenger` is the newest that does not,
    `previous` was champion before: a rollback returns to it.

    Files of new versions go to MLflow's server, where `uri` is one; else into `store`, or the home.
    Changes hold a lock of the home. Errors of MLflow's are raised as `StoreError`.
    """

    def __init__(self, uri: str, home: Home, store: Store | None = None) -> None:
        self.uri = uri
        self.home = home
        self.store = store
        self.audit = Audit(home.audit)

    def register(
        self,
        name: str,
        bundle: Bundle,
        run_id: str | None,
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
    ) -> ModelVersion:
        """Make `bundle` the next version of `name`, its newest challenger.

        The same bundle again gives the version that it has, told of the newer run and metrics. A version is there with all of its
        files or not at all: a killed call leaves nothing that counts.
        """
        _check_name(name)
        with self._changing():
            found = [v for v in self._versions(name) if v.digest == bundle.digest]
            described = {DIGEST_TAG: bundle.digest, **tags}
            described |= {METRIC_TAG + key: repr(float(v)) for key, v in metrics.items()}
            described |= {RUN_TAG: run_id} if run_id is not None else {}
            if found:
                version = found[-1].version
                for key, value in described.items():
                    self._client.set_model_version_tag(name, str(version), key, value)
            else:
                version = self._create(name, bundle, run_id, described)
            aliases = self._aliases(name)
            if version > max(aliases.get(CHALLENGER, 0), aliases.get(CHAMPION, 0)):
                self._client.set_registered_model_alias(name, CHALLENGER, str(version))
            return self._fetched(self._version(name, version))

    def versions(self, name: str | None = None) -> list[ModelVersion]:
        """What raymill registered (under `name`), by name and version."""
        with self._asking():
            return self._versions(name)

    def champion(self, name: str) -> ModelVersion | None:
        """The champion, its bundle verified; None when the model has none."""
        with self._asking():
            has_one = any(CHAMPION in v.aliases for v in self._versions(name))
        return self.resolve(f"{name}@{CHAMPION}") if has_one else None

    def was_champion(self, name: str, version: int) -> bool:
        """Whether the audit log knows the version as a champion, now or before."""
        return any(entry["action"] in ("promote", "rollback")
                   and entry["data"].get("name") == name
                   and entry["data"].get("version") == version for entry in self.audit.read())

    def resolve(self, ref: str) -> ModelVersion:
        """The version that `name` (its champion), `name@alias` or `name:version` stands for, with
        its bundle on this machine and every file of it verified against the registered digest.

        Raises:
            UsageError: there is no such model, alias or version.
            ArtifactError: a file differs from what was registered; it is named.
        """
        with self._asking():
            version = self._fetched(self._find(ref))
        version.verify()
        return version

    def promote(
        self,
        name: str,
        version: int,
        actor: str | None = None,
        reason: str = "",
        *,
        expected: int | None = None,
    ) -> ModelVersion:
        """Make a version the champion, and the champion so far `previous`.

        Args:
            actor: who does it, for the audit log (default: the user).
            expected: refuse unless this version is champion still (None: whichever is).

        Raises:
            UsageError: no such version, or another champion than `expected`.
            ArtifactError: its bundle is not what was registered.
        """
        self.resolve(f"{name}:{version}")
        with self._changing():
            champion = self._alias_version(name, CHAMPION)
            if expected is not None and champion != expected:
                raise UsageError(f"version {expected} of {name} must be the champion still, but "
                                 f"it is {champion}", cure="Look at raymill models again.")
            if champion != version:
                self._crown(name, version, champion, "promote", actor, reason)
            return self._fetched(self._version(name, version))

    def rollback(self, name: str, actor: str | None = None, reason: str = "") -> ModelVersion:
        """Make the previous champion the champion again; the two change places.

        Raises:
            UsageError: there is no previous champion.
            ArtifactError: its bundle is not what was registered.
        """
        previous = self.resolve(f"{name}@{PREVIOUS}").version
        with self._changing():
            champion = self._alias_version(name, CHAMPION)
            if champion != previous:
                self._crown(name, previous, champion, "rollback", actor, reason)
            return self._fetched(self._version(name, previous))

    def annotate(self, name: str, version: int, tags: Mapping[str, str]) -> None:
        """Put `tags` on a version, in the place of older ones of the same names.

        Raises:
            UsageError: there is no such version.
        """
        if reserved := sorted({DIGEST_TAG, RUN_TAG} & tags.keys()):
            raise UsageError(f"the tag {reserved[0]} says what was registered: it stays")
        with self._changing():
            self._version(name, version)
            for key, value in tags.items():
                self._client.set_model_version_tag(name, str(version), key, value)

    def _create(
        self, name: str, bundle: Bundle, run_id: str | None, tags: Mapping[str, str]
    ) -> int:
        """Store the files, then make the version with its tags in one commit of MLflow's."""
        client = self._client
        if not client.search_registered_models(f"name = '{name}'", max_results=1):
            client.create_registered_model(name)
        mlflow_run = None
        if run_id is not None:
            mlflow_run = mlflow_run_id(Run.open(self.home, run_id), self.uri)
        source, mlflow_run = self._store_files(name, bundle, mlflow_run)
        self.audit.append("register", user(), name=name, digest=bundle.digest, run=run_id)
        made = client.create_model_version(name, source, run_id=mlflow_run, tags=dict(tags))
        return int(made.version)

    def _crown(
        self, name: str, version: int, champion: int | None, action: str, actor: str | None,
        reason: str,
    ) -> None:
        """Audited first: a change that nobody sees is worse than one that did not come about.
        Killed between the aliases, `previous` names the champion, and the same call mends it."""
        self.audit.append(action, actor or user(), name=name, version=version, was=champion,
                          reason=reason)
        client = self._client
        if champion is not None:
            client.set_registered_model_alias(name, PREVIOUS, str(champion))
        client.set_registered_model_alias(name, CHAMPION, str(version))
        if self._alias_version(name, CHALLENGER) == version:
            client.delete_registered_model_alias(name, CHALLENGER)

    @property
    def _client(self) -> MlflowClient:
        return open_store(self.uri, self.home)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Tell MLflow's errors in our words."""
        from mlflow.exceptions import MlflowException

        try:
            yield
        except RaymillError:
            raise
        except (MlflowException, OSError) as error:
            raise store_error(self.uri, error) from None

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with locked(self.home.path / "registry.lock"), self._asking():
            yield

    def _aliases(self, name: str) -> dict[str, int]:
        aliases = self._client.get_registered_model(name).aliases
        return {alias: int(version) for alias, version in aliases.items()}

    def _alias_version(self, name: str, alias: str) -> int | None:
        return self._aliases(name).get(alias)

    def _versions(self, name: str | None) -> list[ModelVersion]:
        where = f"name = '{_check_name(name)}'" if name is not None else None
        search: Callable[..., Any] = self._client.search_model_versions
        found, token = [], None
        while True:
            page = search(where, max_results=1000, page_token=token)
            found += [mv for mv in page if DIGEST.fullmatch(mv.tags.get(DIGEST_TAG, ""))]
            token = page.token
            if not token:
                break
        aliases = {model: self._aliases(model) for model in {mv.name for mv in found}}
        ours = [self._ours(mv, aliases[mv.name]) for mv in found]
        return sorted(ours, key=lambda v: (v.name, v.version))

    def _ours(self, made: Any, aliases: Mapping[str, int]) -> ModelVersion:
        number, tags = int(made.version), dict(made.tags)
        metrics = {key.removeprefix(METRIC_TAG): float(value) for key, value in tags.items()
                   if key.startswith(METRIC_TAG)}
        path = Path(made.source) / "bundle" if Path(made.source).is_absolute() else None
        return ModelVersion(
            name=made.name, version=number, digest=tags[DIGEST_TAG],
            aliases=tuple(sorted(a for a, version in aliases.items() if version == number)),
            metrics=metrics, tags=tags, run_id=tags.get(RUN_TAG),
            created=made.creation_timestamp / 1000, source=made.source, bundle_path=path,
        )

    def _version(self, name: str, version: int) -> ModelVersion:
        for found in self._versions(name):
            if found.version == version:
                return found
        known = ", ".join(str(v.version) for v in self._versions(name)) or "none"
        raise UsageError(f"a version of {name} is one of {known}, but got {version}")

    def _find(self, ref: str) -> ModelVersion:
        name, alias, version = _parse(ref)
        versions = self._versions(name)
        if not versions:
            models = ", ".join(sorted({v.name for v in self._versions(None)})) or "none"
            raise UsageError(Problem(rule=f"a model is one of {models}", got=repr(name),
                                     cure="raymill run registers one."))
        if version is not None:
            return self._version(name, version)
        for found in versions:
            if alias in found.aliases:
                return found
        raise _no_alias(name, alias, sorted({a for v in versions for a in v.aliases}))

    def _store_files(
        self, name: str, bundle: Bundle, mlflow_run: str | None
    ) -> tuple[str, str | None]:
        """Put the files where MLflow finds them; their place and the MLflow run they belong to."""
        from .model_folder import write_model_folder

        folder = self._local_folder(name, bundle.digest)
        draft = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
        draft.mkdir(parents=True, mode=0o700)
        try:
            write_model_folder(draft, bundle, mlflow_run)
            read_bundle(draft / "bundle", bundle.digest)
            if is_remote(self.uri):
                return self._upload(name, draft, bundle.digest, mlflow_run)
            if folder.exists():  # of a call that was killed before the version was made
                shutil.rmtree(folder)
            draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        if self.store is None:
            return str(folder), mlflow_run
        return _publish(folder, self.store / f"models/{name}/{bundle.digest[:32]}"), mlflow_run

    def _upload(
        self, name: str, draft: Path, digest: str, mlflow_run: str | None
    ) -> tuple[str, str]:
        client = self._client
        if mlflow_run is None:
            experiment = client.get_experiment_by_name(name)
            id_ = experiment.experiment_id if experiment else client.create_experiment(name)
            mlflow_run = str(client.create_run(id_, run_name=f"model {name}").info.run_id)
            client.set_terminated(mlflow_run)
        place = f"raymill-{digest[:16]}"
        client.log_artifacts(mlflow_run, str(draft), place)
        return f"{client.get_run(mlflow_run).info.artifact_uri}/{place}", mlflow_run

    def _fetched(self, version: ModelVersion) -> ModelVersion:
        """With its bundle on this machine."""
        if version.bundle_path is not None:
            return version
        folder = self._local_folder(version.name, version.digest)
        if not folder.exists():
            draft = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
            draft.mkdir(parents=True, mode=0o700)
            try:
                got = self._download(version.source, draft)
                read_bundle(got / "bundle", version.digest)
                got.rename(folder)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
        return ModelVersion(**{**version.__dict__, "bundle_path": folder / "bundle"})

    def _download(self, source: str, draft: Path) -> Path:
        """A version's files, in a folder below `draft`."""
        if source.startswith(SCHEME):
            return _fetch_bundle(store_at(source), draft / "model")
        from mlflow.artifacts import download_artifacts

        return Path(download_artifacts(artifact_uri=source, dst_path=str(draft),
                                       tracking_uri=self.uri))

    def bring(self, name: str, digest: str, folder: Path) -> bool:
        """Have a bundle that was registered with the store in `folder`; whether it is there.

        Raises:
            ArtifactError: it is not as it was written.
        """
        place = self.store and self.store / f"models/{name}/{digest[:32]}"
        if place is None or not place.has(f"bundle/{MANIFEST}"):
            return False
        draft = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
        try:
            got = _fetch_bundle(place, draft) / "bundle"
            read_bundle(got, digest)
            shutil.rmtree(folder, ignore_errors=True)
            got.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return True

    def _local_folder(self, name: str, digest: str) -> Path:
        if not DIGEST.fullmatch(digest):
            raise ArtifactError(f"a digest is 64 hex digits, but got {digest[:80]!r}")
        return self.home.artifacts / "models" / _check_name(name) / digest[:32]


def _publish(folder: Path, place: Store) -> str:
    """Put a model's folder into a store, the bundle's manifest last; its place."""
    last = f"bundle/{MANIFEST}"
    with _reached(place):
        if not place.has(last):  # its name is its digest: nothing is written twice
            for name in Folder(folder).names():
                if name != last:
                    place.put(name, folder / name)
            failpoint("registry.before_manifest")
            place.put(last, folder / last)
    return str(place)


def _fetch_bundle(place: Store, folder: Path) -> Path:
    """Copy the bundle of a published model into `folder`, not yet verified."""
    bundle = folder / "bundle"
    bundle.mkdir(parents=True, mode=0o700)
    with _reached(place):
        place.get(f"bundle/{MANIFEST}", bundle / MANIFEST)
        for name in read_manifest(bundle)["files"]:
            place.get(f"bundle/{name}", bundle / name)
    return folder


@contextmanager
def _reached(place: Store) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ArtifactError(Problem(
            rule="the files of a registered model must be where its version says",
            got=cause(error), where=str(place),
            cure="Does the store answer, with the keys of this machine's environment?")) from None


def _parse(ref: str) -> tuple[str, str | None, int | None]:
    """`name`, `name@alias` or `name:version` in its parts."""
    name, at, alias = ref.partition("@")
    if at:
        return _check_name(name), alias, None
    name, colon, number = ref.partition(":")
    if not colon:
        return _check_name(name), CHAMPION, None
    if not number.isdecimal():
        raise UsageError(f"a model is NAME, NAME@ALIAS or NAME:VERSION, but got {ref!r}")
    return _check_name(name), None, int(number)


def _check_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise UsageError(f"a model's name is letters, digits, '.', '_' or '-', but got {name!r}")
    return name


def _no_alias(name: str, alias: str | None, there: list[str]) -> UsageError:
    known = ", ".join(f"@{each}" for each in there) or "none"
    if alias == CHAMPION:
        return UsageError(Problem(
            rule=f"{name} must have a champion", got=f"the aliases {known}",
            cure=f"Name {name}@ALIAS or {name}:VERSION, or make a version the champion: raymill "
                 f"promote {name} VERSION."))
    if alias == PREVIOUS:
        return UsageError(Problem(
            rule=f"a rollback needs an earlier champion of {name}", got=f"the aliases {known}",
            cure=f"raymill models {name} lists its versions."))
    cure = f"A version is {name}:{alias}." if (alias or "").isdigit() else f"raymill models {name} lists them."
    return UsageError(Problem(rule=f"an alias of {name} is one of {known}", got=f"@{alias}", cure=cure))
