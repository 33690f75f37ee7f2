"""Folders of files that are whole or not there: fsync, a manifest of hashes last, rename."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from raymill.errors import ArtifactError, Problem
from raymill.failpoints import failpoint

MANIFEST = "manifest.json"
_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_folder(
    dest: Path, fill: Callable[[Path], Mapping[str, Any] | None], about: dict[str, Any]
) -> Path:
    """Make `dest` with the files that `fill(folder)` writes and a manifest of their hashes.

    `fill` may return manifest entries of files that another `write_folder` wrote, which are taken
    as they are. Whoever sees `dest` sees all of it: it is written beside and renamed. What stood there is
    replaced.
    """
    dest.parent.mkdir(parents=True, exist_ok=True)
    temporary = dest.with_name(f".{dest.name}.tmp-{uuid.uuid4().hex[:8]}")
    temporary.mkdir(mode=0o700)
    try:
        failpoint("artifact.before_write")
        known = fill(temporary) or {}
        files = sorted(path for path in temporary.iterdir() if path.name not in known)
        entries = {p.name: {"sha256": sha256(p), "size": p.stat().st_size} for p in files}
        for path in files:
            _sync(path)
        failpoint("artifact.before_manifest")
        manifest = temporary / MANIFEST
        manifest.write_text(json.dumps({**about, "files": {**entries, **known}}, indent=1, sort_keys=True))
        _sync(manifest)
        _sync(temporary)
        failpoint("artifact.before_rename")
        if dest.exists():
            old = dest.with_name(f".{dest.name}.old-{uuid.uuid4().hex[:8]}")
            dest.rename(old)
            temporary.rename(dest)
            shutil.rmtree(old)
        else:
            temporary.rename(dest)
        failpoint("artifact.after_rename")
        _sync(dest.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return dest


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of `folder`.

    Raises:
        ArtifactError: it is missing or not a manifest.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        entries = manifest["files"].items()
        if all(_NAME.fullmatch(n) and {"sha256", "size"} <= set(e) for n, e in entries):
            return dict(manifest)
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        pass
    raise ArtifactError(Problem(rule="an artifact needs a whole manifest.json", where=str(folder),
                                cure="It was not written to its end, or was changed."))


def verify_folder(folder: Path) -> dict[str, Any]:
    """The manifest of `folder`, every file checked against it.

    Raises:
        ArtifactError: names the file that is missing, extra, a link, or changed.
    """
    manifest = read_manifest(folder)
    expected = manifest["files"]
    present = {path.name: path for path in folder.iterdir() if path.name != MANIFEST}
    for name in sorted(set(expected) | set(present)):
        path = present.get(name)
        if path is None or name not in expected:
            state = "missing" if path is None else "not in the manifest"
            raise ArtifactError(Problem(rule="an artifact holds just the files of its manifest",
                                        got=f"{name}, which is {state}", where=str(folder)))
        if path.is_symlink() or not path.is_file():
            raise ArtifactError(Problem(rule="an artifact holds plain files only",
                                        got=f"{name}, which is not one", where=str(folder)))
        if path.stat().st_size != expected[name]["size"] or sha256(path) != expected[name]["sha256"]:
            raise ArtifactError(Problem(
                rule=f"{name} must be as it was written: its sha256 differs from the manifest",
                where=str(folder), cure="Restore the folder from a copy, or train again."))
    return manifest
