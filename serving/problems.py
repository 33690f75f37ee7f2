"""HTTP errors as RFC 9457 problem documents."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from raymill.errors import DataError, Problem

CONTENT_TYPE = b"application/problem+json"
_PLACE = re.compile(r"rows\[(\d+)\](?:\.(.*))?", re.DOTALL)
NAME_LENGTH, _RULE_LENGTH = 64, 300


@dataclass
class HttpProblem(Exception):
    """An answer other than 2xx. It never holds a value of the request, only names of fields."""

    status: int
    detail: str
    errors: list[dict[str, Any]] = field(default_factory=list)
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            body["errors"] = self.errors
        return body


def not_found(paths: list[str]) -> HttpProblem:
    return HttpProblem(404, f"There is no such path; there are {', '.join(sorted(paths))}.")


def not_allowed(allowed: str) -> HttpProblem:
    detail = f"This path takes {allowed} only."
    return HttpProblem(405, detail, headers=[(b"allow", allowed.encode())])


def overloaded(after_s: int = 1) -> HttpProblem:
    detail = f"Too many requests wait already; try again in {after_s} s."
    return HttpProblem(429, detail, headers=[(b"retry-after", str(after_s).encode())])


def from_data_error(error: DataError) -> HttpProblem:
    """The 422 that names each row and field that broke the contract, and never its value."""
    errors = [_entry(problem) for problem in error.problems]
    named = [f"rows[{e['row']}].{e['field']}" if "row" in e else str(e["field"])
             for e in errors if "field" in e]
    more = f" and {len(named) - 3} more" if len(named) > 3 else ""
    verb = "breaks" if len(named) == 1 else "break"
    detail = f"{', '.join(named[:3]) or 'The rows'}{more} {verb} the contract."
    return HttpProblem(422, detail, errors)


def _entry(problem: Problem) -> dict[str, Any]:
    place = _PLACE.fullmatch(problem.where)
    entry: dict[str, Any] = {}
    if place is None and problem.where:
        entry["field"] = problem.where[:NAME_LENGTH]
    elif place is not None:
        entry["row"] = int(place[1])
        if place[2]:
            entry["field"] = place[2][:NAME_LENGTH]
    return {**entry, "rule": problem.rule[:_RULE_LENGTH]}
