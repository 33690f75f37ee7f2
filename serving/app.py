"""The endpoint as a plain ASGI app: finds the route, asks the guards, turns errors into answers."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Sequence

from .answers import Answer, Guard, Observer, Receive, Request, Route, Scope, Send, encode
from .identity import HEADER, TRACEPARENT
from .problems import CONTENT_TYPE, HttpProblem, not_allowed, not_found

_log = logging.getLogger("raymill.serving")


class Endpoint:
    """Routes of one model in one process, behind the same guards.

    No answer and no log line holds a value of a request. Every answer that is not 2xx is a
    problem document.

    Args:
        routes: each path once. guards: run in their order on every route that is not open.
        observers: told of every answer. is_stuck: a forward pass hangs. closing: called by
            `close`.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        *,
        guards: Sequence[Guard] = (),
        observers: Sequence[Observer] = (),
        is_stuck: Callable[[], bool] = lambda: False,
        closing: Sequence[Callable[[], None]] = (),
    ) -> None:
        self._guards, self._observers, self._is_stuck = guards, list(observers), is_stuck
        self._closing = closing
        self._plain = {(r.path, r.method): r for r in routes if "{" not in r.path}
        self._patterns = [r for r in routes if "{" in r.path]
        self.routes = tuple(routes)

    @property
    def stuck(self) -> bool:
        """A forward pass hangs: the process should be replaced."""
        return self._is_stuck()

    def observe(self, observer: Observer) -> None:
        """Have `observer` told of every answer from now on."""
        self._observers.append(observer)

    def close(self) -> None:
        """End what its parts began: no answer comes after it."""
        for close in self._closing:
            close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await _lifespan(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = time.perf_counter()
        request: Request | None = None
        try:
            request = self._find(scope, receive)
            if not request.route.open:
                for guard in self._guards:
                    guard(request)
            answer = await request.route.handler(request)
        except HttpProblem as problem:
            answer = _told(problem, request)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets a 500
            # Frames only: the message of an error may quote a value of the request.
            frames = "".join(traceback.format_tb(error.__traceback__))
            _log.error("%s while answering:\n%s", type(error).__name__, frames)
            answer = _told(HttpProblem(500, "The endpoint failed; its log tells where."), request)
        seconds = time.perf_counter() - start
        for observer in self._observers:
            observer(request, answer, seconds)
        await _respond(send, answer, request, head=scope["method"] == "HEAD")

    def _find(self, scope: Scope, receive: Receive) -> Request:
        """The request at its route.

        Raises:
            HttpProblem: 404 or 405.
        """
        path, method = scope["path"], scope["method"]
        if root := scope.get("root_path"):  # in a cluster, where Serve has several applications
            path = path.removeprefix(root)
        route = self._plain.get((path, "GET" if method == "HEAD" else method))
        if route is not None:
            return Request(scope, receive, route, {})
        allowed = [r.method for (known, _), r in self._plain.items() if known == path]
        parts = path.strip("/").split("/")
        for route in self._patterns:
            values = _match(route.parts, parts)
            if values is None:
                continue
            if route.method == ("GET" if method == "HEAD" else method):
                return Request(scope, receive, route, values)
            allowed.append(route.method)
        if not allowed:
            raise not_found(sorted({route.path for route in self.routes}))
        raise not_allowed(", ".join("GET, HEAD" if each == "GET" else each for each in allowed))


def _match(pattern: Sequence[str], parts: Sequence[str]) -> dict[str, str] | None:
    if len(pattern) != len(parts):
        return None
    values = {}
    for wanted, part in zip(pattern, parts, strict=True):
        if wanted.startswith("{"):
            values[wanted[1:-1]] = part
        elif wanted != part:
            return None
    return values


def _told(problem: HttpProblem, request: Request | None) -> Answer:
    document = problem.document()
    if request is not None and request.route.dialect is not None:
        document = request.route.dialect(document)
    return Answer(encode(document), CONTENT_TYPE, problem.status, problem.headers)


async def _respond(send: Send, answer: Answer, request: Request | None, *, head: bool) -> None:
    headers = [
        (b"content-type", answer.content_type),
        (b"content-length", str(len(answer.body)).encode()),
        (b"x-content-type-options", b"nosniff"),
        *answer.headers,
    ]
    if request is not None:
        headers.append((HEADER, request.id.encode()))
        if request.version:
            headers.append((b"x-raymill-version", str(request.version).encode()))
        if request.trace:
            headers.append((TRACEPARENT, request.header(TRACEPARENT)))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else answer.body})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
