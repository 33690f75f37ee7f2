"""raymill's own JSON: `{"rows": [{...}, ...]}` in, `{"predictions": [...], ...}` out."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from raymill.data.structs import StructReader
from raymill.serving.answers import Answer, Request, encode
from raymill.serving.desk import Asked
from raymill.serving.problems import NAME_LENGTH, HttpProblem
from raymill.serving.scorer import PROBABILITY, Rows, Scored

if TYPE_CHECKING:
    from raymill.data.contract import Contract


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    rows: list[dict[str, Any]]


class _Undecoded(msgspec.Struct):
    rows: list[dict[str, msgspec.Raw]]


_BODY = msgspec.json.Decoder(_Body)
_UNDECODED = msgspec.json.Decoder(_Undecoded)


class Native:
    """Reads and writes the bodies of `POST /predict`."""

    def __init__(self, contract: Contract, name: str) -> None:
        self._structs, self._name = StructReader(contract), name

    def read(self, body: bytes, request: Request) -> Asked:
        """The rows of a body.

        Raises:
            HttpProblem: 400 for what isn't JSON, 422 for JSON that isn't `{"rows": [{...}, ...]}`.
        """
        rows: Rows
        try:
            rows = self._structs.decode(body)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            rows = decode(body)  # slower, and it knows what is wrong
        return Asked(rows, len(rows), partial(self.write, request.id),
                     lambda name: column_of(body, name))

    def write(self, id_: str, scored: Scored) -> Answer:
        return Answer(encode({"predictions": predictions(scored), "model": self._name,
                              "version": scored.version, "id": id_}))


def column_of(body: bytes, name: str) -> list[Any] | None:
    """A column of a body that was read before."""
    return [row.get(name) for row in msgspec.json.decode(body)["rows"]]


def predictions(scored: Scored) -> list[dict[str, Any]]:
    """`{"prediction": ..., "probability": {class: p}}` a row (no probability for a number)."""
    columns = scored.columns()
    chosen = columns.pop("prediction")
    if not columns:
        return [{"prediction": value} for value in chosen]
    names = [name.removeprefix(PROBABILITY) for name in columns]
    if len(names) == 2:  # the common case, without a zip a row
        first, second = names
        return [{"prediction": value, "probability": {first: a, second: b}}
                for value, a, b in zip(chosen, *columns.values(), strict=True)]
    shares = zip(*columns.values(), strict=True)
    return [{"prediction": value, "probability": dict(zip(names, share, strict=True))}
            for value, share in zip(chosen, shares, strict=True)]


def decode(body: bytes) -> list[dict[str, Any]]:
    """The rows as they are, not yet checked.

    Raises:
        HttpProblem: 400 or 422.
    """
    try:
        return _BODY.decode(body).rows
    except msgspec.ValidationError as error:
        raise _misshapen(error, body) from None
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise not_json(error) from None


def not_json(error: Exception) -> HttpProblem:
    """The 400 for what msgspec could not decode."""
    if isinstance(error, RecursionError):
        return HttpProblem(400, "The JSON is nested too deeply.")
    if isinstance(error, UnicodeDecodeError):
        return HttpProblem(400, "The body is not UTF-8.")
    detail = f"The body is not JSON: {error}. (NaN and Infinity are not JSON; use null.)"
    return HttpProblem(400, detail)


def _misshapen(error: msgspec.ValidationError, body: bytes) -> HttpProblem:
    field = _undecodable_field(body)
    if field is not None:
        row, name = field
        entry = {"row": row, "field": name[:NAME_LENGTH], "rule": "the number is out of range"}
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
