"""A service as other programs reach it: their own clients, with keys and TLS, and while replicas
die. Starts one Ray for all tests."""

from __future__ import annotations

import gc
import os
import signal
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import psutil
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

from raymill.errors import DataError, RaymillError
from raymill.ports import free_port
from raymill.serving import keys, service
from raymill.serving.client import Client
from raymill.serving.environment import MARK
from raymill.serving.spec import ReplicasSpec, ServingSpec, TlsSpec
from raymill.serving.state import ServiceStatus
from raymill.training.bundle import Bundle

from .models import version_of

ROWS = [{"x": float(i % 11), "colour": ["red", "blue"][i % 2]} for i in range(40)]


@dataclass(frozen=True)
class Reached:
    status: ServiceStatus
    key: str
    grpc: str
    ca: str


@pytest.fixture(scope="module")
def reached(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reached]:
    home = tmp_path_factory.mktemp("home")
    ca, private = home / "cert.pem", home / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout",
         str(private), "-out", str(ca), "-subj", "/CN=localhost", "-addext",
         "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    _, key = keys.add(home, "tests")
    spec = ServingSpec(
        port=free_port(), grpc_port=free_port(), keys=True, cpus_per_replica=0.25,
        tls=TlsSpec(cert=str(ca), key=str(private)), replicas=ReplicasSpec(min=2, max=2))
    status = service.start_detached(version_of(bundle), spec, home, lambda event: None)
    yield Reached(status, key, f"127.0.0.1:{spec.grpc_port}", str(ca))
    service.stop(home, "toy")


@pytest.fixture
def asked(reached: Reached) -> Iterator[Client]:
    with Client(reached.status.url, api_key=reached.key, ca=reached.ca) as client:
        yield client


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_the_endpoint_speaks_tls_of_today_and_nothing_else(
    reached: Reached, asked: Client
) -> None:
    assert reached.status.url.startswith("https:")
    assert len(asked.predict(ROWS)) == 40
    old = ssl.create_default_context(cafile=reached.ca)
    old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(httpx.ConnectError):
        httpx.get(reached.status.url + "/healthz", verify=old)
    plain = reached.status.url.replace("https:", "http:")
    with pytest.raises(httpx.TransportError):
        httpx.get(plain + "/healthz")


def test_without_a_key_only_its_health_is_told(reached: Reached) -> None:
    context = ssl.create_default_context(cafile=reached.ca)
    with httpx.Client(base_url=reached.status.url, verify=context) as http:
        assert http.get("/healthz").status_code == 200
        for path in ("/docs", "/metrics", "/openapi.json", "/readyz"):
            assert http.get(path).status_code == 401
        assert http.get("/-/routes").status_code == 404
    with Client(reached.status.url, api_key="rm_0_0", ca=reached.ca) as wrong:
        with pytest.raises(RaymillError, match="needs an API key"):
            wrong.predict(ROWS)


def test_the_key_is_in_no_file_of_the_service(reached: Reached, asked: Client) -> None:
    asked.predict(ROWS)
    secret = reached.key.split("_", 2)[2].encode()
    home = Path(reached.ca).parent
    files = [path for root in (home, Path(reached.status.folder)) for path in root.rglob("*")
             if path.is_file()]
    assert len(files) > 10
    assert not [path for path in files if secret in path.read_bytes()]


def test_a_frame_travels_as_columns_and_says_the_same(asked: Client) -> None:
    rows = asked.predict(ROWS)
    frame = asked.predict(pd.DataFrame(ROWS))
    assert list(frame["prediction"]) == [row["prediction"] for row in rows]
    with pytest.raises(DataError, match=r"rows\[3\]\.x"):
        asked.predict(pd.DataFrame({"x": [1.0] * 3 + [99.0] + [1.0] * 40, "colour": "red"}))


def _tensors(module: object) -> list[object]:
    x = module.InferInput("x", [40], "FP64")  # type: ignore[attr-defined]
    x.set_data_from_numpy(np.array([row["x"] for row in ROWS]))
    colour = module.InferInput("colour", [40], "BYTES")  # type: ignore[attr-defined]
    colour.set_data_from_numpy(np.array([row["colour"] for row in ROWS], dtype=object))
    return [x, colour]


@pytest.mark.filterwarnings("ignore:ssl.match_hostname")  # its HTTP library's
def test_tritons_http_client_is_answered(reached: Reached, asked: Client) -> None:
    _ask_by_tritons_http_client(
        reached, [row["probability"]["yes"] for row in asked.predict(ROWS)])
    gc.collect()  # the client's greenlets must end in the thread that made them


def _ask_by_tritons_http_client(reached: Reached, wanted: list[float]) -> None:
    headers = {"authorization": f"Bearer {reached.key}"}
    client = triton_http.InferenceServerClient(
        reached.status.url.removeprefix("https://"), ssl=True,
        ssl_context_factory=lambda: ssl.create_default_context(cafile=reached.ca))
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("toy", headers=headers)
    names = {each["name"] for each in client.get_model_metadata("toy", headers=headers)["inputs"]}
    assert names == {"x", "colour"}
    inputs = _tensors(triton_http)
    result = client.infer("toy", inputs, headers=headers, request_id="7")
    assert result.get_response()["id"] == "7"
    assert result.as_numpy("probability_yes").tolist() == pytest.approx(wanted)
    text = [triton_http.InferRequestedOutput("prediction", binary_data=False)]
    result = client.infer("toy", inputs, outputs=text, headers=headers)
    assert set(result.as_numpy("prediction")) <= {"no", "yes"}
    with pytest.raises(InferenceServerException, match="The model here is toy"):
        client.infer("other", inputs, headers=headers)
    with pytest.raises(InferenceServerException, match="API key"):
        client.infer("toy", inputs)
    client.close()


def test_tritons_grpc_client_is_answered(reached: Reached, asked: Client) -> None:
    wanted = [row["probability"]["yes"] for row in asked.predict(ROWS)]
    headers = {"authorization": f"Bearer {reached.key}"}
    with triton_grpc.InferenceServerClient(reached.grpc) as client:
        assert client.is_server_live() and client.is_server_ready()
        assert client.is_model_ready("toy", headers=headers)
        assert client.get_server_metadata(headers=headers).name == "raymill"
        assert client.get_model_metadata("toy", headers=headers).versions == ["7"]
        result = client.infer("toy", _tensors(triton_grpc), headers=headers, request_id="9")
        assert result.get_response().id == "9"
        assert result.as_numpy("probability_yes").tolist() == pytest.approx(wanted)
        assert {value.decode() for value in result.as_numpy("prediction")} <= {"no", "yes"}
        for name, sent, match in (("other", headers, "NOT_FOUND"), ("toy", {}, "UNAUTHENTICATED")):
            with pytest.raises(InferenceServerException, match=match):
                client.infer(name, _tensors(triton_grpc), headers=sent)
        wrong = _tensors(triton_grpc)[:1]
        wrong[0].set_data_from_numpy(np.full(40, 99.0))  # type: ignore[attr-defined]
        with pytest.raises(InferenceServerException, match="INVALID_ARGUMENT"):
            client.infer("toy", wrong, headers=headers)


def test_the_grpc_front_comes_back_when_it_dies(reached: Reached) -> None:
    _of(reached, "grpc_front")[0].kill()
    with triton_grpc.InferenceServerClient(reached.grpc) as client:
        _until(lambda: client.is_server_live())


def _of(reached: Reached, word: str) -> list[psutil.Process]:
    """The service's processes whose title has `word`."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == reached.status.folder and word in " ".join(
                process.cmdline()
            ):
                found.append(process)
        except psutil.Error:
            continue
    return found


def _until(condition: object, limit_s: float = 60) -> None:
    end = time.monotonic() + limit_s
    while True:
        try:
            if condition():  # type: ignore[operator]
                return
        except InferenceServerException:
            pass
        assert time.monotonic() < end, "not within the time"
        time.sleep(0.2)


def test_no_prediction_is_lost_when_a_replica_is_killed(reached: Reached) -> None:
    """Without any retry of the client's own."""
    context = ssl.create_default_context(cafile=reached.ca)
    statuses, stop = list[int](), threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=reached.status.url, verify=context, timeout=30,
                          headers={"x-api-key": reached.key}) as http:
            while not stop.is_set():
                statuses.append(http.post("/predict", json={"rows": ROWS[:1]}).status_code)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2):
            time.sleep(1)
            before = len(statuses)
            replicas = _of(reached, "ServeReplica")
            assert len(replicas) == 2
            os.kill(replicas[0].pid, signal.SIGKILL)
            time.sleep(1)
            assert len(statuses) > before
            _until(lambda: len(_of(reached, "ServeReplica")) == 2)
            _until(lambda: service.status(Path(reached.ca).parent, "toy")[0].replicas == 2)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert set(statuses) == {200} and len(statuses) > 50
