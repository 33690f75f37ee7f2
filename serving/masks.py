"""How inputs enter the prediction log: columns that the contract calls sensitive never plainly."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from raymill.monitoring.store import INPUT

if TYPE_CHECKING:
    from raymill.data.contract import Contract

_SALT = ".salt"
_HASH_BYTES = 8


class Masks:
    """A conformed table to its logged columns, `input.<name>`.

    A sensitive column becomes a keyed hash (16 hex digits: the same value, the same hash, so that
    its distribution can still be watched) or is left out; so do images, for their size.

    Args:
        salt: the key of the hashes, see `salt_of`.
    """

    def __init__(
        self, contract: Contract, sensitive: Literal["hash", "drop"], salt: bytes
    ) -> None:
        rules = {name: contract.columns[name] for name in contract.features}
        hidden = {name for name, rule in rules.items() if rule.sensitive}
        self._kept = [name for name in rules if sensitive == "hash" or name not in hidden]
        self._hashed = {
            name: _hasher(salt, name) for name in self._kept
            if name in hidden or rules[name].type == "binary"
        }
        self.schema = pa.schema([
            (INPUT + name, pa.string() if name in self._hashed else rules[name].arrow)
            for name in self._kept
        ])

    def __call__(self, table: pa.Table) -> pa.Table:
        """The logged columns of conformed rows."""
        columns = [self._column(name, table.column(name)) for name in self._kept]
        return pa.Table.from_arrays(columns, schema=self.schema)

    def _column(self, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
        hashed = self._hashed.get(name)
        if hashed is None:
            return column
        return pa.array([None if value is None else hashed(value)
                         for value in column.to_pylist()], pa.string())


def salt_of(home: Path) -> bytes:
    """The home's secret for masks, made when it is first asked for.

    Raises:
        OSError: the home can't be written.
    """
    path = home / "predictions" / _SALT
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        beside = path.with_name(f"{_SALT}.{os.getpid()}-{secrets.token_hex(4)}")
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(32))
        with suppress(FileExistsError):  # another replica's came first
            os.link(beside, path)
        beside.unlink()
    return path.read_bytes()


def _hasher(salt: bytes, column: str) -> Callable[[Any], str]:
    """Keyed by column too: equal values of two columns have nothing in common."""
    keyed = hashlib.blake2b(column.encode(), key=salt, digest_size=32).digest()

    def hashed(value: Any) -> str:
        return hashlib.blake2b(_bytes(value), key=keyed, digest_size=_HASH_BYTES).hexdigest()

    return hashed


def _bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    return (value.isoformat() if isinstance(value, datetime) else str(value)).encode()
