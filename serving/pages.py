"""The routes around predictions: health, metrics, and what the endpoint says of itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .answers import Answer, Handler, Request, Route, encode, fixed
from .metrics import Metrics
from .problems import HttpProblem

if TYPE_CHECKING:
    from .desk import Desk
    from .openapi import Pages


def page_routes(desk: Desk, metrics: Metrics, name: str) -> list[Route]:
    """What is told of the model is told of the champion, whichever that is at the time."""

    async def ready(request: Request) -> Answer:
        check_ready(lambda: desk.stuck)
        version = desk.variants.now.champion.version
        return Answer(encode({"status": "ready", "model": name, "version": version}))

    async def scrape(request: Request) -> Answer:
        return Answer(metrics.text(), b"text/plain; version=0.0.4; charset=utf-8")

    def page(write: Callable[[Pages], Answer]) -> Handler:
        async def handler(request: Request) -> Answer:
            return write(desk.variants.now.champion.pages)

        return handler

    html = b"text/html; charset=utf-8"
    return [
        Route("GET", "/healthz", fixed(Answer(b'{"status":"alive"}')), open=True),
        Route("GET", "/readyz", ready),
        Route("GET", "/metrics", scrape),
        Route("GET", "/schema", page(lambda pages: Answer(encode(pages.schema)))),
        Route("GET", "/openapi.json", page(lambda pages: Answer(encode(pages.openapi)))),
        Route("GET", "/docs", page(lambda pages: Answer(pages.docs, html))),
    ]


def check_ready(is_stuck: Callable[[], bool]) -> None:
    """Raises HttpProblem 503 while a forward pass hangs."""
    if is_stuck():
        raise HttpProblem(503, "A forward pass hangs; this replica is being replaced.")
