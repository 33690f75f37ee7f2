"""Asks an endpoint: rows in parts, with bounded retries of what may be asked again."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import httpx
import msgspec

from raymill.errors import DataError, Problem, RaymillError

Row = dict[str, Any]

_AGAIN = (429, 502, 503)  # a prediction changes nothing, so asking again is safe
_TRIES, _FIRST_WAIT_S, _LONGEST_WAIT_S = 6, 0.2, 5.0
_PART_BYTES = 4 * 2**20  # half of what an endpoint takes unless serving.max_body_mb says else
_TOO_MANY_ROWS = "A request has 1 to "  # how the endpoint's 422 begins


class _TooMuch(RaymillError):
    """The endpoint takes fewer rows, or fewer bytes, in a request."""


def predict(
    url: str, rows: Iterable[Row], *, part: int = 1000, timeout_s: float = 60.0
) -> list[Row]:
    """One prediction for each of `rows`, in their order.

    Args:
        url: of the endpoint, like `http://127.0.0.1:8000`.
        rows: JSON values only; sent in requests of at most `part` rows and 4 MB, and of fewer
            where the endpoint says that these are too many.

    Raises:
        DataError: rows that break the contract, by their index in `rows`.
        RaymillError: the endpoint refuses, or doesn't answer after several tries.
    """
    answers: list[Row] = []
    source, back = map(msgspec.json.encode, rows), deque[bytes]()
    encrypted = url.startswith("https:")  # reading the certificates takes longer than a request
    with httpx.Client(
        base_url=url, timeout=timeout_s, trust_env=False, verify=encrypted
    ) as client:
        while some := _next_part(back, source, part):
            try:
                answers.extend(_ask(client, some, len(answers))["predictions"])
            except _TooMuch:
                if len(some) == 1:
                    raise
                part = len(some) // 2
                back.extendleft(reversed(some))
    return answers


def _next_part(back: deque[bytes], source: Iterator[bytes], size: int) -> list[bytes]:
    """Up to `size` encoded rows that fit a request, those in `back` first."""
    taken: list[bytes] = []
    total = 0
    while len(taken) < size:
        row = back.popleft() if back else next(source, None)
        if row is None:
            break
        total += len(row) + 1
        if taken and total > _PART_BYTES:
            back.appendleft(row)
            break
        taken.append(row)
    return taken


def _ask(client: httpx.Client, rows: Sequence[bytes], first: int) -> dict[str, Any]:
    body = b'{"rows":[' + b",".join(rows) + b"]}"
    headers = {"content-type": "application/json"}
    cause = ""
    for attempt in range(_TRIES):
        try:
            response = client.post("/predict", content=body, headers=headers)
        except httpx.TransportError as error:
            cause, after = str(error) or type(error).__name__, None
        else:
            if response.status_code == 200:
                answer: dict[str, Any] = msgspec.json.decode(response.content)
                return answer
            if response.status_code not in _AGAIN:
                raise _refusal(response, first)
            cause, after = f"status {response.status_code}", response.headers.get("retry-after")
        if attempt < _TRIES - 1:
            time.sleep(_wait_s(attempt, after))
    raise RaymillError(f"{client.base_url} did not answer in {_TRIES} tries: {cause}",
                       cure="See `raymill serve status`.")


def _wait_s(attempt: int, after: str | None) -> float:
    """Grows by twos, with jitter, and is at least what the endpoint asked for."""
    backoff = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0**attempt) * random.uniform(0.5, 1.0)
    asked = float(after) if after is not None and after.isdigit() else 0.0
    return max(backoff, min(asked, _LONGEST_WAIT_S))


def _refusal(response: httpx.Response, first: int) -> RaymillError:
    try:
        document = response.json()
        errors, detail = document.get("errors", []), document["detail"]
    except (ValueError, KeyError, AttributeError):
        errors, detail = [], ""
    if response.status_code == 422 and errors:
        return DataError([_problem(entry, first) for entry in errors])
    many = response.status_code == 422 and str(detail).startswith(_TOO_MANY_ROWS)
    kind = _TooMuch if many or response.status_code == 413 else RaymillError
    return kind(f"the endpoint answered {response.status_code}: {detail}")


def _problem(entry: dict[str, Any], first: int) -> Problem:
    row, field = entry.get("row"), entry.get("field")
    where = "" if row is None else f"rows[{first + row}]" + (f".{field}" if field else "")
    return Problem(rule=str(entry.get("rule", "")), where=where)
