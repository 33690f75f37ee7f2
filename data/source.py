"""Where the data is: files, globs and folders, local and s3://, as a sorted list of files."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import pyarrow.fs as pafs

from raymill.errors import DataError, Problem
from raymill.stores import SCHEME, s3
from raymill.stores import endpoint as s3_endpoint

from .spec import Format

FileFormat = Literal["csv", "parquet", "jsonl", "images"]
_SUFFIXES: dict[str, FileFormat] = {
    ".csv": "csv", ".tsv": "csv", ".txt": "csv", ".parquet": "parquet", ".pq": "parquet",
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl",
    ".png": "images", ".jpg": "images", ".jpeg": "images", ".bmp": "images", ".gif": "images",
    ".webp": "images", ".tif": "images", ".tiff": "images",
}
_SKIPPED = (".", "_")  # hidden files, and _SUCCESS and its like


@dataclass(frozen=True)
class DataFile:
    """A file. `name` is its path inside the source, the same wherever the source lies; `role` is
    the part of the spec that named it; `endpoint` is an S3 server other than Amazon's."""

    uri: str
    name: str
    size: int
    format: FileFormat
    role: Literal["source", "validation", "test"] = "source"
    endpoint: str = ""

    @property
    def label(self) -> str:
        """For an image of a folder: its class, the folder it lies in."""
        return PurePosixPath(self.name).parent.name

    def open(self) -> Any:
        """A random-access pyarrow file, to be closed by the caller.

        Raises:
            DataError: it can't be opened.
        """
        filesystem, path = _filesystem(self.uri, self.endpoint)
        try:
            return filesystem.open_input_file(path)
        except OSError as error:
            raise DataError(_unreadable(self.name, error)) from None


def discover(
    source: str | list[str],
    base: Path,
    format: Format = "auto",
    role: Literal["source", "validation", "test"] = "source",
) -> list[DataFile]:
    """The files that `source` names, in a fixed order; local ones relative to `base`.

    Raises:
        DataError: with every problem: nothing there, an empty file, an unknown format.
    """
    endpoint = s3_endpoint()
    files: list[DataFile] = []
    problems: list[Problem] = []
    for item in [source] if isinstance(source, str) else source:
        uri = item if "://" in item else str((base / Path(item).expanduser()).absolute())
        store = endpoint if uri.startswith(SCHEME) else ""
        try:
            found = _list(uri, store)
        except OSError as error:
            problems.append(_unreadable(item, error))
            continue
        if not found:
            problems.append(Problem(rule="a source must name files that exist", got=repr(item),
                                    cure=f"Check the path; local ones start at {base}."))
        for path, name, size in found:
            kind = _format(path, format)
            if kind is None:
                problems.append(_unknown(name))
            elif size == 0:
                problems.append(Problem(rule="a data file must not be empty", got="0 bytes",
                                        where=name, cure="Remove it or write it again."))
            else:
                files.append(DataFile(path, name, size, kind, role, store))
    if problems:
        raise DataError(problems)
    return files


def discover_all(
    source: str | list[str], validation: str | list[str] | None, test: str | list[str] | None,
    base: Path, format: Format,
) -> list[DataFile]:
    """The files of a spec's source, validation and test, in this order.

    Raises:
        DataError: with the problems of all three.
    """
    files: list[DataFile] = []
    problems: list[Problem] = []
    roles: list[tuple[Literal["source", "validation", "test"], str | list[str] | None]] = [
        ("source", source), ("validation", validation), ("test", test)]
    for role, named in roles:
        if named is None:
            continue
        try:
            files += discover(named, base, format, role)
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(problems)
    return files


def _filesystem(uri: str, endpoint: str) -> tuple[Any, str]:
    if uri.startswith(SCHEME):
        return s3(endpoint), uri.removeprefix(SCHEME)
    if "://" in uri and not uri.startswith("file://"):
        filesystem, path = pafs.FileSystem.from_uri(uri)
        return filesystem, str(path)
    return pafs.LocalFileSystem(), uri.removeprefix("file://")


def _list(uri: str, endpoint: str) -> list[tuple[str, str, int]]:
    """(uri, name inside the source, size) of each file that `uri` names, sorted by name."""
    filesystem, path = _filesystem(uri, endpoint)
    prefix = uri[: len(uri) - len(path)] if uri.endswith(path) else ""
    if not any(sign in path for sign in "*?["):
        info = filesystem.get_file_info(path)
        if info.type == pafs.FileType.File:
            return [(prefix + path, PurePosixPath(path).name, info.size)]
        root, pattern = path.rstrip("/"), None
    else:
        parts = PurePosixPath(path).parts
        first = next(i for i, part in enumerate(parts) if any(sign in part for sign in "*?["))
        root, pattern = str(PurePosixPath(*parts[:first])), "/".join(parts[first:])
    selector = pafs.FileSelector(root, recursive=True, allow_not_found=True)
    found = []
    for info in filesystem.get_file_info(selector):
        name = str(PurePosixPath(info.path).relative_to(root))
        if info.type == pafs.FileType.File and (
            _matches(name, pattern) if pattern is not None else not _hidden(name)
        ):
            found.append((prefix + info.path, name, info.size))
    return sorted(found, key=lambda item: item[1])


def _hidden(name: str) -> bool:
    return any(part.startswith(_SKIPPED) for part in PurePosixPath(name).parts)


def _matches(name: str, pattern: str) -> bool:
    """Whether a path matches a glob; `*` stays within a folder, `**` goes through any number.
    As in a shell, only a dot matches the dot of a hidden file or folder."""
    return _matches_parts(name.split("/"), pattern.split("/"))


def _matches_parts(names: list[str], patterns: list[str]) -> bool:
    if not patterns:
        return not names
    if patterns[0] == "**":
        return any(_matches_parts(names[i:], patterns[1:]) for i in range(len(names) + 1)
                   if not any(name.startswith(".") for name in names[:i]))
    if names and names[0].startswith(".") != patterns[0].startswith("."):
        return False
    return bool(names) and fnmatch.fnmatchcase(names[0], patterns[0]) and _matches_parts(
        names[1:], patterns[1:])


def _format(path: str, format: Format) -> FileFormat | None:
    if format != "auto":
        return format
    return _SUFFIXES.get(PurePosixPath(path).suffix.lower())


def _unknown(name: str) -> Problem:
    return Problem(rule="a file's format must be known by its ending", got=repr(name),
                   cure="Set data.format to csv, parquet, jsonl or images.")


def _unreadable(name: str, error: OSError) -> Problem:
    return Problem(rule="a data file must be readable", got=str(error).split("\n")[0][:200],
                   where=name, cure="Check the path, the rights and the credentials.")
