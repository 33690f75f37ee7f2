"""The book of a batch scoring into a store: an object a finished unit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from raymill.errors import Problem, UsageError
from raymill.stores import Store, store_at

from .score_book import FOLDER, HALT, IDENTITY, MANIFEST, Book, check_same
from .score_units import Done

_PIECE = 2**20


class StoredBook(Book):
    """A store has no locks: nobody else may score into the same place meanwhile."""

    def __init__(self, place: Store, done: dict[str, Done]) -> None:
        super().__init__(str(place), done)
        self._place = place / FOLDER

    def add(self, done: Done) -> None:
        self._place.write(f"done/{done.part}.json", done.to_json().encode())
        self.done[done.part] = done

    def write(self, name: str, document: Mapping[str, Any]) -> None:
        self._place.write(name, json.dumps(document, indent=1).encode())


@contextmanager
def opened(out: str, identity: Mapping[str, Any], *, restart: bool) -> Iterator[Book]:
    """The book of `out`, an s3:// URI; a killed scoring's goes on.

    Raises:
        UsageError: `out` can't be written, or holds something else or another scoring.
    """
    place = store_at(out)
    place.check("the output")
    names = place.names()
    if names and not any(name.startswith(f"{FOLDER}/") for name in names):
        raise UsageError(Problem(rule="a scoring needs a place of its own", got=f"objects in {out}",
                                 cure="Name a new prefix."))
    if restart:
        _clear(place, names)
    elif f"{FOLDER}/{IDENTITY}" in names:
        check_same(out, json.loads(place.read(f"{FOLDER}/{IDENTITY}")), identity)
    for name in (MANIFEST, HALT):
        place.remove(f"{FOLDER}/{name}")
    book = StoredBook(place, {} if restart else _read(place))
    book.write(IDENTITY, identity)
    yield book


def _read(place: Store) -> dict[str, Done]:
    """The finished units whose files are all there."""
    units = place / f"{FOLDER}/done"
    found = [Done.from_json(units.read(name).decode()) for name in units.names()]
    return {done.part: done for done in found if all(_same(place, file) for file in done.files)}


def _same(place: Store, said: Mapping[str, Any]) -> bool:
    digest = hashlib.sha256()
    try:
        with place.open(f"{said['folder']}/{said['name']}".lstrip("/")) as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
    except FileNotFoundError:
        return False
    return bool(digest.hexdigest() == said["sha256"])


def _clear(place: Store, names: list[str]) -> None:
    """Only what a scoring has written."""
    for name in names:
        if name.startswith(f"{FOLDER}/") or name.rpartition("/")[2].startswith("part-"):
            place.remove(name)
