"""The Open Inference Protocol over gRPC: a process before HAProxy that asks it over HTTP.

So what holds for HTTP holds here: keys, rates, limits, deadline, and another replica when one
dies. It listens on loopback only.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
import httpx

from .environment import inside
from .order import Order
from .protocols.grpc_infer import Unreadable, from_http, to_http
from .protocols.messages import MESSAGES, METHODS, SERVICE
from .spec import ServingSpec

_PR_SET_PDEATHSIG = 1
_LENGTH = "inference-header-content-length"
_ROOM = 64 * 2**10  # what a message may hold beside its tensors
_PASSED = ("authorization", "traceparent")  # metadata that become headers, with all of x-*
_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT, 401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND, 413: grpc.StatusCode.INVALID_ARGUMENT,
    415: grpc.StatusCode.INVALID_ARGUMENT, 422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED, 503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


class Front:
    """The service's methods; `ask` is HAProxy's HTTP."""

    def __init__(self, ask: httpx.AsyncClient) -> None:
        self._ask = ask

    async def ServerLive(self, request: Any, context: Any) -> Any:
        response = await self._get("/v2/health/live", context)
        return MESSAGES["ServerLiveResponse"](live=response.status_code == 200)

    async def ServerReady(self, request: Any, context: Any) -> Any:
        response = await self._get("/v2/health/ready", context)
        return MESSAGES["ServerReadyResponse"](ready=response.status_code == 200)

    async def ModelReady(self, request: Any, context: Any) -> Any:
        response = await self._get(f"{_model(request.name, request.version)}/ready", context)
        if response.status_code not in (200, 503):
            await _refuse(response, context)
        return MESSAGES["ModelReadyResponse"](ready=response.status_code == 200)

    async def ServerMetadata(self, request: Any, context: Any) -> Any:
        return MESSAGES["ServerMetadataResponse"](**await self._page("/v2", context))

    async def ModelMetadata(self, request: Any, context: Any) -> Any:
        page = await self._page(_model(request.name, request.version), context)
        return MESSAGES["ModelMetadataResponse"](**page)

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        try:
            body, length = to_http(request)
        except Unreadable as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        path = f"{_model(request.model_name, request.model_version)}/infer"
        headers = _headers(context) | {_LENGTH: str(length),
                                       "content-type": "application/octet-stream"}
        response = await self._send(context, "POST", path, content=body, headers=headers)
        if response.status_code != 200:
            await _refuse(response, context)
        context.set_trailing_metadata((("x-raymill-id", response.headers["x-raymill-id"]),))
        return from_http(response.content, int(response.headers[_LENGTH]))

    async def _page(self, path: str, context: Any) -> dict[str, Any]:
        response = await self._get(path, context)
        if response.status_code != 200:
            await _refuse(response, context)
        page: dict[str, Any] = response.json()
        return page

    async def _get(self, path: str, context: Any) -> httpx.Response:
        return await self._send(context, "GET", path, headers=_headers(context))

    async def _send(self, context: Any, method: str, path: str, **request: Any) -> httpx.Response:
        """Once more where HAProxy has just closed the connection: nothing here changes anything."""
        for last in (False, True):
            try:
                return await self._ask.request(method, path, **request)
            except httpx.TransportError as error:
                if last:
                    await context.abort(grpc.StatusCode.UNAVAILABLE, type(error).__name__)
        raise AssertionError("unreachable")


def _model(name: str, version: str) -> str:
    path = f"/v2/models/{quote(name, safe='')}"
    return f"{path}/versions/{quote(version, safe='')}" if version else path


def _headers(context: Any) -> dict[str, str]:
    return {key: value for key, value in context.invocation_metadata()
            if (key in _PASSED or key.startswith("x-")) and isinstance(value, str)}


async def _refuse(response: httpx.Response, context: Any) -> None:
    """Ends the call with the status and the words of an HTTP refusal."""
    try:
        detail = str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        detail = f"status {response.status_code}"
    await context.abort(_CODES.get(response.status_code, grpc.StatusCode.INTERNAL), detail[:1000])


def handlers(front: Front) -> grpc.GenericRpcHandler:
    """The service with `front`'s methods."""

    def unary(name: str) -> grpc.RpcMethodHandler:
        method: Callable[[Any, Any], Awaitable[Any]] = getattr(front, name)
        return grpc.unary_unary_rpc_method_handler(
            method, request_deserializer=MESSAGES[f"{name}Request"].FromString,
            response_serializer=MESSAGES[f"{name}Response"].SerializeToString)

    return grpc.method_handlers_generic_handler(SERVICE, {name: unary(name) for name in METHODS})


def server(front: Front, spec: ServingSpec) -> grpc.aio.Server:
    """A server within the spec's limits, not yet started."""
    most = int(spec.max_body_mb * 2**20) + _ROOM
    made = grpc.aio.server(
        options=[("grpc.max_receive_message_length", most), ("grpc.so_reuseport", 0),
                 ("grpc.max_send_message_length", -1)],
        maximum_concurrent_rpcs=spec.max_waiting * spec.replicas.max,
    )
    made.add_generic_rpc_handlers((handlers(front),))
    return made


async def _serve(order: Order) -> None:
    spec = order.spec
    transport = httpx.AsyncHTTPTransport(
        uds=str(inside(Path(order.folder))),
        limits=httpx.Limits(max_connections=spec.max_connections // 2,
                            max_keepalive_connections=64, keepalive_expiry=30))
    timeout = spec.hold_s + 5
    async with httpx.AsyncClient(
        transport=transport, base_url="http://raymill", timeout=timeout
    ) as ask:
        running = server(Front(ask), spec)
        running.add_insecure_port(f"127.0.0.1:{spec.grpc_port}")
        await running.start()
        stopped = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        await stopped.wait()
        await running.stop(spec.deadline_ms / 1000)


def main(order_file: str) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    order = Order.read(Path(order_file))
    if os.getppid() == 1:  # the supervisor is gone already
        return
    asyncio.run(_serve(order))


if __name__ == "__main__":
    main(sys.argv[1])
