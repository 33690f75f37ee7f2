"""API keys of a home: shown once, kept as salted hashes; two live ones a holder, to rotate."""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from raymill.errors import UsageError

from .answers import Request
from .order import write_private
from .problems import HttpProblem

LIVE = 2  # keys of one holder
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_AGAIN_S = 1.0  # how old a ring may be: a revoked key is refused within this time
_NOBODY = ("", "0" * 64)


@dataclass(frozen=True)
class Key:
    """What is kept of a key: enough to know it again, not enough to use it."""

    id: str
    holder: str
    salt: str
    digest: str
    created: str


def path_of(home: Path) -> Path:
    return home / "keys.json"


def live(home: Path) -> list[Key]:
    """The keys of a home, oldest first."""
    try:
        return [Key(**each) for each in json.loads(path_of(home).read_text(encoding="utf-8"))]
    except FileNotFoundError:
        return []


def add(home: Path, holder: str) -> tuple[Key, str]:
    """A new key, and its text, which nobody can get again.

    Raises:
        UsageError: the name is none, or the holder has two keys already.
    """
    if not _NAME.fullmatch(holder):
        raise UsageError(f"a holder's name has letters, digits and . _ -, but got {holder!r}")
    with _changing(home) as keys:
        if sum(key.holder == holder for key in keys) >= LIVE:
            raise UsageError(f"{holder} has {LIVE} live keys already",
                             cure=f"Revoke the old one: raymill serve keys revoke {holder}.")
        secret, salt = secrets.token_urlsafe(32), secrets.token_hex(16)
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        key = Key(secrets.token_hex(4), holder, salt, _digest(salt, secret), created)
        keys.append(key)
    return key, f"rm_{key.id}_{secret}"


def revoke(home: Path, holder: str, id_: str | None = None) -> Key:
    """Take back the holder's oldest key, or the one of that id.

    Raises:
        UsageError: there is no such key.
    """
    with _changing(home) as keys:
        found = [key for key in keys if key.holder == holder and id_ in (None, key.id)]
        if not found:
            raise UsageError(f"{holder} has no key" + (f" {id_}" if id_ else ""),
                             cure="See raymill serve keys list.")
        keys.remove(found[0])
    return found[0]


@contextmanager
def _changing(home: Path) -> Iterator[list[Key]]:
    """The keys, written back when the block has ended well; one process at a time."""
    with (home / ".keys.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        keys = live(home)
        yield keys
        write_private(path_of(home), json.dumps([asdict(key) for key in keys], indent=1) + "\n")


def _digest(salt: str, secret: str) -> str:
    """Of 256 random bits: nothing to guess, so nothing to slow down."""
    return hashlib.sha256(f"{salt}{secret}".encode()).hexdigest()


class KeyRing:
    """A guard that lets in who has a live key; it follows the file's changes."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._keys: dict[str, Key] = {}
        self._seen, self._next = -1, 0.0

    def __call__(self, request: Request) -> None:
        """Sets the request's holder.

        Raises:
            HttpProblem: 401.
        """
        text = request.header(b"x-api-key")
        if not text:
            scheme, _, text = request.header(b"authorization").partition(b" ")
            text = text.strip() if scheme.lower() == b"bearer" else b""
        holder = self.holder(text)
        if holder is None:
            raise HttpProblem(401, "An API key is needed, as Authorization: Bearer KEY.",
                              headers=[(b"www-authenticate", b"Bearer")])
        request.holder = holder

    def holder(self, text: bytes) -> str | None:
        """Whose key this is; None for none, in the same time."""
        self._follow()
        kind, _, rest = text.decode("latin-1").partition("_")
        id_, _, secret = rest.partition("_")
        key = self._keys.get(id_)
        salt, wanted = (key.salt, key.digest) if key is not None else _NOBODY
        same = hmac.compare_digest(_digest(salt, secret), wanted)
        return key.holder if same and key is not None and kind == "rm" else None

    def _follow(self) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _AGAIN_S
        try:
            seen = path_of(self._home).stat().st_mtime_ns
        except FileNotFoundError:
            self._keys, self._seen = {}, -1
            return
        if seen != self._seen:
            self._keys = {key.id: key for key in live(self._home)}
            self._seen = seen
