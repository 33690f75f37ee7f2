"""The Python client of an endpoint, in two forms: for threads and for asyncio."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from ssl import SSLContext, create_default_context
from typing import TYPE_CHECKING, Any, Self

import httpx
import pyarrow as pa

from raymill.data.tables import json_rows

from .asking import Asking, Budget, Row, Send, Talk, Wait

if TYPE_CHECKING:
    import pandas as pd

KEY = "RAYMILL_API_KEY"
_FEW = 32  # rows of a table below which JSON is the smaller


class _Settings:
    """What both clients share.

    Args:
        url: of the endpoint, like `http://127.0.0.1:8000`.
        api_key: where the endpoint needs one (None: the environment's RAYMILL_API_KEY).
        deadline_s: for a request with all its retries.
        part: the most rows of a request; a request also has at most 4 MB, and fewer rows where
            the endpoint says that these are too many.
        connections: kept open at most.
        ca: PEM file of the authority that signed the endpoint's certificate.
    """

    def __init__(
        self, url: str, *, api_key: str | None = None, deadline_s: float = 60.0, part: int = 1000,
        connections: int = 10, ca: str | Path | None = None,
    ) -> None:
        self._asking = Asking(url, deadline_s, part, Budget())
        key = os.environ.get(KEY, "") if api_key is None else api_key
        self._options: dict[str, Any] = {
            "base_url": url, "trust_env": False, "verify": _verify(url, ca),
            "headers": {"authorization": f"Bearer {key}"} if key else {},
            "limits": httpx.Limits(max_connections=connections,
                                   max_keepalive_connections=connections),
        }

    @property
    def answered_by(self) -> list[tuple[str, int]]:
        """Names and versions of the models that answered rows sent as JSON, in their order."""
        return sorted(self._asking.answered_by)

    def _talk(self, rows: Any, ids: bool) -> Talk:
        """The conversation about rows of any kind; it returns answers of the same kind."""
        if isinstance(rows, pa.Table):
            return self._about_table(rows, ids)
        if type(rows).__module__.startswith("pandas"):
            return self._about_frame(rows, ids)
        return self._asking.rows(rows, ids)

    def _about_table(self, table: pa.Table, ids: bool) -> Talk:
        if len(table) >= _FEW:
            return (yield from self._asking.table(table, ids))
        answers = yield from self._asking.rows(json_rows(table), ids)
        return pa.Table.from_pylist([_flat(answer) for answer in answers])

    def _about_frame(self, frame: pd.DataFrame, ids: bool) -> Talk:
        table = pa.Table.from_pandas(frame, preserve_index=False)
        answers = yield from self._about_table(table, ids)
        told = answers.to_pandas()
        told.index = frame.index
        return told


class Client(_Settings):
    """Asks an endpoint over pooled connections; safe to share between threads.

    429, 503 and lost connections are asked again, after the time the endpoint states, by the
    deadline and within a budget of retries.
    """

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self._http = httpx.Client(**self._options)

    def predict(self, rows: Iterable[Row] | Any, *, ids: bool = False) -> Any:
        """One prediction a row, in their order.

        Rows are dicts of JSON values (a list of dicts comes back), a `pyarrow.Table` or a pandas
        DataFrame (the same comes back, with `prediction` and `probability_<class>`; from 32 rows
        on they travel as Arrow). With `ids` each answer also has its `id`, for `feedback`.

        Raises:
            DataError: rows that break the contract, by their index in `rows`.
            RaymillError: the endpoint refuses, or doesn't answer after several tries.
        """
        return self._carry_out(self._talk(rows, ids))

    def feedback(self, labels: Mapping[str, Any]) -> int:
        """Send true labels by the ids of their answers; the number, once all are on disk.

        Raises:
            DataError: labels or ids that can't be, by their place in `labels`.
            RaymillError: the endpoint refuses, or doesn't answer after several tries.
        """
        taken: int = self._carry_out(self._asking.labels(labels))
        return taken

    def _carry_out(self, talk: Talk) -> Any:
        outcome: httpx.Response | httpx.TransportError | None = None
        while True:
            try:
                step = talk.send(outcome)
            except StopIteration as end:
                return end.value
            outcome = self._do(step)

    def _do(self, step: Send | Wait) -> httpx.Response | httpx.TransportError | None:
        if isinstance(step, Wait):
            time.sleep(step.seconds)
            return None
        try:
            return self._http.post(step.path, content=step.body, timeout=step.timeout_s,
                                   headers={"content-type": step.content_type})
        except httpx.TransportError as error:
            return error

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class AsyncClient(_Settings):
    """`Client` for asyncio."""

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self._http = httpx.AsyncClient(**self._options)

    async def predict(self, rows: Iterable[Row] | Any, *, ids: bool = False) -> Any:
        """See `Client.predict`."""
        return await self._carry_out(self._talk(rows, ids))

    async def feedback(self, labels: Mapping[str, Any]) -> int:
        """See `Client.feedback`."""
        taken: int = await self._carry_out(self._asking.labels(labels))
        return taken

    async def _carry_out(self, talk: Talk) -> Any:
        outcome: httpx.Response | httpx.TransportError | None = None
        while True:
            try:
                step = talk.send(outcome)
            except StopIteration as end:
                return end.value
            outcome = await self._do(step)

    async def _do(self, step: Send | Wait) -> httpx.Response | httpx.TransportError | None:
        if isinstance(step, Wait):
            await asyncio.sleep(step.seconds)
            return None
        try:
            return await self._http.post(step.path, content=step.body, timeout=step.timeout_s,
                                         headers={"content-type": step.content_type})
        except httpx.TransportError as error:
            return error

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()


def _verify(url: str, ca: str | Path | None) -> SSLContext | bool:
    if ca is not None:
        return create_default_context(cafile=str(ca))
    return url.startswith("https:")  # reading the certificates takes longer than a request


def _flat(answer: Row) -> Row:
    shares = answer.get("probability") or {}
    head = {name: answer[name] for name in ("id", "prediction") if name in answer}
    return head | {
        f"probability_{name}": share for name, share in shares.items()}


def predict(
    url: str, rows: Iterable[Row], *, part: int = 1000, timeout_s: float = 60.0,
    ca: str | Path | None = None,
) -> list[Row]:
    """`Client.predict` of dicts, with a client for this call alone."""
    with Client(url, part=part, deadline_s=timeout_s, ca=ca) as client:
        answers: list[Row] = client.predict(rows)
        return answers
