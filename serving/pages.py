"""The routes around predictions: health, metrics, and what the endpoint says of itself."""

from __future__ import annotations

from collections.abc import Callable

from .answers import Answer, Request, Route, encode, fixed
from .metrics import Metrics
from .openapi import Pages
from .problems import HttpProblem


def page_routes(
    pages: Pages, metrics: Metrics, name: str, version: int, is_stuck: Callable[[], bool]
) -> list[Route]:
    async def ready(request: Request) -> Answer:
        check_ready(is_stuck)
        return Answer(encode({"status": "ready", "model": name, "version": version}))

    async def scrape(request: Request) -> Answer:
        return Answer(metrics.text(), b"text/plain; version=0.0.4; charset=utf-8")

    return [
        Route("GET", "/healthz", fixed(Answer(b'{"status":"alive"}')), open=True),
        Route("GET", "/readyz", ready),
        Route("GET", "/metrics", scrape),
        Route("GET", "/schema", fixed(Answer(encode(pages.schema)))),
        Route("GET", "/openapi.json", fixed(Answer(encode(pages.openapi)))),
        Route("GET", "/docs", fixed(Answer(pages.docs, b"text/html; charset=utf-8"))),
    ]


def check_ready(is_stuck: Callable[[], bool]) -> None:
    """Raises HttpProblem 503 while a forward pass hangs."""
    if is_stuck():
        raise HttpProblem(503, "A forward pass hangs; this replica is being replaced.")
