"""Triton's own gRPC client against the front, which asks the endpoint in this process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from raymill.data.contract import Contract
from raymill.serving import keys
from raymill.serving.endpoint import build
from raymill.serving.grpc_front import Front, server
from raymill.serving.guards import guards_of
from raymill.serving.spec import ServingSpec


@pytest.fixture
def key(tmp_path: Path) -> dict[str, str]:
    return {"authorization": f"Bearer {keys.add(tmp_path, 'tests')[1]}"}


@pytest.fixture
def client(
    tmp_path: Path, contract: Contract, predictor: Any, key: dict[str, str]
) -> Iterator[triton.InferenceServerClient]:
    spec = ServingSpec(keys=True, max_rows=8, max_body_mb=0.01)
    app = build("fraud", 3, spec, contract, predictor, guards_of(spec, tmp_path, tmp_path))
    loop, port, stop = asyncio.new_event_loop(), list[int](), asyncio.Event()
    started = threading.Event()

    async def main() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://e") as ask:
            running = server(Front(ask), spec)
            port.append(running.add_insecure_port("127.0.0.1:0"))
            await running.start()
            started.set()
            await stop.wait()
            await running.stop(1)

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
    thread.start()
    assert started.wait(20)
    with triton.InferenceServerClient(f"127.0.0.1:{port[0]}") as client:
        yield client
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()


def tensors(x: list[float]) -> list[triton.InferInput]:
    number = triton.InferInput("x", [len(x)], "FP64")
    number.set_data_from_numpy(np.array(x))
    code = triton.InferInput("code", [len(x)], "BYTES")
    code.set_data_from_numpy(np.array(["AB"] * len(x), dtype=object))
    return [number, code]


def test_tensors_are_scored(client: triton.InferenceServerClient, key: dict[str, str]) -> None:
    result = client.infer("fraud", tensors([7.0, 2.0]), request_id="a", headers=key)
    assert result.get_response().id == "a" and result.get_response().model_version == "3"
    assert result.as_numpy("prediction").tolist() == [b"fraud", b"fine"]
    assert result.as_numpy("probability_fraud").tolist() == pytest.approx([0.7, 0.2])
    outputs = [triton.InferRequestedOutput("probability_fine")]
    result = client.infer("fraud", tensors([7.0]), outputs=outputs, model_version="3", headers=key)
    assert [each.name for each in result.get_response().outputs] == ["probability_fine"]


def test_typed_contents_are_read_too(
    client: triton.InferenceServerClient, key: dict[str, str]
) -> None:
    request = service_pb2.ModelInferRequest(model_name="fraud")
    for name, datatype, values in (("x", "FP32", {"fp32_contents": [7.0]}),
                                   ("code", "BYTES", {"bytes_contents": [b"AB"]})):
        request.inputs.add(name=name, datatype=datatype, shape=[1], contents=values)
    stub: service_pb2_grpc.GRPCInferenceServiceStub = client._client_stub
    response = stub.ModelInfer(request, metadata=list(key.items()))
    assert response.raw_output_contents[0] == b"\x05\0\0\0fraud"


def test_server_and_model_are_described(
    client: triton.InferenceServerClient, key: dict[str, str]
) -> None:
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("fraud", headers=key)
    assert client.get_server_metadata(headers=key).extensions == ["binary_tensor_data"]
    metadata = client.get_model_metadata("fraud", "3", headers=key)
    assert metadata.platform == "raymill_pytorch"
    assert {each.name: each.datatype for each in metadata.inputs}["x"] == "FP64"


@pytest.mark.parametrize(
    ("model", "x", "sent", "status", "match"),
    [
        ("fraud", [11.0], True, "INVALID_ARGUMENT", r"rows\[0\].x breaks"),
        ("fraud", [1.0] * 9, True, "INVALID_ARGUMENT", "1 to 8 rows"),
        ("fraud", [1.0] * 1000, True, "INVALID_ARGUMENT", "must not be longer"),
        ("other", [1.0], True, "NOT_FOUND", "The model here is fraud"),
        ("a/../b", [1.0], True, "NOT_FOUND", "."),
        ("fraud", [1.0], False, "UNAUTHENTICATED", "API key"),
    ],
)
def test_refusals_have_a_status_and_the_endpoints_words(
    client: triton.InferenceServerClient, key: dict[str, str], model: str, x: list[float],
    sent: bool, status: str, match: str,
) -> None:
    with pytest.raises(InferenceServerException, match=match) as error:
        client.infer(model, tensors(x), headers=key if sent else None)
    assert error.value.status() == f"StatusCode.{status}"


def test_a_message_beyond_the_limit_is_not_read(
    client: triton.InferenceServerClient, key: dict[str, str]
) -> None:
    with pytest.raises(InferenceServerException) as error:
        client.infer("fraud", tensors([1.0] * 20_000), headers=key)
    assert error.value.status() == "StatusCode.RESOURCE_EXHAUSTED"
