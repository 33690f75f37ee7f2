"""Jobs on a Ray cluster: a project is sent, run by its own process there, and told of."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import re
import time
import zipfile
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from raymill.errors import Problem, RaymillError, UsageError

from .job_api import Job, JobApi
from .project import Project

START, ORDER = "_raymill_job.py", "_raymill_job.json"
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
STOP_S, POLL_S = 90.0, 0.5
_EPOCH = (1980, 1, 1, 0, 0, 0)  # of every file in a package: equal content, equal bytes
EXIT_WORDS = {0: "done", 1: "failed", 2: "bad spec, data or usage", 3: "refused by a gate",
              130: "interrupted"}


def submit(api: JobApi, project: Project, home: str, id: str | None = None) -> tuple[Job, bool]:
    """Start the project as a job; the job, and whether it is a new one.

    Without an `id`, the job is named by its content: the same project again finds the job that
    runs or has succeeded, and starts another only after one that failed or was stopped. With an
    `id` there is one job, whatever became of it. `home` is the raymill home on the cluster.

    Raises:
        UsageError: the cluster's Ray is another version, or the id can't be one.
    """
    _check_ray(api)
    if id is not None and not ID.fullmatch(id):
        raise UsageError(f"a job's id is letters, digits, '.', '_' or '-', but got {id!r}")
    content = package(project)
    name = f"_ray_pkg_{hashlib.sha256(content).hexdigest()[:32]}.zip"
    attempt = 1
    while True:
        chosen = id or _named(project, home, attempt)
        known = api.get(chosen)
        if known is not None and id is None and known.status in ("FAILED", "STOPPED"):
            attempt += 1
            continue
        if known is not None:
            return known, False
        if not api.has_package(name):
            api.upload(name, content)
        fresh = api.submit({
            "entrypoint": f"python {START}", "submission_id": chosen, "entrypoint_num_cpus": 0,
            "runtime_env": {"working_dir": f"gcs://{name}", "env_vars": {"RAYMILL_HOME": home}},
            "metadata": {"raymill": version("raymill"), "project": project.name},
        })
        started = api.get(chosen)
        if started is None:
            raise RaymillError(f"the cluster took the job {chosen}, but does not know it")
        return started, fresh


def stop(api: JobApi, id: str) -> Job:
    """End a job: it marks its run as interrupted and ends its workers; the same project submitted
    again goes on from there.

    Raises:
        UsageError: there is no such job.
        RaymillError: it did not end in time.
    """
    known = find(api, id)
    if known.over:
        return known
    api.stop(id)
    end = time.monotonic() + STOP_S
    while time.monotonic() < end:
        if (known := find(api, id)).over:
            return known
        time.sleep(POLL_S)
    raise RaymillError(f"{id} did not stop within {STOP_S:g} s", cure="Stop it again.")


def find(api: JobApi, id: str) -> Job:
    """The job of that id.

    Raises:
        UsageError: there is none.
    """
    found = api.get(id)
    if found is None:
        known = ", ".join(job.id for job in api.list()[-5:]) or "none"
        raise UsageError(f"there is no job {id!r}", cure=f"The newest: {known}.")
    return found


def cause(job: Job) -> str:
    """Why a job ended as it did, in a few words."""
    if job.exit_code is not None:
        return f"exit code {job.exit_code}: {EXIT_WORDS.get(job.exit_code, 'killed or crashed')}"
    return job.message.splitlines()[0][:300] if job.message else ""


def package(project: Project) -> bytes:
    """A zip of the project and of what starts it; equal projects give equal bytes."""
    order = {
        "versions": {"python": ".".join(platform.python_version_tuple()[:2]),
                     "ray": version("ray"), "raymill": version("raymill")},
        "variables": project.variables, "command": project.command(), "digest": project.digest,
    }
    start = files("raymill.cluster").joinpath("job_start.py").read_bytes()
    everything = {**project.files, START: start,
                  ORDER: json.dumps(order, sort_keys=True).encode()}
    if twice := {START, ORDER} & set(project.files):
        raise UsageError(Problem(rule="a project has no file of raymill's own name",
                                 got=min(twice)))
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in sorted(everything.items()):
            archive.writestr(zipfile.ZipInfo(Path(path).as_posix(), _EPOCH), content)
    return target.getvalue()


def _named(project: Project, home: str, attempt: int) -> str:
    digest = hashlib.sha256(f"{project.digest} {home} {version('raymill')}".encode())
    ending = f"-{attempt}" if attempt > 1 else ""
    return f"{project.label}-{digest.hexdigest()[:12]}{ending}"


def _check_ray(api: JobApi) -> None:
    theirs, ours = api.ray_version(), version("ray")
    if theirs != ours:
        raise UsageError(f"the cluster and this machine must have the same Ray, but it has {theirs}"
                         f" and this has {ours}", cure=f"pip install ray=={theirs}, or upgrade it.")
