"""Packs a project for a cluster: the spec, its contract and the user's own code, never the data."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from raymill.cluster.project import Project
from raymill.errors import Problem, SpecError, UsageError
from raymill.spec import Spec, load_spec
from raymill.tracking.redact import redact

from .project import check_code, own_code, sources

MAX_BYTES = 20 * 2**20
_PASSWORD = re.compile(  # in a URI: user:password@, or a parameter that says so
    r"://[^\s/@:]*:[^\s/@]+@|[?&][\w.-]*(?:token|secret|passw(?:or)?d|signature)[\w.-]*=",
    re.IGNORECASE)
Where = Literal["same files", "elsewhere"]


def pack(
    spec_file: Path, overrides: Sequence[str], variables: Sequence[str] = (),
    where: Where = "elsewhere",
) -> tuple[Spec, Project]:
    """The spec, and the project to be sent.

    Data stays where it is. Where the cluster sees the `same files` (this machine, a shared disk),
    relative paths are made absolute; `elsewhere`, only URIs like s3:// and absolute paths do.

    Raises:
        SpecError: the spec or the code it names is wrong.
        UsageError: data that the cluster can't see, a secret in the spec, or too many files.
    """
    spec, base = load_spec(spec_file, overrides), spec_file.resolve().parent
    if problems := [*check_code(spec, base), *_secrets(spec_file, overrides),
                    *_contract_outside(spec, base)]:
        raise SpecError(problems)
    sized = [f"cluster.{name}=null" for name in ("cpus", "gpus", "object_store_mb")
             if getattr(spec.cluster, name) is not None]  # of a local Ray, which it won't be there
    settings = [*overrides, *_places(spec, base, where), *sized]
    paths = [Path(spec_file.name), *([Path(spec.data.contract)] if spec.data.contract else [])]
    if own_code(spec):
        paths += [path.relative_to(base) for path in sources(base)]
    files = {path.as_posix(): (base / path).read_bytes() for path in dict.fromkeys(paths)}
    if (size := sum(map(len, files.values()))) > MAX_BYTES:
        raise UsageError(f"a project's own files have at most {MAX_BYTES:,} bytes, but {base} has "
                         f"{size:,} in {len(files)} files",
                         cure="Give the spec a folder of its own, or install your package there.")
    return spec, Project(spec.name, files, spec_file.name, settings, sorted(set(variables)))


def _places(spec: Spec, base: Path, where: Where) -> list[str]:
    """Overrides that name the data by places that hold on the cluster."""
    found = []
    for field in ("source", "validation", "test"):
        said = getattr(spec.data, field)
        if said is None:
            continue
        items = [said] if isinstance(said, str) else said
        if where == "elsewhere" and (local := [i for i in items if not _absolute(i)]):
            raise UsageError(
                f"the cluster must see data.{field}, but {local[0]!r} is a file of this machine",
                cure="Put the data on s3:// (or a disk that the pods mount) and name it by that.")
        placed = [i if "://" in i else str((base / Path(i).expanduser()).absolute()) for i in items]
        if placed != items:
            found.append(f"data.{field}={json.dumps(placed)}")
    return found


def _absolute(item: str) -> bool:
    return "://" in item or Path(item).is_absolute()


def _secrets(spec_file: Path, overrides: Sequence[str]) -> list[Problem]:
    """What is sent is kept and shown by the cluster: no secret may be in it."""
    lines = [(f"{spec_file}:{number}", line)
             for number, line in enumerate(spec_file.read_text("utf-8").splitlines(), 1)]
    lines += [("--set", text) for text in overrides]
    return [
        Problem(rule="a spec that is sent to a cluster holds no password", where=place,
                got=redact(line).strip(),
                cure="Let the cluster's environment hold it (MLFLOW_TRACKING_PASSWORD, PGPASSWORD, "
                     "AWS_SECRET_ACCESS_KEY), and name it by --env.")
        for place, line in lines if _PASSWORD.search(line)
    ]


def _contract_outside(spec: Spec, base: Path) -> list[Problem]:
    if spec.data.contract is None:
        return []
    inside = (base / spec.data.contract).resolve().is_relative_to(base)
    return [] if inside and not Path(spec.data.contract).is_absolute() else [
        Problem(rule="data.contract lies in the spec's folder to be sent", got=spec.data.contract)]
