"""The rate that is found is the endpoint's own, measured from when requests were due."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
from aiohttp import web

from raymill.errors import RaymillError, UsageError
from raymill.serving.loadtest import LoadOptions, Slo, Step, loadtest, quantile

SERVICE_S = 0.02  # one request at a time: 50 a second is all that this endpoint can do


class Endpoint:
    """Answers one request at a time, each in `SERVICE_S`; sheds what waits beyond `room`."""

    def __init__(self) -> None:
        self.room, self.waiting, self.bad = 1000, 0, False
        self.loop = asyncio.new_event_loop()
        self.url = ""
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        self._ready.wait(10)

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self.runner.cleanup(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self._start())
        self._ready.set()
        self.loop.run_forever()

    async def _start(self) -> None:
        self.turn = asyncio.Lock()
        app = web.Application()
        app.router.add_post("/predict", self._predict)
        self.runner = web.AppRunner(app, shutdown_timeout=1)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self.runner.addresses[0][1]}"

    async def _predict(self, request: web.Request) -> web.Response:
        if self.bad:
            return web.json_response({"detail": "no such field"}, status=422)
        if self.waiting >= self.room:
            return web.json_response({}, status=429)
        self.waiting += 1
        try:
            async with self.turn:
                await asyncio.sleep(SERVICE_S)
        finally:
            self.waiting -= 1
        return web.json_response({"predictions": [], "model": "toy", "version": 3})


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    made = Endpoint()
    yield made
    made.stop()


def test_an_objective_is_a_quantile_and_milliseconds() -> None:
    assert Slo.parse("p99=50ms") == Slo(0.99, 50.0)
    assert Slo.parse(" p99.9 = 7.5 ms ") == Slo(0.999, 7.5)
    for text in ("p98=5ms", "p99=50", "p99=0ms", "fast"):
        with pytest.raises(UsageError, match="milliseconds"):
            Slo.parse(text)


def test_a_quantile_is_a_value_that_was_seen() -> None:
    values = [float(i) for i in range(1, 101)]
    assert [quantile(values, q) for q in (0.5, 0.95, 0.99, 0.999)] == [50.0, 95.0, 99.0, 100.0]
    assert quantile([], 0.99) == 0.0 and quantile([3.0], 0.5) == 3.0


def test_over_its_capacity_an_endpoint_breaks_the_objective(endpoint: Endpoint) -> None:
    """A closed loop would see SERVICE_S for ever: here the wait in the queue is counted."""
    told: list[Step] = []
    options = LoadOptions(seconds=1.0, start=10, most=150)
    result = loadtest(endpoint.url, [b"{}"], Slo(0.95, 150.0), options, told.append)
    assert result.model == "toy" and result.version == 3
    assert told == result.steps
    assert any(not step.holds for step in result.steps)
    assert result.best is not None and result.best.holds
    assert result.rate < 1.3 / SERVICE_S  # a short step may end before its queue has grown
    worst = max(result.steps, key=lambda step: step.offered)
    assert worst.sent > 0 and worst.quantiles["p99"] > 1000 * SERVICE_S


def test_what_is_shed_is_told_apart_from_failures(endpoint: Endpoint) -> None:
    endpoint.room = 2
    try:
        options = LoadOptions(seconds=1.0, start=100, most=100)
        result = loadtest(endpoint.url, [b"{}"], Slo(0.99, 5000.0), options)
    finally:
        endpoint.room = 1000
    (step,) = result.steps
    assert step.shed > 0 and step.failed == 0 and "were shed" in step.why
    assert result.best is None and result.rate == 0.0


def test_a_request_that_is_refused_is_not_sent_many_times(endpoint: Endpoint) -> None:
    endpoint.bad = True
    try:
        with pytest.raises(RaymillError, match="422: no such field"):
            loadtest(endpoint.url, [b"{}"], Slo(0.99, 50.0))
    finally:
        endpoint.bad = False
    with pytest.raises(RaymillError, match="the endpoint must answer"):
        loadtest("http://127.0.0.1:9", [b"{}"], Slo(0.99, 50.0))
