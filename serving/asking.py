"""How an endpoint is asked, without any network: parts, retries within a budget, refusals.

A conversation is a generator: it yields what to send or how long to wait, is sent the response or
the error, and returns the answer. The clients only carry it out.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import httpx
import msgspec
import pyarrow as pa

from raymill.errors import DataError, Problem, RaymillError

Row = dict[str, Any]
JSON, ARROW = "application/json", "application/vnd.apache.arrow.stream"
TRIES = 6
AGAIN = (429, 502, 503)  # a prediction changes nothing, so asking again is safe
FIRST_WAIT_S, LONGEST_WAIT_S = 0.2, 5.0
PART_BYTES = 4 * 2**20  # half of what an endpoint takes unless serving.max_body_mb says else
_TOO_MANY_ROWS = "A request has 1 to "  # how the endpoint's 422 begins


@dataclass(frozen=True)
class Send:
    """POST `body` to `path`, and give up after `timeout_s`."""

    path: str
    body: bytes
    content_type: str
    timeout_s: float


@dataclass(frozen=True)
class Wait:
    seconds: float


Talk: TypeAlias = Generator[Send | Wait, "httpx.Response | httpx.TransportError | None", Any]


class TooMuch(RaymillError):
    """The endpoint takes fewer rows, or fewer bytes, in a request."""


class Budget:
    """How many retries a client may make: at most `share` of its requests, and `most` at once.

    When an endpoint is down, its clients would otherwise ask it several times as often as when it
    is up.
    """

    def __init__(self, share: float = 0.2, most: float = 10.0) -> None:
        self._share, self._most, self._left = share, most, most

    def earn(self) -> None:
        self._left = min(self._most, self._left + self._share)

    def spend(self) -> bool:
        """Whether one more is in it."""
        if self._left < 1:
            return False
        self._left -= 1
        return True


@dataclass
class Asking:
    """The rules of one client's conversations.

    Attributes:
        url: of the endpoint, for messages. deadline_s: for a request with all its retries.
        part: the most rows of a request. answered_by: names and versions of the models that
            answered rows so far.
    """

    url: str
    deadline_s: float
    part: int
    budget: Budget
    answered_by: set[tuple[str, int]] = field(default_factory=set)

    def rows(self, rows: Iterable[Row], ids: bool) -> Talk:
        """One prediction for each of `rows`, in their order; with `ids` each has its `id`."""
        answers: list[Row] = []
        source, back, part = map(msgspec.json.encode, rows), deque[bytes](), self.part
        while some := _next_part(back, source, part):
            body = b'{"rows":[' + b",".join(some) + b"]}"
            try:
                response = yield from self._ask("/predict", body, JSON, len(answers))
                told = msgspec.json.decode(response.content)
                self.answered_by.add((told.get("model", ""), told.get("version", 0)))
                answers.extend(told["predictions"] if not ids else [
                    {"id": f"{told['id']}.{row}", **answer}
                    for row, answer in enumerate(told["predictions"])])
            except TooMuch:
                if len(some) == 1:
                    raise
                part = len(some) // 2
                back.extendleft(reversed(some))
        return answers

    def table(self, table: pa.Table, ids: bool) -> Talk:
        """A table of the answers to `table`'s rows, in their order; with `ids`, its first column
        has their ids."""
        answers: list[pa.Table] = []
        done, part = 0, self._part_of(table)
        while done < len(table):
            some = table.slice(done, part)
            try:
                response = yield from self._ask("/predict", _stream(some), ARROW, done)
                told = pa.ipc.open_stream(response.content).read_all()
                if ids:
                    id_ = response.headers["x-raymill-id"]
                    told = told.add_column(0, "id", [[f"{id_}.{k}" for k in range(len(told))]])
                answers.append(told)
                done += len(some)
            except TooMuch:
                if len(some) == 1:
                    raise
                part = len(some) // 2
        return pa.concat_tables(answers).combine_chunks() if answers else pa.table({})

    def labels(self, labels: Mapping[str, Any]) -> Talk:
        """The number of `labels`, once the endpoint has all of them on disk."""
        items = [{"id": id_, "label": label} for id_, label in labels.items()]
        for at in range(0, len(items), self.part):
            body = msgspec.json.encode({"labels": items[at : at + self.part]})
            yield from self._ask("/feedback", body, JSON, at)
        return len(items)

    def _part_of(self, table: pa.Table) -> int:
        size = max(1, int(table.nbytes) // max(1, len(table)))
        return max(1, min(self.part, PART_BYTES // size))

    def _ask(self, path: str, body: bytes, content_type: str, first: int) -> Talk:
        end = time.monotonic() + self.deadline_s
        self.budget.earn()
        for attempt in range(TRIES):
            outcome = yield Send(path, body, content_type, max(0.001, end - time.monotonic()))
            after: str | None = None
            if isinstance(outcome, httpx.Response):
                if outcome.status_code == 200:
                    return outcome
                if outcome.status_code not in AGAIN:
                    raise refusal(outcome, first)
                cause, after = f"status {outcome.status_code}", outcome.headers.get("retry-after")
            else:
                cause = str(outcome) or type(outcome).__name__
            pause = wait_s(attempt, after)
            if time.monotonic() + pause >= end:
                raise self._gave_up(f"within {self.deadline_s:g} s", cause)
            if attempt == TRIES - 1:
                break
            if not self.budget.spend():
                raise self._gave_up("and no more retries are in the budget", cause)
            yield Wait(pause)
        raise self._gave_up(f"in {TRIES} tries", cause)

    def _gave_up(self, how: str, cause: str) -> RaymillError:
        return RaymillError(f"{self.url} did not answer {how}: {cause}",
                            cure="See `raymill serve status`.")


def _next_part(back: deque[bytes], source: Iterator[bytes], size: int) -> list[bytes]:
    """Up to `size` encoded rows that fit a request, those in `back` first."""
    taken: list[bytes] = []
    total = 0
    while len(taken) < size:
        row = back.popleft() if back else next(source, None)
        if row is None:
            break
        total += len(row) + 1
        if taken and total > PART_BYTES:
            back.appendleft(row)
            break
        taken.append(row)
    return taken


def _stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def wait_s(attempt: int, after: str | None) -> float:
    """Grows by twos, with jitter, and is at least what the endpoint asked for."""
    backoff = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0**attempt) * random.uniform(0.5, 1.0)
    asked = float(after) if after is not None and after.isdigit() else 0.0
    return max(backoff, min(asked, LONGEST_WAIT_S))


def refusal(response: httpx.Response, first: int) -> RaymillError:
    """What the endpoint's problem document says; `first`: the request's first row among all."""
    try:
        document = response.json()
        errors, detail = document.get("errors", []), document["detail"]
    except (ValueError, KeyError, AttributeError):
        errors, detail = [], ""
    if response.status_code == 422 and errors:
        return DataError([_problem(entry, first) for entry in errors])
    if response.status_code == 401:
        return RaymillError("the endpoint needs an API key",
                            cure="Set RAYMILL_API_KEY; raymill serve keys add makes one.")
    many = response.status_code == 422 and str(detail).startswith(_TOO_MANY_ROWS)
    kind = TooMuch if many or response.status_code == 413 else RaymillError
    return kind(f"the endpoint answered {response.status_code}: {detail}")


def _problem(entry: dict[str, Any], first: int) -> Problem:
    row, field = entry.get("row"), entry.get("field")
    where = str(field or "") if row is None else f"rows[{first + row}]" + (
        f".{field}" if field else "")
    return Problem(rule=str(entry.get("rule", "")), where=where)
