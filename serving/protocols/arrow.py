"""Arrow IPC streams on `POST /predict`: many rows at little cost, columns in and columns out."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from raymill.serving.answers import Answer, Request
from raymill.serving.desk import Asked
from raymill.serving.problems import NAME_LENGTH, HttpProblem
from raymill.serving.scorer import Scored

if TYPE_CHECKING:
    from raymill.data.contract import Contract
    from raymill.data.rules import ColumnRule

ARROW = b"application/vnd.apache.arrow.stream"
_WIDEST = 10_000  # columns of a schema
_REMEMBERED, _REMEMBERED_BYTES = 32, 2**16  # schemas, and of each


class ArrowStream:
    """Reads and writes streams.

    The schema is judged before a row is read: known columns, plain types, no extension types. A
    compressed stream is refused, since a small one could hold any number of bytes.
    """

    def __init__(self, contract: Contract, name: str) -> None:
        self._rules = {each: contract.columns[each] for each in contract.features}
        self._known = frozenset(contract.columns) | frozenset(contract.drop)
        self._judged: dict[bytes, pa.Schema] = {}
        self._model = (b"x-raymill-model", name.encode())

    def read(self, body: bytes, request: Request) -> Asked:
        """The stream's rows.

        Raises:
            HttpProblem: 400 for what isn't a stream, 422 for columns that the contract refuses.
        """
        try:
            table = self._read(body)
        except (pa.ArrowException, ValueError, OSError, MemoryError) as error:
            raise HttpProblem(400, f"The body is not an Arrow IPC stream: {_said(error)}.") from None
        return Asked(self._whole(table), len(table), self.write, lambda name: column_of(body, name))

    def _read(self, body: bytes) -> pa.Table:
        messages = pa.ipc.MessageReader.open_stream(pa.py_buffer(body))
        first = _next(messages)
        if first is None or first.type != "schema":
            raise ValueError("it must begin with a schema")
        schema = self._schema(first)
        if any(pa.types.is_dictionary(field.type) for field in schema):
            # Their values come in messages of their own; let the reader join them.
            _refuse_compressed(messages)
            table = pa.ipc.open_stream(body).read_all()
        else:
            batches = []
            while (message := _next(messages)) is not None:
                if message.type != "record batch":
                    raise ValueError(f"it holds a {message.type} message")
                _refuse_if_compressed(message)
                batches.append(pa.ipc.read_record_batch(message, schema))
            table = pa.Table.from_batches(batches, schema)
        table.validate(full=True)  # offsets that lead outside of their buffer
        return table.select([name for name in schema.names if name in self._rules])

    def _schema(self, message: pa.ipc.Message) -> pa.Schema:
        """The schema of a stream, judged; a client's next stream has most likely the same."""
        key = message.metadata.to_pybytes()
        schema = self._judged.get(key)
        if schema is None:
            schema = pa.ipc.read_schema(message)
            self._judge(schema)
            if len(self._judged) < _REMEMBERED and len(key) < _REMEMBERED_BYTES:
                self._judged[key] = schema
        return schema

    def _judge(self, schema: pa.Schema) -> None:
        if len(schema) > _WIDEST or len(set(schema.names)) != len(schema):
            raise HttpProblem(422, "Each column stands once in the schema.")
        entries = []
        for field in schema:
            if field.name not in self._known:
                rule = "unknown field"
            elif not _plain(field.type):
                rule = f"a column of type {str(field.type)[:40]} can't be read"
            elif field.name in self._rules and not fits(field.type, self._rules[field.name]):
                rule = f"must be {_wanted(self._rules[field.name])}, not {str(field.type)[:40]}"
            else:
                continue
            entries.append({"field": field.name[:NAME_LENGTH], "rule": rule})
        entries += [{"field": name[:NAME_LENGTH], "rule": "must not be empty"}
                    for name, rule in self._rules.items()
                    if not rule.nullable and name not in schema.names]
        if entries:
            named = ", ".join(str(entry["field"]) for entry in entries[:3])
            raise HttpProblem(422, f"The schema breaks the contract: {named}.", entries[:50])

    def _whole(self, table: pa.Table) -> pa.Table:
        """With a column of nulls for each nullable one that was left out."""
        there = frozenset(table.column_names)
        for name, rule in self._rules.items():
            if name not in there:
                table = table.append_column(name, pa.nulls(len(table), rule.arrow))
        return table

    def write(self, scored: Scored) -> Answer:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, scored.answers.schema) as stream:
            stream.write_table(scored.answers)
        return Answer(sink.getvalue().to_pybytes(), ARROW, headers=[self._model])


def column_of(body: bytes, name: str) -> list[Any] | None:
    """A column of a stream that was read, and judged, before."""
    table = pa.ipc.open_stream(body).read_all()
    return table.column(name).to_pylist() if name in table.column_names else None


def fits(kind: pa.DataType, rule: ColumnRule) -> bool:
    """Whether values of `kind` can be the column's without a change of meaning."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_null(kind):
        return rule.nullable
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or (
        pa.types.is_string_view(kind))
    data = pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or (
        pa.types.is_binary_view(kind) or pa.types.is_fixed_size_binary(kind))
    point = pa.types.is_timestamp(kind) or pa.types.is_date(kind)
    fitting = {"int64": number, "float64": number, "bool": pa.types.is_boolean(kind),
               "string": text, "timestamp": point or text, "binary": data or text}
    return bool(fitting[rule.type])


def _wanted(rule: ColumnRule) -> str:
    return {"int64": "integers", "float64": "numbers", "bool": "booleans", "string": "strings",
            "timestamp": "timestamps or ISO texts", "binary": "bytes"}[rule.type]


def _plain(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.BaseExtensionType) or pa.types.is_nested(kind):
        return False
    return not pa.types.is_dictionary(kind) or _plain(kind.value_type)


def _next(messages: pa.ipc.MessageReader) -> pa.ipc.Message | None:
    try:
        return messages.read_next_message()
    except StopIteration:
        return None


def _refuse_compressed(messages: pa.ipc.MessageReader) -> None:
    while (message := _next(messages)) is not None:
        _refuse_if_compressed(message)


def _refuse_if_compressed(message: pa.ipc.Message) -> None:
    if _compressed(message.metadata.to_pybytes()):
        raise ValueError("its buffers are compressed")


def _compressed(metadata: bytes) -> bool:
    """Whether a Message flatbuffer says that its record batch's buffers are compressed.

    Message: header_type is field 1, header field 2; RecordBatch: compression is field 3;
    DictionaryBatch (type 2): data, a RecordBatch, is field 1. (Arrow's format/Message.fbs)
    """

    def field(table: int, number: int) -> int:
        vtable = table - struct.unpack_from("<i", metadata, table)[0]
        at = 4 + 2 * number
        if at >= struct.unpack_from("<H", metadata, vtable)[0]:
            return 0
        offset = int(struct.unpack_from("<H", metadata, vtable + at)[0])
        return table + offset if offset else 0

    def follow(at: int) -> int:
        return at + int(struct.unpack_from("<I", metadata, at)[0])

    try:
        message = follow(0)
        kind, header = field(message, 1), field(message, 2)
        if not kind or not header:
            return False
        batch = follow(header)
        if metadata[kind] == 2:
            batch = follow(field(batch, 1))
        return field(batch, 3) != 0
    except (struct.error, IndexError):
        raise ValueError("its metadata can't be read") from None


def _said(error: Exception) -> str:
    return str(error).splitlines()[0][:120].rstrip(".") if str(error) else type(error).__name__
