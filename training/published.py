"""Folders under a manifest, in a store: there as a whole or not at all, verified when fetched."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raymill.errors import ArtifactError, Problem
from raymill.failpoints import failpoint
from raymill.stores import Store

from .files import MANIFEST, read_manifest, verify_folder


def publish(folder: Path, store: Store) -> None:
    """Put the files of `folder`, which `write_folder` wrote, into `store`, the manifest last.

    Each file lies under its hash: two folders of one name, as of two attempts, never mix, and what
    is there already is not written again.

    Raises:
        OSError: the store can't be written.
    """
    content = (folder / MANIFEST).read_bytes()
    there = set(store.names())
    if MANIFEST in there and store.read(MANIFEST) == content:
        return
    for name, entry in read_manifest(folder)["files"].items():
        if (key := _key(name, entry)) not in there:
            store.put(key, folder / name)
            failpoint("store.after_file")
    failpoint("store.before_manifest")
    store.write(MANIFEST, content)


def fetch(store: Store, dest: Path) -> None:
    """Make `dest` of what was published in `store`; what stood there is replaced.

    Raises:
        ArtifactError: it is not as it was published.
        OSError: the store does not answer.
    """
    temporary = dest.with_name(f".{dest.name}.tmp-{uuid.uuid4().hex[:8]}")
    temporary.mkdir(parents=True, mode=0o700)
    try:
        store.get(MANIFEST, temporary / MANIFEST)
        for name, entry in read_manifest(temporary)["files"].items():
            store.get(_key(name, entry), temporary / name)
        verify_folder(temporary)
        _replace(temporary, dest, store)
    except FileNotFoundError as error:
        raise ArtifactError(Problem(rule="an artifact has every file of its manifest",
                                    got=f"one that is not there ({error.filename or error})",
                                    where=str(store))) from None
    except ArtifactError as error:
        raise ArtifactError([Problem(rule=p.rule, got=p.got, cure=p.cure, where=str(store))
                             for p in error.problems]) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace(temporary: Path, dest: Path, store: Store) -> None:
    if dest.exists() and not is_same(store, dest):
        shutil.rmtree(dest)
    try:
        temporary.rename(dest)
    except OSError:  # another process may have been first with the same
        if not dest.exists():
            raise


def is_same(store: Store, folder: Path) -> bool:
    """Whether `folder` has the manifest that was published in `store`."""
    path = folder / MANIFEST
    return path.is_file() and path.read_bytes() == store.read(MANIFEST)


def withdraw(store: Store) -> None:
    """Remove what was published in `store`, the manifest first."""
    store.remove(MANIFEST)
    store.remove()


def _key(name: str, entry: Mapping[str, Any]) -> str:
    return f"{str(entry['sha256'])[:32]}/{name}"
