"""Where a search's study is kept: a journal file, SQLite, or Postgres."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.pool import NullPool

from raymill.errors import UsageError

if TYPE_CHECKING:
    from raymill.stores import Store

SHIPPED_S = 5.0
JOURNAL, SQLITE = "study.journal", "study.db"
FILES = {"journal": JOURNAL, "sqlite": SQLITE}


@contextmanager
def held(out: Path, kind: str, store: Store | None = None) -> Iterator[BaseStorage]:
    """The storage of a search in `out`, held by this process alone and mended after a crash.

    With a `store`, the journal is there too, a few seconds behind.

    A process killed while it wrote leaves Optuna's lock behind and may leave half a line, to
    which the next write would be glued. The lock taken here dies with its process.

    Raises:
        UsageError: another process is searching in `out`, or the database does not answer.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / JOURNAL
    with (out / "search.lock").open("w") as lock, ExitStack() as stack:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"another process is searching in {out}", cure="Wait for it, or stop it."
            ) from None
        path.with_name(f"{JOURNAL}.lock").unlink(missing_ok=True)
        if store is not None and kind == "journal":
            from raymill.stores import shipped

            bring(out, store)
            stack.enter_context(shipped(out, lambda: [JOURNAL], store, SHIPPED_S))
        if path.exists():
            written = path.read_bytes()
            os.truncate(path, written.rfind(b"\n") + 1)
        storage = storage_in(out, kind, keep_connections=True)
        try:
            yield storage
        finally:
            if isinstance(storage, RDBStorage):
                storage.engine.dispose()


def bring(out: Path, store: Store) -> None:
    """Have the journal of a search in `out`: the longer one, as after a search on another machine.
    """
    path = out / JOURNAL
    with suppress(FileNotFoundError):
        written = store.read(path.name)
        if not path.exists() or len(written) > path.stat().st_size:
            path.write_bytes(written)


def storage_in(out: Path, kind: str, *, keep_connections: bool = False) -> BaseStorage:
    """The storage of a search in `out`, to read from; connections last as long as a question.

    Raises:
        UsageError: the database does not answer.
    """
    if kind == "journal":
        return JournalStorage(JournalFileBackend(str(out / JOURNAL)))
    pool = {} if keep_connections else {"poolclass": NullPool}
    if kind == "sqlite":
        return RDBStorage(f"sqlite:///{out / SQLITE}", engine_kwargs=pool)
    url = "postgresql+psycopg://" + kind.partition("://")[2]
    try:
        return RDBStorage(url, engine_kwargs={"pool_pre_ping": True} | pool)
    except ImportError:
        raise UsageError("tuning.storage is Postgres, but its driver is not installed",
                         cure="pip install 'raymill[postgres]'") from None
    except Exception as error:  # noqa: BLE001 - SQLAlchemy's and the driver's own classes
        why = str(error).strip().splitlines()[0]
        raise UsageError(f"tuning.storage does not answer: {why}",
                         cure="Start the database, or set PGPASSWORD.") from None


def place_of(out: Path, kind: str) -> str:
    """What `optuna-dashboard` is given to show the study."""
    files = {"journal": str(out / JOURNAL), "sqlite": f"sqlite:///{out / SQLITE}"}
    return files.get(kind, "postgresql+psycopg://" + kind.partition("://")[2])
