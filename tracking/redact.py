"""Keeps secrets out of what is recorded."""

from __future__ import annotations

import re

HIDDEN = "***"
_SECRET_NAME = re.compile(
    r"(?:token|secret|passw(?:or)?d|credentials?|api_?key|access_?key|private_?key)$",
    re.IGNORECASE)
_USER_INFO = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/]+@", re.IGNORECASE)
_QUERY = re.compile(
    r"([?&][\w.-]*(?:token|secret|passw(?:or)?d|credential|signature|key)[\w.-]*=)[^\s&'\"]+",
    re.IGNORECASE)
_ASSIGNED = re.compile(
    r"((?:token|secret|passw(?:or)?d|credential|signature|api_?key|access_?key)[\w.-]*\s*[=:]\s*)"
    r"[^\s&;,'\"]+", re.IGNORECASE)


def redact(text: str) -> str:
    """`text` without secrets of URIs and without the values of `password=...` and the like."""
    return _ASSIGNED.sub(rf"\g<1>{HIDDEN}", redact_uris(text))


def redact_uris(text: str) -> str:
    """`text` with the user info and the secret parameters of URIs hidden, else as it is."""
    return _QUERY.sub(rf"\g<1>{HIDDEN}", _USER_INFO.sub(rf"\g<1>{HIDDEN}@", text))


def redact_value(name: str, value: object) -> str:
    """A named value as text: hidden when `name` says that it is a secret."""
    return HIDDEN if _SECRET_NAME.search(name) else redact(str(value))
