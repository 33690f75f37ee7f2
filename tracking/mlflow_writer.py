"""Keeps MLflow up to date with a run's journal, from a thread of its own.

The journal is the truth and MLflow a view of it: an outage neither stops a run nor loses a metric.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from raymill.errors import UsageError
from raymill.events import Event

from .files import locked, write_whole
from .home import Home
from .runs import Run
from .store import StoreError, open_store, store_error

if TYPE_CHECKING:
    from .mirror import Mirror

POLL_S, GATHER_S, LONGEST_WAIT_S, AWAY_S = 2.0, 0.3, 30.0, 10.0
STATE = "mlflow.json"
log = logging.getLogger(__name__)


class _Sender:
    """Sends what is new in a run's journal; how far it came is kept beside the journal."""

    def __init__(self, uri: str, experiment: str, run: Run, home: Home) -> None:
        self.uri, self.experiment, self.run, self.home = uri, experiment, run, home
        self.path = run.path / STATE
        self.refused: list[str] = []
        self._mirror: Mirror | None = None
        known = read_state(run)
        mine = known.get("store") == store_id(uri)
        self.run_id: str | None = known["run_id"] if mine else None
        self._offset = int(known["offset"]) if mine else 0

    @property
    def unsent(self) -> bool:
        return self._offset < _size(self.run.journal.path)

    def send(self) -> None:
        """Bring MLflow up to date; raises what MLflow raises when it can't be reached."""
        # Two senders of one run would each make it anew: a writer that gave up may still have a
        # call under way when the next run catches up.
        with locked(self.run.path / ".mlflow.lock"):
            if self._mirror is None:
                client = open_store(self.uri, self.home)
                from .mirror import Mirror

                self._mirror = Mirror(client, self.uri, self.experiment, self.run)
                self.refused = self._mirror.refused
            entries, offset = self.run.journal.read_from(self._offset)
            if entries:
                self._mirror.send(entries)
                self._offset = offset
                self.keep()

    def bury(self) -> None:
        """Show a run that was killed as killed."""
        if self._mirror is not None:
            self._mirror.terminate("dead", time.time())
            self.keep(buried=True)

    def keep(self, *, buried: bool = False) -> None:
        """Write down how far MLflow has the journal."""
        if self._mirror is not None:
            self.run_id = self._mirror.run_id
        state = {"store": store_id(self.uri), "experiment": self.experiment,
                 "run_id": self.run_id, "offset": self._offset, "buried": buried}
        write_whole(self.path, json.dumps(state, indent=1))


class MLflowWriter:
    """Writes a run to MLflow while it goes on.

    Leaving the `with` block marks the run as ended, waits up to `patience_s` for MLflow, and warns
    when something is unsent: the next run in this home sends it, or `sync` does.
    """

    def __init__(
        self, uri: str, experiment: str, run: Run, home: Home, *, patience_s: float = 60.0
    ) -> None:
        self.patience_s = patience_s
        self.problem: str | None = None
        self._sender = _Sender(uri, experiment, run, home)
        self._wake = threading.Event()
        self._close_by: float | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="raymill-mlflow", daemon=True)

    def __enter__(self) -> Self:
        self._sender.keep()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._sender.run.end(error)
        self.close()

    def add(self, event: Event) -> None:
        """Something was journalled: send it soon, instead of at the next look."""
        self._wake.set()

    @property
    def unsent(self) -> bool:
        """Whether the journal holds what MLflow does not."""
        return self._sender.unsent

    def close(self) -> None:
        """Send the rest, for `patience_s` at most; not as long when MLflow is known to be away."""
        patience = min(self.patience_s, AWAY_S) if self.problem else self.patience_s
        self._close_by = time.monotonic() + patience
        self._closing.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(patience + 1)
        if self.unsent:
            log.warning("MLflow does not have all of run %s: %s The next run here sends it.",
                        self._sender.run.id, self.problem or "it did not answer in time.")
        for line in self._sender.refused:
            log.warning("MLflow refused a part of run %s: %s", self._sender.run.id, line)

    def _work(self) -> None:
        failures = 0
        caught_up = False
        while True:
            last = self._closing.is_set()  # asked before sending: nothing is journalled after it
            try:
                self._sender.send()
                failures, self.problem = 0, None
                if not caught_up and not last:
                    caught_up = True
                    catch_up(self._sender.uri, self._sender.home)
            except Exception as error:  # noqa: BLE001 - no outage may stop the run
                failures += 1
                self.problem = _told(self._sender.uri, error)
            if last and (not failures or self._over()):
                return
            self._pause(failures)

    def _over(self) -> bool:
        return self._close_by is not None and time.monotonic() >= self._close_by

    def _pause(self, failures: int) -> None:
        """Until there is something to send; after failures longer and longer."""
        if failures:
            wait = min(LONGEST_WAIT_S, 0.5 * 2 ** min(failures, 10))
            if self._close_by is not None:
                time.sleep(max(0.0, min(wait, 1.0, self._close_by - time.monotonic())))
            else:
                self._closing.wait(wait)
            return
        self._wake.wait(POLL_S)
        self._wake.clear()
        self._closing.wait(GATHER_S)


def sync(run: Run, uri: str, home: Home) -> bool:
    """Send what MLflow has not got of a run that is not going on; whether there was any.

    Raises:
        StoreError: MLflow can't be reached.
        UsageError: the run is going on.
    """
    known = read_state(run)
    sender = _Sender(uri, known.get("experiment") or run.name, run, home)
    with run.hold():
        dead = run.record["status"] == "running" and not known.get("buried")
        if not sender.unsent and not dead:
            return False
        try:
            sender.send()
            if dead:
                sender.bury()
        except Exception as error:  # noqa: BLE001 - whatever MLflow raises is told in one way
            raise error if isinstance(error, StoreError) else store_error(uri, error) from None
    return True


def catch_up(uri: str, home: Home) -> int:
    """Send what an outage kept from MLflow of earlier runs; how many runs had such."""
    sent = 0
    for run in Run.list(home):
        if read_state(run).get("store") != store_id(uri):
            continue
        try:
            sent += sync(run, uri, home)
        except UsageError:
            continue
    return sent


def mlflow_run_id(run: Run, uri: str) -> str | None:
    """The id that MLflow at `uri` gave to the run; None before it has one."""
    known = read_state(run)
    return known.get("run_id") if known.get("store") == store_id(uri) else None


def read_state(run: Run) -> dict[str, Any]:
    path = run.path / STATE
    state: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return state


def store_id(uri: str) -> str:
    """Tells stores apart without their credentials."""
    return hashlib.sha256(uri.encode()).hexdigest()[:16]


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _told(uri: str, error: Exception) -> str:
    return str(error if isinstance(error, StoreError) else store_error(uri, error))
