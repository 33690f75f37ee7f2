"""Writes checkpoints while the training goes on."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING

from raymill.errors import Problem, TrainingError
from raymill.failpoints import failpoint

from .checkpoint import Snapshot, prune, write
from .parts import Parts

if TYPE_CHECKING:
    from raymill.stores import Store

TICK_S = 1.0
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Saver:
    """A thread that writes checkpoints into `folder`, at most one at a time.

    The run copies its state (`checkpoint.snapshot`) and goes on. What goes wrong while it is
    written is raised by the next `check`, `save` or `close`. `tick` is called every second while
    the run has to wait for the disk. With `parts` it writes this rank's. With a `store`,
    checkpoints are published there.
    """

    def __init__(
        self, folder: Path, tick: Callable[[], None] = lambda: None, parts: Parts | None = None,
        store: Store | None = None,
    ) -> None:
        self.folder, self.tick, self.parts, self.store = folder, tick, parts, store
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="raymill-checkpoint")
        self._writing: Future[None] | None = None

    def save(self, state: Snapshot, number: int) -> None:
        """Begin to write checkpoint `number`; waits for the one before to be done.

        Raises:
            TrainingError: the one before could not be written.
        """
        self.wait()
        self._writing = self._pool.submit(self._write, state, number)

    def check(self) -> None:
        """Raise what went wrong in the background; returns at once."""
        if self._writing is not None and self._writing.done():
            self.wait()

    def wait(self) -> None:
        """Until everything that was given is on disk.

        Raises:
            TrainingError: a weight is not finite (names it), or the disk is full.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            while not wait([writing], TICK_S).done:
                self.tick()
            writing.result()

    def close(self) -> None:
        """Wait, and end the thread."""
        try:
            self.wait()
            if self.parts is not None:
                self.parts.close()
        finally:
            self._pool.shutdown()

    def abandon(self) -> None:
        """Close after an error of the run, without waiting for other ranks."""
        if self.parts is not None:
            self.parts.give_up()
        self.close()

    def _write(self, state: Snapshot, number: int) -> None:
        failpoint("checkpoint.async")
        try:
            self._write_or_make_room(state, number)
        except OSError as error:
            free = shutil.disk_usage(self.folder).free
            raise TrainingError(Problem(
                rule="a checkpoint must fit on the disk, and be written", where=str(self.folder),
                got=f"{error.strerror or error} ({state.bytes:,} bytes needed, {free:,} free)",
                cure="Free some space and run the same command: it goes on from the last good "
                     "checkpoint, which is kept.",
            )) from error
        self._prune()
        if self.store is not None:
            self._publish(self.store, number)

    def _publish(self, store: Store, number: int) -> None:
        from raymill.stores import cause

        from . import mirrored

        try:
            mirrored.put(self.folder, number, store)
        except OSError as error:
            raise TrainingError(Problem(
                rule="a checkpoint must be published in cluster.store", where=str(store),
                got=cause(error), cure="Mend the store and run the same command: it goes on from "
                "the last checkpoint that was published.")) from error

    def _prune(self, newest: int = 2) -> None:
        if self.parts is None or self.parts.rank == 0:
            prune(self.folder, newest)

    def _write_or_make_room(self, state: Snapshot, number: int) -> None:
        try:
            write(self.folder, number, state, self.parts)
        except OSError as error:
            if error.errno not in FULL:
                raise
            self._prune(newest=1)
            write(self.folder, number, state, self.parts)
