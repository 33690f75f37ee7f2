"""Infer requests of gRPC as those of HTTP with binary tensors, and the answers back."""

from __future__ import annotations

import struct
from typing import Any

import msgspec
import numpy as np

from .messages import MESSAGES
from .tensors import NUMBERS

_CONTENTS = {  # datatype -> the field that holds it (the protocol has none for FP16)
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents",
    "INT32": "int_contents", "INT64": "int64_contents", "UINT8": "uint_contents",
    "UINT16": "uint_contents", "UINT32": "uint_contents", "UINT64": "uint64_contents",
    "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}


class Unreadable(Exception):
    """A request that can't be put in other words."""


def to_http(request: Any) -> tuple[bytes, int]:
    """A body of HTTP with binary tensors, and the length of its JSON.

    Raises:
        Unreadable: contents of both kinds or of neither, or values that their datatype can't hold.
    """
    raw = list(request.raw_input_contents)
    if raw and len(raw) != len(request.inputs):
        raise Unreadable("raw_input_contents has one entry an input, or none at all.")
    inputs, parts = [], []
    for index, tensor in enumerate(request.inputs):
        part = raw[index] if raw else _packed(tensor)
        parameters = _parameters(tensor.parameters) | {"binary_data_size": len(part)}
        inputs.append({"name": tensor.name, "datatype": tensor.datatype,
                       "shape": list(tensor.shape), "parameters": parameters})
        parts.append(part)
    document: dict[str, Any] = {
        "inputs": inputs, "id": request.id,
        "parameters": _parameters(request.parameters) | {"binary_data_output": True}}
    if request.outputs:
        document["outputs"] = [{"name": each.name, "parameters": _parameters(each.parameters)}
                               for each in request.outputs]
    head = msgspec.json.encode(document)
    return b"".join([head, *parts]), len(head)


def from_http(body: bytes, length: int) -> Any:
    """The answer of HTTP with binary tensors as a ModelInferResponse."""
    document = msgspec.json.decode(body[:length])
    response = MESSAGES["ModelInferResponse"](
        model_name=document["model_name"], model_version=document["model_version"],
        id=document.get("id", ""))
    at = length
    for output in document["outputs"]:
        response.outputs.add(name=output["name"], datatype=output["datatype"],
                             shape=output["shape"])
        size = output["parameters"]["binary_data_size"]
        response.raw_output_contents.append(body[at : at + size])
        at += size
    return response


def _packed(tensor: Any) -> bytes:
    field = _CONTENTS.get(tensor.datatype)
    given = [each.name for each, _ in tensor.contents.ListFields()]
    if field is None or given not in ([], [field]):
        raise Unreadable(f"The contents of {tensor.name[:64]} are not those of its datatype.")
    values = getattr(tensor.contents, field)
    if tensor.datatype == "BYTES":
        return b"".join(struct.pack("<I", len(value)) + value for value in values)
    kind = np.dtype(NUMBERS.get(tensor.datatype, "u1"))
    numbers = np.array(values, dtype=np.float64 if kind.kind == "f" else None)
    if numbers.size and kind.kind != "f" and tensor.datatype != "BOOL":
        limits = np.iinfo(kind)
        if numbers.min() < limits.min or numbers.max() > limits.max:
            raise Unreadable(f"The contents of {tensor.name[:64]} are not those of its datatype.")
    return numbers.astype(kind).tobytes()


def _parameters(given: Any) -> dict[str, Any]:
    return {key: getattr(value, value.WhichOneof("parameter_choice") or "bool_param")
            for key, value in given.items()}
