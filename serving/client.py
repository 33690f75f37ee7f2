"""Asks an endpoint: rows in parts, with bounded retries of what may be asked again."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import httpx
import msgspec

from raymill.errors import DataError, Problem, RaymillError

Row = dict[str, Any]

_AGAIN = (429, 502, 503)  # a prediction changes nothing, so asking again is safe
_TRIES, _FIRST_WAIT_S, _LONGEST_WAIT_S = 6, 0.2, 5.0


def predict(
    url: str, rows: Iterable[Row], *, part: int = 1000, timeout_s: float = 60.0
) -> list[Row]:
    """One prediction for each of `rows`, in their order.

    Args:
        url: of the endpoint, like `http://127.0.0.1:8000`.
        rows: JSON values only; sent in requests of at most `part` rows.

    Raises:
        DataError: rows that break the contract, by their index in `rows`.
        RaymillError: the endpoint refuses, or doesn't answer after several tries.
    """
    answers: list[Row] = []
    encrypted = url.startswith("https:")  # reading the certificates takes longer than a request
    with httpx.Client(
        base_url=url, timeout=timeout_s, trust_env=False, verify=encrypted
    ) as client:
        for first, some in _parts(rows, part):
            answers.extend(_ask(client, some, first)["predictions"])
    return answers


def _parts(rows: Iterable[Row], size: int) -> Iterator[tuple[int, list[Row]]]:
    source, first = iter(rows), 0
    while some := list(islice(source, size)):
        yield first, some
        first += len(some)


def _ask(client: httpx.Client, rows: Sequence[Row], first: int) -> dict[str, Any]:
    body = msgspec.json.encode({"rows": rows})
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
    return RaymillError(f"the endpoint answered {response.status_code}: {detail}")


def _problem(entry: dict[str, Any], first: int) -> Problem:
    row, field = entry.get("row"), entry.get("field")
    where = "" if row is None else f"rows[{first + row}]" + (f".{field}" if field else "")
    return Problem(rule=str(entry.get("rule", "")), where=where)
