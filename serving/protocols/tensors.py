"""Tensors of the Open Inference Protocol as columns, and columns as tensors.

One tensor a column, of shape `[rows]` or `[rows, 1]`. The same for HTTP and gRPC.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa

from raymill.serving.problems import NAME_LENGTH, HttpProblem

if TYPE_CHECKING:
    from raymill.data.contract import Contract
    from raymill.data.rules import ColumnRule

NUMBERS: dict[str, str] = {
    "INT8": "i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8", "UINT8": "u1", "UINT16": "<u2",
    "UINT32": "<u4", "UINT64": "<u8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}
OF_TYPE = {"int64": "INT64", "float64": "FP64", "bool": "BOOL", "string": "BYTES",
           "timestamp": "BYTES", "binary": "BYTES"}
_JSON_KINDS: dict[str, Any] = {"BOOL": list[bool | None], "BYTES": list[str | None]}
_WHOLE, _REAL = list[int | None], list[float | None]


@dataclass(frozen=True)
class Tensor:
    """One input: `data` is a JSON list, flat or as nested as the shape, or little-endian bytes."""

    name: str
    datatype: str
    shape: Sequence[int]
    data: list[Any] | bytes


def inputs_of(contract: Contract) -> list[dict[str, Any]]:
    """What the model's metadata says of its inputs."""
    return [{"name": name, "datatype": OF_TYPE[contract.columns[name].type], "shape": [-1]}
            for name in contract.features]


def outputs_of(contract: Contract) -> list[dict[str, Any]]:
    if contract.classes is None:
        return [{"name": "prediction", "datatype": "FP64", "shape": [-1]}]
    names = [f"probability_{each}" for each in contract.classes]
    return [{"name": "prediction", "datatype": "BYTES", "shape": [-1]},
            *({"name": name, "datatype": "FP64", "shape": [-1]} for name in names)]


def table_of(tensors: Sequence[Tensor], contract: Contract) -> pa.Table:
    """The features of a request's tensors; nullable ones that were left out are null.

    Raises:
        HttpProblem: 422 naming the tensor, for a name, type, shape or length that doesn't fit.
    """
    seen = dict[str, pa.Array]()
    known = {*contract.columns, *contract.drop}
    for tensor in tensors:
        if tensor.name not in known:
            raise refusal(tensor.name, "unknown field")
        if tensor.name in seen:
            raise refusal(tensor.name, "stands twice")
        if tensor.name in contract.features:
            seen[tensor.name] = column_of(tensor, contract.columns[tensor.name])
    if not seen:
        raise HttpProblem(422, "A request has at least one input that the model reads.")
    count = len(next(iter(seen.values())))
    for name, column in seen.items():
        if len(column) != count:
            raise refusal(name, "must have as many rows as the others")
    for name in contract.features:
        rule = contract.columns[name]
        if name not in seen and not rule.nullable:
            raise refusal(name, "must not be empty")
    columns = {name: seen.get(name, pa.nulls(count, contract.columns[name].arrow))
               for name in contract.features}
    return pa.table(columns)


def refusal(name: str, rule: str) -> HttpProblem:
    name = name[:NAME_LENGTH]
    return HttpProblem(422, f"The input {name}: {rule}.", [{"field": name, "rule": rule}])


def column_of(tensor: Tensor, rule: ColumnRule) -> pa.Array:
    """The tensor's values as they were sent, for the contract to check."""
    kind, shape = tensor.datatype, tuple(tensor.shape)
    if not _fits(kind, rule):
        raise refusal(tensor.name, f"the datatype must be {OF_TYPE[rule.type]}")
    if len(shape) not in (1, 2) or shape[1:] not in ((), (1,)) or shape[0] < 0:
        raise refusal(tensor.name, "the shape must be [rows] or [rows, 1]")
    if isinstance(tensor.data, bytes):
        return _from_bytes(tensor, tensor.data, shape[0], rule)
    return _from_json(tensor, tensor.data, shape[0], rule)


def _fits(kind: str, rule: ColumnRule) -> bool:
    if rule.type in ("int64", "float64"):
        return kind in NUMBERS
    return kind == OF_TYPE[rule.type]


def _from_json(tensor: Tensor, data: list[Any], count: int, rule: ColumnRule) -> pa.Array:
    if len(tensor.shape) == 2 and data and isinstance(data[0], list):
        if any(not isinstance(row, list) or len(row) != 1 for row in data):
            raise refusal(tensor.name, "the data must be as nested as the shape says")
        data = [row[0] for row in data]
    if len(data) != count:
        raise refusal(tensor.name, f"the shape says {count} values, but there are {len(data)}")
    whole = tensor.datatype in NUMBERS and "F" not in tensor.datatype
    wanted = _JSON_KINDS.get(tensor.datatype, _WHOLE if whole else _REAL)
    try:
        values = msgspec.convert(data, wanted)
        if rule.type == "binary":
            values = [None if v is None else base64.b64decode(v, validate=True) for v in values]
            return pa.array(values, pa.binary())
        return pa.array(values, pa.float64() if wanted == _REAL else None).cast(
            rule.arrow if not values or all(v is None for v in values) else
            {"BOOL": pa.bool_(), "BYTES": pa.string()}.get(
                tensor.datatype, pa.int64() if whole else pa.float64()))
    except (msgspec.ValidationError, ValueError, OverflowError):
        raise refusal(tensor.name, f"the data must be of the datatype {tensor.datatype}") from None


def _from_bytes(tensor: Tensor, data: bytes, count: int, rule: ColumnRule) -> pa.Array:
    if tensor.datatype == "BYTES":
        values = split_bytes(tensor.name, data, count)
        if rule.type == "binary":
            return pa.array(values, pa.binary())
        try:
            return pa.array([value.decode() for value in values], pa.string())
        except UnicodeDecodeError:
            raise refusal(tensor.name, "the text must be UTF-8") from None
    kind = np.dtype(NUMBERS.get(tensor.datatype, "u1"))
    if len(data) != count * kind.itemsize:
        raise refusal(tensor.name, f"the shape says {count * kind.itemsize} bytes, but there are "
                                   f"{len(data)}")
    numbers = np.frombuffer(data, kind)
    if tensor.datatype == "BOOL":
        if numbers.size and numbers.max() > 1:
            raise refusal(tensor.name, "a BOOL is 0 or 1")
        return pa.array(numbers.astype(bool))
    return pa.array(numbers.astype(np.float64) if kind.kind == "f" else numbers)


def values_of(tensors: Sequence[Tensor], name: str) -> list[Any] | None:
    """The values of one tensor as they were sent, also where the model does not read it.

    Raises:
        HttpProblem: 422 for elements that are not as long as they say.
    """
    for tensor in tensors:
        if tensor.name != name:
            continue
        data = tensor.data
        if isinstance(data, bytes):
            if tensor.datatype == "BYTES":
                return list(split_bytes(name, data, tensor.shape[0] if tensor.shape else 0))
            kind = np.dtype(NUMBERS.get(tensor.datatype, "u1"))
            if len(data) % kind.itemsize:
                raise refusal(name, f"its bytes are not whole elements of {kind.itemsize}")
            return list(np.frombuffer(data, kind).tolist())
        return [row[0] if isinstance(row, list) and len(row) == 1 else row for row in data]
    return None


def split_bytes(name: str, data: bytes, count: int) -> list[bytes]:
    """`count` elements, each with its length before it as 4 bytes."""
    values, at = list[bytes](), 0
    while at < len(data) and len(values) < count:
        if at + 4 > len(data):
            break
        size = struct.unpack_from("<I", data, at)[0]
        if at + 4 + size > len(data):
            break
        values.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    if len(values) != count or at != len(data):
        raise refusal(name, f"the data must be {count} elements, each after its length in 4 bytes")
    return values


def to_bytes(values: Sequence[Any], datatype: str) -> bytes:
    """An output's values in the binary form."""
    if datatype == "FP64":
        return np.asarray(values, "<f8").tobytes()
    texts = [str(value).encode() for value in values]
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)
