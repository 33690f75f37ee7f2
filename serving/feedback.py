"""`POST /feedback`: true labels of answered rows, by the ids of the answers."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from raymill.monitoring.labels import Label, append, size_of
from raymill.specs import seconds

from .answers import JSON, Answer, Request, Route, encode
from .bodies import check_headers, read_body
from .identity import born
from .problems import HttpProblem, overloaded
from .protocols.native import not_json
from .spec import LogSpec, ServingSpec

if TYPE_CHECKING:
    from raymill.data.contract import Contract

PATH = "/feedback"
MOST_WAITING = 64  # requests whose labels wait for the disk
_AHEAD_S = 60.0  # how far another machine's clock may be ahead
_LISTED = 50


class _Label(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    label: Any


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    labels: list[_Label]


_BODY = msgspec.json.Decoder(_Body)


class Feedback:
    """Takes labels; a 200 says that all of the request are on disk, another status that none is.

    An id is that of an answer, or `ID.k` for its row k from 0. Whether it was logged is not
    looked up: an answer may reach the log after its label, and the join is made when both are
    read. Sent again, a label replaces the earlier one, which stays as history.
    """

    def __init__(
        self, contract: Contract, folder: Path, limits: ServingSpec,
        on_labels: Callable[[int], None] = lambda labels: None,
    ) -> None:
        spec = limits.log or LogSpec()
        self._folder, self._on_labels = folder, on_labels
        self._classes = frozenset(contract.classes or ())
        self._max_bytes, self._most = int(limits.max_body_mb * 2**20), limits.max_rows
        self._deadline_s, self._keep_s = limits.deadline_ms / 1000, seconds(spec.keep)
        self._keep, self._room = spec.keep, spec.max_gb * 2**30
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="feedback")
        self._waiting = 0

    def routes(self) -> list[Route]:
        return [Route("POST", PATH, self._take)]

    async def _take(self, request: Request) -> Answer:
        check_headers(request.scope["headers"], (JSON,), self._max_bytes)
        if self._waiting >= MOST_WAITING:
            raise overloaded()
        self._waiting += 1
        try:
            async with asyncio.timeout(self._deadline_s):
                labels = self.read(await read_body(request.receive, self._max_bytes),
                                   request.holder)
                await asyncio.get_running_loop().run_in_executor(self._thread, self._keep_them, labels)
        except TimeoutError:
            raise HttpProblem(504, f"The labels were not on disk within the deadline of "
                                   f"{self._deadline_s:g} s; send them again.") from None
        finally:
            self._waiting -= 1
        self._on_labels(len(labels))
        return Answer(encode({"accepted": len(labels)}))

    def read(self, body: bytes, holder: str) -> list[Label]:
        """The labels of a body.

        Raises:
            HttpProblem: 400 for what isn't JSON, 422 naming each label that can't be one.
        """
        try:
            given = _BODY.decode(body).labels
        except msgspec.ValidationError as error:
            raise HttpProblem(422, 'The body must be {"labels": [{"id": ..., "label": ...}, ...]}: '
                                   f"{str(error)[:200]}.") from None
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise not_json(error) from None
        if not 1 <= len(given) <= self._most:
            raise HttpProblem(422, f"A request has 1 to {self._most} labels, but this one has "
                                   f"{len(given)}.")
        now, labels, errors = time.time(), list[Label](), list[dict[str, Any]]()
        for row, each in enumerate(given):
            try:
                id_, _, index = each.id.partition(".")
                self._check_id(id_, index if "." in each.id else "0", now)
                labels.append(Label(id_, int(index or 0), self._label(each.label), now, holder))
            except _Wrong as wrong:
                errors.append({"row": row, "field": wrong.field, "rule": str(wrong)})
        if errors:
            named = ", ".join(f"labels[{each['row']}].{each['field']}" for each in errors[:3])
            raise HttpProblem(422, f"No label was taken: {named} can't be.", errors[:_LISTED])
        return labels

    def _check_id(self, id_: str, index: str, now: float) -> None:
        moment = born(id_)
        if moment is None or not index.isdecimal() or len(index) > 7 or moment > now + _AHEAD_S:
            raise _Wrong("id", "must be the id of an answer, or ID.k for its row k")
        if moment < now - self._keep_s:
            raise _Wrong("id", f"is of an answer that is not kept any more (serving.log.keep is "
                               f"{self._keep})")

    def _label(self, value: Any) -> str:
        if self._classes:
            text = class_text(value)
            if text not in self._classes:
                raise _Wrong("label", "must be one of the target's classes")
            return text
        if isinstance(value, bool) or not isinstance(value, int | float) or not _finite(value):
            raise _Wrong("label", "must be a finite number")
        return repr(float(value))

    def _keep_them(self, labels: list[Label]) -> None:
        if size_of(self._folder) > self._room:
            raise HttpProblem(507, "The labels have taken all room that serving.log.max_gb gives.")
        append(self._folder, labels)


class _Wrong(ValueError):
    """A label that can't be one; `field`: id or label."""

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(rule)
        self.field = field


def class_text(value: Any) -> str | None:
    """A label as classes are named: 1, 1.0 and "1" are the class 1, true is the class true."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return str(int(value))
    return str(value) if isinstance(value, str | int | float) else None


def _finite(value: float) -> bool:
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False
