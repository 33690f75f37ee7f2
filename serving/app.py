"""The endpoint as a plain ASGI app: routes, limits and answers; scoring is the batcher's."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from raymill.errors import DataError

from .batcher import Batcher, Overloaded
from .metrics import Metrics
from .openapi import Pages
from .problems import CONTENT_TYPE, HttpProblem, not_allowed, not_found, overloaded
from .requests import Headers, Receive, check_headers, decode, from_data_error, read_body
from .spec import ServingSpec

Scope = dict[str, Any]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_JSON = b"application/json"
_STUCK = 3  # a forward pass that takes this many deadlines will not end
_log = logging.getLogger("raymill.serving")


@dataclass(frozen=True)
class Answer:
    body: bytes
    content_type: bytes = _JSON
    status: int = 200
    headers: Headers = field(default_factory=list)


class Endpoint:
    """`POST /predict` and the pages around it, for one model in one process.

    Every answer is JSON (problems: application/problem+json), except /docs and /metrics. No
    answer and no log line holds a value of a request.
    """

    def __init__(
        self, name: str, version: int, batcher: Batcher, pages: Pages, metrics: Metrics,
        limits: ServingSpec,
    ) -> None:
        self._batcher, self._metrics = batcher, metrics
        self._deadline_s = limits.deadline_ms / 1000
        self._max_bytes = int(limits.max_body_mb * 2**20)
        self._max_rows = limits.max_rows
        self._tail = {"model": name, "version": version}
        self._encode = msgspec.json.Encoder().encode
        self._routes: dict[str, tuple[str, Callable[[Scope, Receive], Awaitable[Answer]]]] = {
            "/predict": ("POST", self._predict),
            "/healthz": ("GET", _fixed(Answer(b'{"status":"alive"}'))),
            "/readyz": ("GET", self._ready),
            "/metrics": ("GET", self._scrape),
            "/schema": ("GET", _fixed(Answer(self._encode(pages.schema)))),
            "/openapi.json": ("GET", _fixed(Answer(self._encode(pages.openapi)))),
            "/docs": ("GET", _fixed(Answer(pages.docs, b"text/html; charset=utf-8"))),
        }

    @property
    def stuck(self) -> bool:
        """A forward pass hangs: the process should be replaced."""
        return self._batcher.busy_s > _STUCK * self._deadline_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await _lifespan(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            answer = await self._route(scope, receive)
        except HttpProblem as problem:
            answer = Answer(
                self._encode(problem.document()), CONTENT_TYPE, problem.status, problem.headers
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets a 500
            # Frames only: the message of an error may quote a value of the request.
            frames = "".join(traceback.format_tb(error.__traceback__))
            _log.error("%s while answering:\n%s", type(error).__name__, frames)
            failed = HttpProblem(500, "The endpoint failed; its log tells where.")
            answer = Answer(self._encode(failed.document()), CONTENT_TYPE, 500)
        path = scope["path"] if scope["path"] in self._routes else "other"
        self._metrics.requests.labels(path, str(answer.status)).inc()
        await _respond(send, answer, head=scope["method"] == "HEAD")

    async def _route(self, scope: Scope, receive: Receive) -> Answer:
        if scope["path"] not in self._routes:
            raise not_found(list(self._routes))
        method, handler = self._routes[scope["path"]]
        if scope["method"] not in (method, "HEAD" if method == "GET" else method):
            raise not_allowed("GET, HEAD" if method == "GET" else method)
        return await handler(scope, receive)

    async def _predict(self, scope: Scope, receive: Receive) -> Answer:
        start = time.perf_counter()
        check_headers(scope["headers"], self._max_bytes)
        if self._batcher.full:
            raise overloaded()
        self._metrics.held.inc()
        try:
            async with asyncio.timeout(self._deadline_s) as deadline:
                predictions = await self._answer(receive)
        except TimeoutError:
            if not deadline.expired():
                raise
            detail = f"No answer within the deadline of {self._deadline_s:g} s."
            raise HttpProblem(504, detail) from None
        finally:
            self._metrics.held.dec()
        self._metrics.seconds.observe(time.perf_counter() - start)
        return Answer(self._encode({"predictions": predictions, **self._tail}))

    async def _answer(self, receive: Receive) -> list[dict[str, Any]]:
        rows = decode(await read_body(receive, self._max_bytes), self._max_rows)
        try:
            return await self._batcher.submit(rows)
        except Overloaded:
            raise overloaded() from None
        except DataError as error:
            raise from_data_error(error) from None

    async def _ready(self, scope: Scope, receive: Receive) -> Answer:
        if self.stuck:
            raise HttpProblem(503, "A forward pass hangs; this replica is being replaced.")
        return Answer(self._encode({"status": "ready", **self._tail}))

    async def _scrape(self, scope: Scope, receive: Receive) -> Answer:
        return Answer(self._metrics.text(), b"text/plain; version=0.0.4; charset=utf-8")


def _fixed(answer: Answer) -> Callable[[Scope, Receive], Awaitable[Answer]]:
    async def handler(scope: Scope, receive: Receive) -> Answer:
        return answer

    return handler


async def _respond(send: Send, answer: Answer, *, head: bool) -> None:
    headers = [
        (b"content-type", answer.content_type),
        (b"content-length", str(len(answer.body)).encode()),
        (b"x-content-type-options", b"nosniff"),
        *answer.headers,
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else answer.body})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
