"""A bundle's files, verified and read. Without torch: a registry checks many and runs none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from raymill.errors import ArtifactError, Problem

from .files import MANIFEST, read_manifest, sha256, verify_folder

__all__ = ["FORMAT", "MANIFEST", "PARTS", "read_bundle", "read_manifest"]
FORMAT = 1
PARTS = ("model", "transform", "contract", "profile", "objective", "info")


def read_bundle(folder: Path, digest: str | None = None) -> tuple[str, dict[str, Any]]:
    """The digest and the JSON parts of the bundle in `folder`, every file checked against the
    manifest.

    Raises:
        ArtifactError: a file is missing, extra or changed (named), the manifest is not the one
            that `digest` names, or the bundle is of another format.
    """
    verify_folder(folder)
    found = sha256(folder / MANIFEST)
    if digest is not None and found != digest:
        raise ArtifactError(Problem(
            rule="a bundle must be the one that was registered: its digest differs",
            got=f"{found[:16]}… instead of {digest[:16]}…", where=str(folder),
            cure="Restore the folder from a copy, or train and register again."))
    try:
        parts = {name: json.loads((folder / f"{name}.json").read_bytes()) for name in PARTS}
        written = parts["model"]["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(Problem(rule="a bundle holds its parts as JSON",
                                    got=repr(error), where=str(folder))) from error
    if written != FORMAT:
        raise ArtifactError(Problem(rule=f"this raymill reads bundles of format {FORMAT}",
                                    got=str(written), where=str(folder)))
    return found, parts
