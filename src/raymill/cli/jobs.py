"""`raymill submit`, `jobs`, `status`, `logs` and `stop`: jobs on a Ray cluster."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from raymill.errors import EXIT_FAILED, EXIT_OK, UsageError
from raymill.tracking.home import Home

from .output import emit_json, emit_table

if TYPE_CHECKING:
    from raymill.cluster.job_api import JobApi


def submit_verb(options: argparse.Namespace) -> int:
    """Send a project to a cluster; with --follow, its exit code is the job's."""
    from raymill.cluster.attach import is_ours, job_url
    from raymill.cluster.job_api import JobApi
    from raymill.cluster.jobs import submit
    from raymill.package import pack

    home = Home.find().path
    url = job_url(options.address, home)
    ours = is_ours(url, home)
    place = options.home or (str(home) if ours else None)
    if place is None:
        raise UsageError("a job on another machine keeps its state there",
                         cure="Name the folder, on a disk that its nodes share: --home PATH")
    _, project = pack(Path(options.spec), options.overrides, options.env,
                      "same files" if ours else "elsewhere")
    with JobApi(url) as api:
        job, fresh = submit(api, project, place, options.id)
        said = "submitted" if fresh else f"is there already ({job.status.lower()})"
        print(f"{job.id} {said}", file=sys.stderr)
        if options.follow:
            return _follow(api, job.id, options.json)
        if options.json:
            emit_json({"ok": True, "new": fresh, "job": job.to_dict()})
        else:
            print(f"{job.id}\nnext: raymill logs {job.id} -f, raymill status {job.id}, "
                  f"raymill stop {job.id}")
    return EXIT_OK


def jobs_verb(options: argparse.Namespace) -> None:
    """Every job that the cluster knows."""
    with _api(options) as api:
        found = api.list()
    if options.json:
        emit_json({"ok": True, "jobs": [job.to_dict() for job in found]})
        return
    from raymill.cluster.jobs import cause

    emit_table("jobs", ["job", "status", "began", "seconds", "cause"], [
        [job.id, job.status.lower(), _clock(job.began),
         round((job.ended or time.time()) - job.began) if job.began else "", cause(job)]
        for job in found
    ])


def status_verb(options: argparse.Namespace) -> None:
    """How a job is, or ended, and why."""
    from raymill.cluster.jobs import cause, find

    with _api(options) as api:
        job = find(api, options.id)
    if options.json:
        emit_json({"ok": True, "job": job.to_dict(), "cause": cause(job)})
        return
    print(f"{job.id} {job.status.lower()}" + (f": {cause(job)}" if cause(job) else ""))
    print(f"began {_clock(job.began)}" + (f", ended {_clock(job.ended)}" if job.ended else ""))
    if job.status == "FAILED" and job.message:
        print(job.message.strip())


def logs_verb(options: argparse.Namespace) -> int:
    """What a job said; with -f until it ends, and its exit code is the job's."""
    from raymill.cluster.jobs import find

    with _api(options) as api:
        job = find(api, options.id)
        if options.follow:
            return _follow(api, job.id, options.json)
        text = api.logs(job.id)
    if options.json:
        emit_json({"ok": True, "id": job.id, "logs": text})
    else:
        sys.stdout.write(text)
    return EXIT_OK


def stop_verb(options: argparse.Namespace) -> None:
    """End a job; submitted again, it goes on where it stopped."""
    from raymill.cluster.jobs import stop

    with _api(options) as api:
        job = stop(api, options.id)
    if options.json:
        emit_json({"ok": True, "job": job.to_dict()})
    else:
        print(f"{job.id} {job.status.lower()}; raymill submit goes on where it stopped")


def _api(options: argparse.Namespace) -> JobApi:
    from raymill.cluster.attach import job_url
    from raymill.cluster.job_api import JobApi

    return JobApi(job_url(options.address, Home.find().path))


def _follow(api: JobApi, id: str, as_json: bool) -> int:
    """Show the job's output (on stderr with --json) until it ends; its exit code."""
    from raymill.cluster.jobs import cause, find

    out = sys.stderr if as_json else sys.stdout
    try:
        for piece in api.follow(id):
            out.write(piece)
            out.flush()
    except KeyboardInterrupt:
        print(f"\n{id} goes on; raymill logs {id} -f, raymill stop {id}", file=sys.stderr)
        raise
    job = find(api, id)
    while not job.over:
        time.sleep(0.5)
        job = find(api, id)
    if as_json:
        emit_json({"ok": job.status == "SUCCEEDED", "job": job.to_dict(), "cause": cause(job)})
    print(f"{id} {job.status.lower()}: {cause(job)}", file=sys.stderr)
    if job.exit_code is not None and 0 <= job.exit_code < 256:
        return job.exit_code
    return EXIT_OK if job.status == "SUCCEEDED" else EXIT_FAILED


def _clock(moment: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment)) if moment else ""
