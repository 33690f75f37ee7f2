"""MLflow's store: made once, for its owner only, and quiet."""

from __future__ import annotations

import logging
import os
import sqlite3
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from raymill.errors import RaymillError

from .files import locked
from .home import Home
from .redact import redact

if TYPE_CHECKING:
    from mlflow import MlflowClient

# MLflow reads these when it is imported or called; what the user sets wins.
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout is for the verb's own answer
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
}
SQLITE = "sqlite:///"
_opened: dict[str, MlflowClient] = {}
_opening = threading.Lock()


class StoreError(RaymillError):
    """MLflow can't be reached, or refuses; training goes on, registering does not (exit 1)."""


def open_store(uri: str, home: Home) -> MlflowClient:
    """MLflow's client for runs and models at `uri`.

    A SQLite store is made with mode 0600, in WAL mode, by one process at a time: MLflow's own
    migrations (several seconds) spoil the file for good when two run at once.

    Raises:
        StoreError: it can't be opened; the message has no credentials.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    for noisy in ("mlflow", "alembic"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    with _opening:
        if uri in _opened and (database(uri) or home.path).exists():
            return _opened[uri]
        try:
            with locked(home.path / "mlflow.lock"):
                file = database(uri)
                if file is not None:
                    _prepare(file)
                named = _with_driver(uri)
                client = MlflowClient(tracking_uri=named, registry_uri=named)  # opens the store
                client.search_registered_models(max_results=1)
        except Exception as error:  # noqa: BLE001 - whatever MLflow raises is told in one way
            raise store_error(uri, error) from None
        _opened[uri] = client
    return client


def _with_driver(uri: str) -> str:
    """PostgreSQL by the driver that raymill comes with: MLflow would take another, older one."""
    scheme, mark, rest = uri.partition("://")
    return f"postgresql+psycopg{mark}{rest}" if scheme in ("postgresql", "postgres") else uri


def store_error(uri: str, error: Exception) -> StoreError:
    """`error` of MLflow's, told without credentials."""
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return StoreError(f"MLflow at {redact(uri)} must answer, but: {redact(first)[:300]}",
                      cure="Start it or mend tracking.uri, then run the same command again.")


def database(uri: str) -> Path | None:
    """The file of a SQLite store; None for other stores."""
    if not uri.startswith(SQLITE):
        return None
    return Path(uri.removeprefix(SQLITE).partition("?")[0])


def is_remote(uri: str) -> bool:
    """Whether artifacts go through a server instead of into the home."""
    return uri.startswith(("http://", "https://"))


def ui_command(home: Home, port: int) -> list[str]:
    """The command that shows the home's store in MLflow's own UI, on loopback only.

    MLflow's job endpoints are off, and requests that name another host (DNS rebinding) are refused.
    """
    open_store(home.tracking_uri, home)  # the server would make the tables without our lock
    return [
        "env", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false", "MLFLOW_DISABLE_TELEMETRY=true",
        sys.executable, "-m", "mlflow", "server",
        "--backend-store-uri", home.tracking_uri,
        "--artifacts-destination", str(home.artifacts),
        "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--allowed-hosts", f"127.0.0.1:{port},localhost:{port}",
    ]


def _prepare(file: Path) -> None:
    """Make the SQLite file when it is missing: beside its place, then renamed, as MLflow can't go
    on with a file whose migrations were killed half-way."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not file.exists():
        from mlflow.store.db.utils import _initialize_tables, create_sqlalchemy_engine

        draft = file.with_name(f".{file.name}.new")
        draft.unlink(missing_ok=True)
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        engine = create_sqlalchemy_engine(f"{SQLITE}{draft}")
        try:
            _initialize_tables(engine)
        finally:
            engine.dispose()
        with closing(sqlite3.connect(draft)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
        draft.replace(file)
    file.chmod(0o600)
