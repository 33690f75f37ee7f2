"""A service of a real bundle, as its user sees it. Starts one Ray for all tests."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pandas as pd
import psutil
import pytest

from raymill.errors import RaymillError, UsageError
from raymill.monitoring import predictions
from raymill.monitoring.store import log_folder
from raymill.ports import free_port
from raymill.serving import client, service
from raymill.serving.environment import MARK
from raymill.serving.spec import ReplicasSpec, ServingSpec
from raymill.serving.state import ServiceStatus
from raymill.training.bundle import Bundle
from raymill.training.predictor import Predictor

from .models import version_of

ROWS = [{"x": float(i % 11), "colour": ["red", "blue", None][i % 3]} for i in range(200)]
RUN = """
import sys, types
from pathlib import Path
from raymill.serving import service
from raymill.serving.spec import ServingSpec
name, digest, bundle, home, port = sys.argv[1:]
version = types.SimpleNamespace(name=name, version=1, digest=digest, bundle_path=Path(bundle))
service.run(version, ServingSpec(port=int(port)), Path(home), lambda event: print(event, flush=True))
"""

LOAD = """
import sys, httpx, msgspec
from concurrent.futures import ThreadPoolExecutor
body = msgspec.json.encode({"rows": [{"x": 1.0}] * 10_000})
client = httpx.Client(headers={"content-type": "application/json"}, timeout=60)
with ThreadPoolExecutor(8) as pool:
    while True:
        list(pool.map(lambda _: client.post(sys.argv[1] + "/predict", content=body), range(64)))
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def running(bundle: Bundle, home: Path) -> Iterator[ServiceStatus]:
    replicas = ReplicasSpec(min=1, max=2, target_ongoing=1, upscale_delay="500ms",
                            downscale_delay="1s")
    spec = ServingSpec(port=free_port(), replicas=replicas, cpus_per_replica=0.5)
    status = service.start_detached(version_of(bundle), spec, home, lambda event: None)
    yield status
    service.stop(home, "toy")
    assert left(status.folder) == []
    assert not Path(status.folder).exists() and service.status(home) == []


def left(folder: str) -> list[str]:
    """Names of the processes that carry the mark of the service in `folder`."""
    time.sleep(0.5)
    names = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == folder:
                names.append(process.name())
        except psutil.Error:
            continue
    return names


def test_answers_over_http_are_the_predictors_own(running: ServiceStatus, bundle: Bundle) -> None:
    answers = client.predict(running.url, ROWS, part=70)
    table = Predictor(bundle).predict(bundle.contract.from_rows(ROWS)).to_pydict()
    assert [a["prediction"] for a in answers] == table["prediction"]
    shares = [a["probability"]["yes"] for a in answers]
    assert shares == pytest.approx(table["probability_yes"], abs=1e-6)
    assert len(set(shares)) > 10


def test_answers_are_logged_and_labels_join_them(running: ServiceStatus, home: Path) -> None:
    with client.Client(running.url) as asked:
        answers = asked.predict(ROWS[:40], ids=True)
        frame = asked.predict(pd.DataFrame(ROWS[:40]), ids=True)
        assert asked.feedback({each["id"]: "yes" for each in answers} | {frame["id"][7]: "no"}) == 41
    ids = {each["id"] for each in answers} | set(frame["id"])
    assert len(ids) == 80
    log, end = log_folder(home, "toy"), time.monotonic() + 30
    while True:
        found = [f"{id_}.{row}" for part in predictions.labelled(log)
                 for id_, row in zip(part["id"].to_pylist(), part["row"].to_pylist(), strict=True)]
        if len(found) == 41:
            break
        assert time.monotonic() < end, found
        time.sleep(0.2)
    assert set(found) <= ids


DOCS = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("kind", "block"), re.findall(r"```(sh|python)\n(.*?)```", DOCS, re.DOTALL))
def test_the_commands_of_the_docs_do_what_they_say(
    running: ServiceStatus, kind: str, block: str
) -> None:
    if kind == "sh":
        answers = [
            subprocess.run(["bash", "-c", line], env=os.environ | {"URL": running.url}, check=True,
                           capture_output=True, text=True).stdout
            for line in block.strip().splitlines()]
        assert all("prediction" in answer and '"status"' not in answer for answer in answers)
    else:
        code = f"URL = {running.url!r}\n{block}"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                              check=False)
        assert done.returncode == 0 and done.stdout.strip(), done.stderr


def test_the_pages_are_there_and_name_no_server(running: ServiceStatus) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/schema", "/openapi.json", "/docs"):
        response = httpx.get(running.url + path)
        assert response.status_code == 200 and "server" not in response.headers
    assert httpx.get(running.url + "/readyz").json()["version"] == 7


def test_a_client_cannot_switch_off_the_limits(running: ServiceStatus) -> None:
    headers = {"x-request-timeout-seconds": "0.000001", "x-request-disconnect-disabled": "?1"}
    response = httpx.post(running.url + "/predict", json={"rows": ROWS[:1]}, headers=headers)
    assert response.status_code == 200


def test_a_bad_row_is_422_through_the_proxy_too(running: ServiceStatus) -> None:
    response = httpx.post(running.url + "/predict", json={"rows": [{"x": 11}]})
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"


def test_what_no_replica_knows_has_no_id_and_what_is_no_http_no_problem_document(
    running: ServiceStatus
) -> None:
    unknown = httpx.get(running.url + "/nothing")
    assert unknown.status_code == 404 and "x-raymill-id" not in unknown.headers
    assert unknown.headers["content-type"] == "application/problem+json"
    with socket.create_connection(("127.0.0.1", int(running.url.rpartition(":")[2]))) as raw:
        raw.sendall(b"no HTTP at all\r\n\r\n")
        refused = b"".join(iter(lambda: raw.recv(4096), b""))
    assert refused.startswith((b"HTTP/1.0 400", b"HTTP/1.1 400"))
    assert b"<html>" in refused


def test_all_of_it_listens_on_loopback(running: ServiceStatus) -> None:
    ours = [p.pid for p in psutil.process_iter() if _mark(p) == running.folder]
    sockets = [c for c in psutil.net_connections("inet")
               if c.pid in ours and c.status == psutil.CONN_LISTEN]
    hosts = {c.laddr.ip for c in sockets}
    assert len(sockets) >= 5 and hosts <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}


def test_what_answers_gives_way_to_nothing_of_the_service(running: ServiceStatus) -> None:
    """Ray starts its workers at niceness 15, below a model's proof, which is to step aside."""
    ours = [p for p in psutil.process_iter() if _mark(p) == running.folder]
    answering = [p for p in ours if "ServeReplica" in p.name() or p.name() == "haproxy"]
    assert len(answering) >= 2
    assert {p.nice() for p in answering} == {psutil.Process(running.pid).nice()}
    (replica,) = [p for p in answering if "ServeReplica" in p.name()][:1]
    threads = {os.getpriority(os.PRIO_PROCESS, thread.id) for thread in replica.threads()}
    assert threads == {replica.nice()}


def _mark(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(MARK)
    except psutil.Error:
        return None


def test_its_files_are_the_owners_only(running: ServiceStatus, home: Path) -> None:
    assert Path(running.folder).stat().st_mode & 0o077 == 0
    assert (Path(running.folder) / "token").stat().st_mode & 0o077 == 0
    for name in ("toy.json", "toy.log"):
        assert (home / "services" / name).stat().st_mode & 0o077 == 0


def test_replicas_come_under_load_and_go_when_left_alone(
    running: ServiceStatus, home: Path
) -> None:
    def replicas() -> int:
        return service.status(home, "toy")[0].replicas

    load = subprocess.Popen([sys.executable, "-c", LOAD, running.url])
    try:
        _until(lambda: replicas() == 2)
    finally:
        load.kill()
        load.wait()
    _until(lambda: replicas() == 1)
    counts = [count for _, count, _ in service.status(home, "toy")[0].timeline]
    assert counts[0] == 1 and 2 in counts and counts[-1] == 1
    text = httpx.get(running.url + "/metrics").text
    total = re.search(r'raymill_requests_total{path="/predict",status="200",variant="champion",version="7"} (\d+)', text)
    assert total is not None and int(total[1]) >= 16  # also those of the replica that has gone


def _until(condition: Callable[[], object], limit_s: float = 60) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "not within the time"
        time.sleep(0.2)


def test_a_name_is_served_once(running: ServiceStatus, bundle: Bundle, home: Path) -> None:
    with pytest.raises(UsageError, match="toy is served already"):
        service.start_detached(version_of(bundle), ServingSpec(), home, lambda event: None)


def test_models_beside_each_other_have_their_own_ports_limits_and_ends(
    running: ServiceStatus, bundle: Bundle, home: Path
) -> None:
    other = version_of(bundle)
    other.name, other.version = "other", 2
    spec = ServingSpec(port=free_port(), max_rows=3, replicas=ReplicasSpec(max=1))
    second = service.start_detached(other, spec, home, lambda event: None)
    urls = {each.name: each.url for each in service.status(home)}
    assert urls == {"other": second.url, "toy": running.url} and second.url != running.url
    for url, name, codes in ((running.url, "toy", {200}), (second.url, "other", {422})):
        assert httpx.get(f"{url}/v2/models/{name}").status_code == 200
        asked = [httpx.post(url + "/predict", json={"rows": ROWS[:4]}) for _ in range(5)]
        assert {answer.status_code for answer in asked} == codes
    answer = httpx.post(second.url + "/predict", json={"rows": ROWS[:3]}).json()
    assert (answer["model"], answer["version"]) == ("other", 2)
    service.stop(home, "other")
    assert left(second.folder) == []
    (still,) = service.status(home)
    assert (still.name, still.state, still.pid) == ("toy", "ready", running.pid)
    assert client.predict(running.url, ROWS[:2])


def test_a_changed_bundle_is_not_served_and_leaves_nothing(
    bundle: Bundle, tmp_path: Path
) -> None:
    spec = ServingSpec(port=free_port())
    with pytest.raises(RaymillError, match="its digest differs"):
        service.start_detached(version_of(bundle, "0" * 64), spec, tmp_path, lambda event: None)
    (status,) = service.status(tmp_path)
    assert status.state == "failed" and "digest" in status.error
    assert left(status.folder) == [] and not Path(status.folder).exists()


def test_foreground_ends_at_ctrl_c_and_leaves_nothing(bundle: Bundle, tmp_path: Path) -> None:
    arguments = ["front", bundle.digest, str(bundle.path), str(tmp_path), str(free_port())]
    process = subprocess.Popen([sys.executable, "-c", RUN, *arguments], stdout=subprocess.PIPE)
    _until(lambda: [s for s in service.status(tmp_path) if s.state == "ready"], 120)
    (status,) = service.status(tmp_path)
    assert process.stdout is not None
    assert any(b"answers at" in line for line in process.stdout)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert left(status.folder) == [] and service.status(tmp_path) == []


def test_a_killed_supervisor_takes_its_service_with_it(bundle: Bundle, tmp_path: Path) -> None:
    spec = ServingSpec(port=free_port())
    status = service.start_detached(version_of(bundle), spec, tmp_path, lambda event: None)
    psutil.Process(status.pid).kill()
    _until(lambda: service.status(tmp_path)[0].state == "dead")
    _until(lambda: left(status.folder) == [] and not Path(status.folder).exists())
    service.stop(tmp_path, "toy")
    assert service.status(tmp_path) == []


def test_a_taken_port_is_told_before_anything_starts(bundle: Bundle, tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        spec = ServingSpec(port=other.getsockname()[1])
        with pytest.raises(UsageError, match="is taken"):
            service.start_detached(version_of(bundle), spec, tmp_path, lambda event: None)


def test_replicas_that_do_not_fit_are_refused_or_capped(bundle: Bundle, tmp_path: Path) -> None:
    spec = ServingSpec(port=free_port(), replicas=ReplicasSpec(min=999, max=999))
    with pytest.raises(UsageError, match=r"replicas\.min=999"):
        service.start_detached(version_of(bundle), spec, tmp_path, lambda event: None)


def test_there_is_nothing_to_stop(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no service is called 'ghost'"):
        service.stop(tmp_path, "ghost")
