"""MLflow's scoring protocol: `POST /invocations`, `GET /ping`; what `mlflow models serve` speaks.

https://mlflow.org/docs/latest/ml/deployment/deploy-model-locally/
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa
import pyarrow.csv as pacsv

from raymill.data.read import NULLS
from raymill.serving.answers import JSON, Answer, Request, Route, encode
from raymill.serving.desk import Asked, Desk
from raymill.serving.pages import check_ready
from raymill.serving.problems import NAME_LENGTH, HttpProblem
from raymill.serving.scorer import Scored

from .native import not_json

if TYPE_CHECKING:
    from raymill.data.contract import Contract

CSV = b"text/csv"
_FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
_BLOCK = 2**30


class _Split(msgspec.Struct):
    columns: list[str]
    data: list[list[Any]]
    index: list[Any] | None = None  # labels of the rows; predictions have none


def routes(desk: Desk) -> list[Route]:
    """`/invocations` and `/ping`."""

    async def ping(request: Request) -> Answer:
        check_ready(lambda: desk.stuck)
        return Answer(b"\n")

    handler = desk.handler({JSON: lambda model: model.mlflow.read_json,
                            CSV: lambda model: model.mlflow.read_csv})
    return [Route("POST", "/invocations", handler), Route("GET", "/ping", ping, open=True)]


class Invocations:
    """Reads the four JSON forms and CSV. The answer is `{"predictions": [{...}, ...]}`, a row each,
    with the columns that the registered model's own `predict` gives."""

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._known = frozenset(contract.columns) | frozenset(contract.drop)

    def read_json(self, body: bytes, request: Request) -> Asked:
        """The rows of one of the four forms.

        Raises:
            HttpProblem: 400 for what isn't JSON, 422 for another shape.
        """
        document = _decode(body)
        given = [form for form in _FORMS if isinstance(document, dict) and form in document]
        if not isinstance(document, dict) or len(given) != 1:
            raise HttpProblem(422, f"The body must have one of {', '.join(_FORMS)}.")
        if document.get("params"):
            raise HttpProblem(422, "The model takes no params.")
        if unknown := [key for key in document if key not in (*given, "params")]:
            raise HttpProblem(422, f"There is no such key: {unknown[0][:NAME_LENGTH]}.")
        rows = _rows(given[0], document[given[0]])
        return Asked(rows, len(rows), self.write,
                     lambda name: [row.get(name) for row in rows])

    def read_csv(self, body: bytes, request: Request) -> Asked:
        """The rows of a CSV with a header.

        Raises:
            HttpProblem: 400 for what isn't CSV, 422 for columns that the contract doesn't know.
        """
        try:
            names = pacsv.open_csv(
                pa.BufferReader(body), read_options=pacsv.ReadOptions(use_threads=False),
            ).schema.names
            table = pacsv.read_csv(
                pa.BufferReader(body),
                read_options=pacsv.ReadOptions(use_threads=False, block_size=_BLOCK),
                parse_options=pacsv.ParseOptions(newlines_in_values=True),
                convert_options=pacsv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True,
                    quoted_strings_can_be_null=False, null_values=NULLS),
            )
        except (pa.ArrowException, UnicodeDecodeError):  # of names that are no UTF-8
            raise HttpProblem(400, "The body is not a CSV with a header and rows of as many "
                                   "fields.") from None
        return Asked(
            self._columns(table), len(table), self.write,
            lambda name: table[name].to_pylist() if name in table.column_names else None)

    def _columns(self, table: pa.Table) -> pa.Table:
        rules = self._contract.columns
        wrong = [(name, "unknown field") for name in table.column_names if name not in self._known]
        wrong += [(name, "must not be empty") for name in self._contract.features
                  if name not in table.column_names and not rules[name].nullable]
        if wrong or len(set(table.column_names)) != table.num_columns:
            entries = [{"field": name[:NAME_LENGTH], "rule": rule} for name, rule in wrong[:50]]
            raise HttpProblem(422, "The header breaks the contract.", entries)
        for name in self._contract.features:
            if name not in table.column_names:
                table = table.append_column(name, pa.nulls(len(table), pa.string()))
        return table.select(self._contract.features)

    def write(self, scored: Scored) -> Answer:
        columns = scored.columns()
        rows = [dict(zip(columns, row, strict=True))
                for row in zip(*columns.values(), strict=True)]
        return Answer(encode({"predictions": rows}))


def _decode(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        if b"NaN" not in body:
            raise not_json(error) from None
    try:  # MLflow's client writes NaN where a value is missing
        return json.loads(body, parse_constant=_constant)
    except (ValueError, RecursionError):
        raise HttpProblem(400, "The body is not JSON (NaN is taken, Infinity is not).") from None


def _constant(name: str) -> None:
    if name != "NaN":
        raise ValueError(name)


def _rows(form: str, value: Any) -> list[dict[str, Any]]:
    """Rows of any form; an object of columns is turned into rows.

    Raises:
        HttpProblem: 422.
    """
    if form == "dataframe_split":
        try:
            split = msgspec.convert(value, _Split)
        except msgspec.ValidationError as error:
            raise HttpProblem(422, f"dataframe_split: {str(error)[:200]}.") from None
        names = split.columns
        if len(set(names)) != len(names) or any(len(row) != len(names) for row in split.data):
            raise HttpProblem(422, "dataframe_split: each row has one value a column.")
        return [dict(zip(names, row, strict=True)) for row in split.data]
    if isinstance(value, dict) and form != "dataframe_records":
        columns = list(value.values())
        if not all(isinstance(column, list) for column in columns) or len(
            {len(column) for column in columns}
        ) != 1:
            raise HttpProblem(422, f"{form}: an object has a list a column, all as long.")
        return [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True)]
    if isinstance(value, list) and all(isinstance(row, dict) for row in value):
        return value
    raise HttpProblem(422, f"{form}: rows are objects of column and value.")
