"""What data it was: a digest over all content, the same wherever the files lie."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from raymill.errors import DataError

from .chunks import Scan, scan
from .source import DataFile


@dataclass(frozen=True)
class Fingerprint:
    """`root` is 64 hex digits; `files` are `{uri, name, role, size, rows, sha256}` each. The
    sha256 of a file over 32 MiB is that of its pieces' digests."""

    root: str
    files: list[dict[str, Any]]


def fingerprint(files: Sequence[DataFile], scans: Sequence[Scan] | None = None) -> Fingerprint:
    """The fingerprint of `files`, every byte read in parallel Ray tasks (or in `scans`, before).

    Names inside the source count, absolute paths don't.

    Raises:
        DataError: a file can't be read.
    """
    scans = scans if scans is not None else scan(files)
    broken = [problem for found in scans for problem in found.problems if not found.rows]
    if broken:
        raise DataError(broken)
    total = hashlib.sha256()
    listed = []
    for file, found in zip(files, scans, strict=True):
        total.update(f"{file.role}\0{file.name}\0{file.size}\0{found.sha256}\n".encode())
        listed.append({"uri": file.uri, "name": file.name, "role": file.role, "size": file.size,
                       "rows": found.rows, "sha256": found.sha256})
    return Fingerprint(total.hexdigest(), listed)
