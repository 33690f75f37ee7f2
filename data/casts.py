"""Columns of any Arrow type as the type of their rule, with the places that can't be."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from .rules import ARROW, Type, utc

Bad = NDArray[np.int64]  # indices of values that are no such type; null in the array
NONE: Bad = np.zeros(0, np.int64)
_TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def cast(array: pa.Array, to: Type) -> tuple[pa.Array, Bad]:
    """`array` as Arrow's `to`, null where it can't be, and the indices of those places."""
    array = _plain(array)
    kind = array.type
    if to == "float64" and kind == pa.float64():
        return _nan_to_null(array), NONE
    if pa.types.is_null(kind):
        return array.cast(ARROW[to]), NONE
    if pa.types.is_string(kind):
        return _from_text(array, to)
    if pa.types.is_binary(kind):
        return _from_binary(array, to)
    if pa.types.is_temporal(kind):
        return _from_time(array, to)
    if pa.types.is_boolean(kind):
        return (array, NONE) if to == "bool" else _from_number(array.cast(pa.int64()), to, array)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _from_number(array, to, array)
    return _all_bad(array, to)



def _plain(array: pa.Array) -> pa.Array:
    """Dictionaries, views and large or wrapped types as the plain one of the same values."""
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return _plain(array.storage)
    if pa.types.is_dictionary(kind):
        return _plain(array.dictionary_decode())
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return array.cast(pa.string())
    if pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind) or (
        pa.types.is_binary_view(kind)
    ):
        return array.cast(pa.binary())
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        return _plain(pc.struct_field(array, "bytes"))
    return array


def _nan_to_null(array: pa.Array) -> pa.Array:
    nan = pc.is_nan(array)
    return pc.if_else(nan, pa.scalar(None, pa.float64()), array) if pc.any(nan).as_py() else array


def _from_text(array: pa.Array, to: Type) -> tuple[pa.Array, Bad]:
    if to == "string":
        return array, NONE
    if to != "binary":
        for kind in (ARROW[to], pa.timestamp("us", "UTC")) if to == "timestamp" else (ARROW[to],):
            try:
                typed = array.cast(kind).cast(ARROW[to])
            except pa.ArrowInvalid:
                continue
            return (_nan_to_null(typed) if to == "float64" else typed), NONE
    return one_by_one(array, to, PARSE[to])


def one_by_one(array: pa.Array, to: Type, parse: Callable[[Any], Any]) -> tuple[pa.Array, Bad]:
    """Each value through `parse`; a ValueError marks its place."""
    values, bad = [], []
    for index, value in enumerate(array.to_pylist()):
        try:
            values.append(None if value is None else parse(value))
        except (ValueError, OverflowError):
            values.append(None)
            bad.append(index)
    return pa.array(values, ARROW[to], from_pandas=to == "float64"), np.array(bad, np.int64)


def _whole(text: str) -> int:
    number = int(text) if text.strip().lstrip("+-").isdigit() else float(text)
    if number != int(number) or not -(2**63) <= number < 2**63:
        raise ValueError(text)
    return int(number)


def _truth(text: str) -> bool:
    if text.strip().lower() not in _TRUTH:
        raise ValueError(text)
    return _TRUTH[text.strip().lower()]


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None


PARSE: dict[str, Callable[[str], Any]] = {
    "int64": _whole, "float64": float, "bool": _truth, "timestamp": utc, "binary": _base64,
    "string": str,
}


def _from_binary(array: pa.Array, to: Type) -> tuple[pa.Array, Bad]:
    if to == "binary":
        return array, NONE
    try:
        text = array.cast(pa.string())
    except pa.ArrowInvalid:
        return one_by_one(array, to, lambda value: PARSE[to](value.decode("utf-8")))
    return _from_text(text, to)


def _from_time(array: pa.Array, to: Type) -> tuple[pa.Array, Bad]:
    if to == "string":
        return array.cast(pa.string()), NONE
    is_point = pa.types.is_timestamp(array.type) or pa.types.is_date(array.type)
    if to != "timestamp" or not is_point:
        return _all_bad(array, to)
    if pa.types.is_timestamp(array.type) and array.type.tz is not None:
        array = array.cast(pa.timestamp(array.type.unit, "UTC")).cast(pa.timestamp(array.type.unit))
    return pc.cast(array, pa.timestamp("us"), safe=False), NONE


def _from_number(numbers: pa.Array, to: Type, given: pa.Array) -> tuple[pa.Array, Bad]:
    if to in ("timestamp", "binary"):
        return _all_bad(given, to)
    if to == "float64":
        return _nan_to_null(pc.cast(numbers, pa.float64(), safe=False)), NONE
    if to == "string":
        return _number_text(given), NONE
    if pa.types.is_floating(numbers.type):
        numbers = _nan_to_null(numbers.cast(pa.float64()))
    try:
        whole = numbers.cast(pa.int64())
    except pa.ArrowInvalid:
        return one_by_one(numbers, to, lambda value: PARSE[to](str(value)))
    if to == "int64":
        return whole, NONE
    odd = pc.invert(pc.is_in(whole, pa.array([0, 1, None], pa.int64())))
    bad = np.flatnonzero(odd.to_numpy(zero_copy_only=False))
    return pc.if_else(odd, pa.scalar(None, pa.bool_()), pc.equal(whole, 1)), bad


def _number_text(numbers: pa.Array) -> pa.Array:
    """Numbers as text, each by itself; whole floats lose their `.0`, as classes 0 and 1 often have."""
    if not pa.types.is_floating(numbers.type):
        return numbers.cast(pa.string())
    numbers = _nan_to_null(numbers.cast(pa.float64()))
    whole = pc.and_(pc.equal(numbers, pc.trunc(numbers)), pc.less(pc.abs(numbers), 2.0**63))
    integers = pc.if_else(whole, numbers, 0.0).cast(pa.int64())
    return pc.if_else(whole, integers.cast(pa.string()), numbers.cast(pa.string()))


def _all_bad(array: pa.Array, to: Type) -> tuple[pa.Array, Bad]:
    bad = np.flatnonzero(pc.is_valid(array).to_numpy(zero_copy_only=False))
    return pa.nulls(len(array), ARROW[to]), bad
