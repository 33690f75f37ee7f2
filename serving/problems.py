"""HTTP errors as RFC 9457 problem documents."""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

CONTENT_TYPE = b"application/problem+json"


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
