"""Reads the body of a predict request; everything wrong with it becomes an `HttpProblem`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from raymill.errors import DataError, Problem

from .problems import HttpProblem

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Headers = list[tuple[bytes, bytes]]


class Request(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /predict`."""

    rows: list[dict[str, Any]]


class _Undecoded(msgspec.Struct):
    rows: list[dict[str, msgspec.Raw]]


_REQUEST = msgspec.json.Decoder(Request)
_UNDECODED = msgspec.json.Decoder(_Undecoded)
_PLACE = re.compile(r"rows\[(\d+)\](?:\.(.*))?", re.DOTALL)
_NAME_LENGTH, _RULE_LENGTH = 64, 300


def check_headers(headers: Headers, max_bytes: int) -> None:
    """Refuse a body by its headers, before any of it is read.

    Raises:
        HttpProblem: 415 for a body that isn't plain JSON, 413 for one that is too long.
    """
    values = dict(headers)
    kind = values.get(b"content-type", b"").split(b";")[0].strip().lower()
    if kind != b"application/json":
        raise HttpProblem(415, "The body must be JSON, with Content-Type: application/json.")
    if values.get(b"content-encoding", b"identity").lower() != b"identity":
        raise HttpProblem(415, "The body must not be compressed.")
    length = values.get(b"content-length", b"0")
    if not length.isdigit() or int(length[:20]) > max_bytes:
        raise _too_long(max_bytes)


async def read_body(receive: Receive, max_bytes: int) -> bytes:
    """The whole body; stops at the first byte beyond `max_bytes`.

    Raises:
        HttpProblem: 413.
        asyncio.CancelledError: the client hung up.
    """
    chunks: list[bytes] = []
    left = max_bytes
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise asyncio.CancelledError
        chunk = message.get("body", b"")
        left -= len(chunk)
        if left < 0:
            raise _too_long(max_bytes)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_long(max_bytes: int) -> HttpProblem:
    detail = f"The body must not be longer than {max_bytes} bytes; send the rows in parts."
    return HttpProblem(413, detail, headers=[(b"connection", b"close")])


def decode(body: bytes, max_rows: int) -> list[dict[str, Any]]:
    """The rows of a request's body.

    Raises:
        HttpProblem: 400 for what isn't JSON, 422 for JSON that isn't `{"rows": [{...}, ...]}`
            with 1 to `max_rows` rows.
    """
    try:
        rows = _REQUEST.decode(body)
    except RecursionError:
        raise HttpProblem(400, "The JSON is nested too deeply.") from None
    except UnicodeDecodeError:
        raise HttpProblem(400, "The body is not UTF-8.") from None
    except msgspec.ValidationError as error:
        raise _misshapen(error, body) from None
    except (msgspec.DecodeError, ValueError) as error:
        detail = f"The body is not JSON: {error}. (NaN and Infinity are not JSON; use null.)"
        raise HttpProblem(400, detail) from None
    if not 1 <= len(rows.rows) <= max_rows:
        detail = f"A request has 1 to {max_rows} rows, but this one has {len(rows.rows)}."
        raise HttpProblem(422, detail)
    return rows.rows


def _misshapen(error: msgspec.ValidationError, body: bytes) -> HttpProblem:
    field = _undecodable_field(body)
    if field is not None:
        row, name = field
        entry = {"row": row, "field": name[:_NAME_LENGTH], "rule": "the number is out of range"}
        return HttpProblem(422, f"rows[{row}].{entry['field']} breaks the contract.", [entry])
    text = str(error)[:200]
    return HttpProblem(422, f'The body must be {{"rows": [{{...}}, ...]}}: {text}.')


def _undecodable_field(body: bytes) -> tuple[int, str] | None:
    """Row and name of the first value that msgspec itself refuses (it names only the row)."""
    try:
        rows = _UNDECODED.decode(body).rows
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    for number, row in enumerate(rows):
        for name, value in row.items():
            try:
                msgspec.json.decode(value)
            except (msgspec.MsgspecError, ValueError, RecursionError):
                return number, name
    return None


def from_data_error(error: DataError) -> HttpProblem:
    """The 422 that names each row and field that broke the contract, and never its value."""
    errors = [_entry(problem) for problem in error.problems]
    named = [f"rows[{e['row']}].{e['field']}" for e in errors if "field" in e]
    more = f" and {len(named) - 3} more" if len(named) > 3 else ""
    verb = "breaks" if len(named) == 1 else "break"
    detail = f"{', '.join(named[:3]) or 'The rows'}{more} {verb} the contract."
    return HttpProblem(422, detail, errors)


def _entry(problem: Problem) -> dict[str, Any]:
    place = _PLACE.fullmatch(problem.where)
    entry: dict[str, Any] = {}
    if place is not None:
        entry["row"] = int(place[1])
        if place[2]:
            entry["field"] = place[2][:_NAME_LENGTH]
    return {**entry, "rule": problem.rule[:_RULE_LENGTH]}
