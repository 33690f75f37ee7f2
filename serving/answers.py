"""What a handler gets and gives, and the routes that lead to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from .identity import TRACEPARENT, new_id, trace_of

Message = dict[str, Any]
Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

JSON = b"application/json"
encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class Answer:
    body: bytes
    content_type: bytes = JSON
    status: int = 200
    headers: Headers = field(default_factory=list)


@dataclass(slots=True)
class Request:
    """One HTTP request on its way through guards and handler.

    Attributes:
        route: the route that its path matched. values: what stood in the path's `{...}`.
        holder: who the API key belongs to, once the guard of keys has let it in; "" without keys.
        version, variant: the model that is to answer, once it was chosen; 0 and "" where none is.
        id: of its answer.
    """

    scope: Scope
    receive: Receive
    route: Route
    values: dict[str, str]
    holder: str = ""
    version: int = 0
    variant: str = ""
    id: str = field(default_factory=new_id)

    @property
    def trace(self) -> str:
        """The trace id of the client's W3C traceparent, or ""."""
        return trace_of(self.header(TRACEPARENT))

    def header(self, name: bytes) -> bytes:
        """The last value of a header, by its name in lower case; empty when it is not there."""
        found = b""
        for key, value in self.scope["headers"]:
            if key == name:
                found = value
        return found


Handler = Callable[[Request], Awaitable[Answer]]
Guard = Callable[[Request], None]
"""Lets a request through, or raises `HttpProblem`; runs before any of the body is read."""
Observer = Callable[[Request | None, Answer, float], None]
"""Told of each answer and its seconds; the request is None where no route matched."""


@dataclass(frozen=True)
class Route:
    """A path, whose parts like `{model}` match any one part of a request's path.

    `open` routes need no API key. `dialect` makes this route's problem documents what its
    protocol's clients look for, on top of RFC 9457.
    """

    method: str
    path: str
    handler: Handler
    open: bool = False
    dialect: Callable[[dict[str, Any]], dict[str, Any]] | None = None

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(self.path.strip("/").split("/"))


def fixed(answer: Answer) -> Handler:
    """A handler that always gives `answer`."""

    async def handler(request: Request) -> Answer:
        return answer

    return handler
