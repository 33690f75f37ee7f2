"""Who may start a job: requests without a token, with a bad one, from a browser, or to a rebinding
host, against the job API of `cluster up`; the same id submitted twice at once; a client that is
killed. Survived: the request was refused (401, 403 or 405) and nothing was started; there is one
job; the job of the killed client ended with a true status.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from benchmarks.harness import Survival, sized
from raymill.cluster.attach import job_url
from raymill.cluster.environment import token
from raymill.cluster.job_api import JobApi
from raymill.cluster.jobs import submit
from raymill.cluster.project import Project
from raymill.cluster.up import down, up

BROWSER = {"User-Agent": "Mozilla/5.0", "Origin": "https://evil.example",
           "Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "cross-site"}
SPEC = b"name: t\ndata: {source: none.csv, target: y}\nmodel: {family: 'own:build'}\n"
SLOW = b"import time\nprint('HERE', flush=True)\ntime.sleep(15)\nbuild = None\n"


def attacks() -> dict[str, tuple[dict[str, str], set[int]]]:
    good = {"Authorization": f"Bearer {token()}"}
    return {
        "no token": ({}, {401}), "bad token": ({"Authorization": "Bearer wrong"}, {403}),
        "empty token": ({"Authorization": "Bearer"}, {401, 403}),
        "token in another scheme": ({"Authorization": f"Basic {token()}"}, {401, 403}),
        "a browser without the token": (BROWSER, {401, 403, 405}),
        "a browser with the token": ({**good, **BROWSER}, {403, 405}),
        "a rebinding host": ({"Host": "evil.example"}, {401}),
        "a rebinding host in a browser": ({**BROWSER, "Host": "evil.example"}, {401, 403, 405}),
    }


def refused(home: Path, api: JobApi, times: int) -> tuple[int, int, int]:
    """Requests sent, refused as they must be, and commands that were run all the same."""
    mark = home / "ran"
    sent = good = 0
    for headers, codes in attacks().values():
        for _ in range(times):
            answer = httpx.post(f"{api.url}/api/jobs/", headers=headers, trust_env=False,
                                json={"entrypoint": f"touch {mark}"}, timeout=30)
            sent, good = sent + 1, good + (answer.status_code in codes)
    time.sleep(3)
    return sent, good, len(api.list()) + mark.exists()


def one_job(home: Path, api: JobApi, times: int) -> int:
    """How often two submissions of one id at once made one job."""
    good = 0
    for number in range(times):
        project, id = Project("t", {"raymill.yaml": SPEC}, "raymill.yaml"), f"twice-{number}"
        with ThreadPoolExecutor(2) as pool:
            calls = [pool.submit(submit, api, project, str(home), id) for _ in range(2)]
            fresh = [call.result()[1] for call in calls]
        good += sum(fresh) == 1 and [job.id for job in api.list()].count(id) == 1
    return good


def killed_client(home: Path, api: JobApi) -> bool:
    """The job of a client that is killed while it follows ends by itself, truly told."""
    project = Project("t", {"raymill.yaml": SPEC, "own.py": SLOW}, "raymill.yaml")
    job, _ = submit(api, project, str(home))
    client = subprocess.Popen([sys.executable, "-m", "raymill", "logs", job.id, "-f"],
                              stdout=subprocess.PIPE, env={**os.environ, "RAYMILL_HOME": str(home)})
    assert client.stdout is not None
    while b"HERE" not in client.stdout.readline():
        assert client.poll() is None
    client.send_signal(signal.SIGKILL)
    client.wait()
    end = time.monotonic() + 120
    while time.monotonic() < end:
        found = api.get(job.id)
        if found is not None and found.over:
            return found.status == "FAILED" and found.exit_code == 2
        time.sleep(0.5)
    return False


def run() -> Survival:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        up(home, workers=1)
        try:
            with JobApi(job_url(None, home)) as api:
                sent, good, started = refused(home, api, sized(10))
                twice = sized(5)
                one, told = one_job(home, api, twice), killed_client(home, api)
        finally:
            down(home)
    return Survival(
        name="job-auth", fault="requests without right, ids twice at once, a killed client",
        injected=sent + twice + 1, survived=good + one + told, lost=started,
        goal="all refused, nothing started; one job an id; a true status",
        details={"requests": sent, "refused": good, "started": started, "ids twice": twice,
                 "one job": one, "killed client's job told truly": told},
    )
