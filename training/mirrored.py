"""Checkpoints in a store: published by rank 0, fetched by whoever goes on from them elsewhere."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from raymill.errors import ArtifactError
from raymill.stores import Store, scratch, store_at

from . import checkpoint
from .files import MANIFEST
from .job import TrainJob
from .published import fetch, is_same, publish, withdraw
from .result import FitResult

__all__ = ["arrived", "bring", "clear", "copied", "mirror", "numbers", "put", "scratch", "sent"]
START = "start"  # in a store, the checkpoint that a training begins with
NEWEST = 2  # checkpoints that are kept, beside the best that they know of


def put(folder: Path, number: int, store: Store) -> None:
    """Publish a checkpoint of `folder`, and withdraw those that nobody goes back to.

    Raises:
        OSError: the store can't be written.
    """
    publish(checkpoint.at(folder, number), _at(store, number))
    published = numbers(store)
    for old in set(published) - {*published[:NEWEST], *checkpoint.numbers(folder)}:
        withdraw(_at(store, old))


def numbers(store: Store) -> list[int]:
    """The numbers of the published checkpoints, newest first."""
    names = store.names()
    return sorted((number for name in names if name.endswith(f"/{MANIFEST}")
                   and (number := checkpoint.number_of(name.partition("/")[0])) is not None),
                  reverse=True)


def mirror(store: Store, folder: Path, warned: Callable[[str], None]) -> None:
    """Let `folder` hold the newest good checkpoint of the store, and the best that it knows of.

    What was not published to its end, and what is damaged, is removed: there, and here too, as
    the other ranks could not fetch it.

    Raises:
        OSError: the store does not answer.
    """
    published = numbers(store)
    for name in store.folders():
        if checkpoint.number_of(name) not in published:
            withdraw(store / name)  # an upload was killed
    for number in set(checkpoint.numbers(folder)) - set(published):
        checkpoint.remove(folder, number)
    for number in published:
        if not _brought(store, number, folder, warned):
            continue
        best = checkpoint.read_progress(checkpoint.at(folder, number)).best_checkpoint
        if best in published and best != number:
            _brought(store, best, folder, warned)
        return


def bring(store: Store, number: int, folder: Path) -> Path:
    """A published checkpoint, in `folder`.

    Raises:
        ArtifactError: it is not as it was published.
        OSError: the store does not answer.
    """
    path = checkpoint.at(folder, number)
    if not (is_same(_at(store, number), path) and not checkpoint.problem_of(folder, number)):
        fetch(_at(store, number), path)
        if problem := checkpoint.problem_of(folder, number):
            raise ArtifactError(problem)
    return path


def sent(job: TrainJob, store: Store) -> TrainJob:
    """The job, beginning with the checkpoint that every machine can fetch."""
    if job.start is None:
        return job
    publish(Path(job.start), store / START)
    return replace(job, start=str(store / START))


def copied(uri: str) -> Path:
    """A copy on this machine of what was published, the same for all of its processes."""
    store = store_at(uri)
    path = scratch(store)
    if not is_same(store, path):
        fetch(store, path)
    return path


def arrived(result: FitResult, store: Store, out: Path) -> FitResult:
    """A worker's result, with what it published in `store` on this machine, below `out`."""
    regrown = result.regrown and _brought_from(store, checkpoint.REGROWN, out, result.regrown)
    return replace(_brought_from(store, checkpoint.CHECKPOINTS, out, result), regrown=regrown)


def _brought_from(store: Store, folder: str, out: Path, result: FitResult) -> FitResult:
    name = result.checkpoint.name if result.checkpoint is not None else ""
    number = checkpoint.number_of(name)
    if number is None:
        return result
    return replace(result, checkpoint=bring(store / folder, number, out / folder))


def clear(folder: Path) -> None:
    """Remove what was copied."""
    shutil.rmtree(folder, ignore_errors=True)


def _brought(store: Store, number: int, folder: Path, warned: Callable[[str], None]) -> bool:
    try:
        bring(store, number, folder)
    except ArtifactError as error:
        warned(f"a checkpoint is damaged and is not taken: {error}")
        withdraw(_at(store, number))
        return False
    return True


def _at(store: Store, number: int) -> Store:
    return store / checkpoint.at(Path(), number).name
