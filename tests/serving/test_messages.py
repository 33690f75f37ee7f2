"""Our messages are, bit for bit, those of the protocol's own clients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from google.protobuf import descriptor_pb2
from tritonclient.grpc import service_pb2

from raymill.serving.protocols.grpc_infer import Unreadable, to_http
from raymill.serving.protocols.messages import MESSAGES


def fields(descriptor: Any) -> list[tuple[Any, ...]]:
    proto = descriptor_pb2.DescriptorProto()
    descriptor.CopyToProto(proto)
    return sorted((f.name, f.number, f.type, f.label, f.type_name) for f in proto.field)


@pytest.mark.parametrize("name", MESSAGES)
def test_each_message_is_the_one_that_clients_send(name: str) -> None:
    theirs: Any = service_pb2
    for part in name.split("."):
        theirs = getattr(theirs, part)
    assert fields(MESSAGES[name].DESCRIPTOR) == fields(theirs.DESCRIPTOR)


def request(datatype: str, **contents: Any) -> Any:
    made = MESSAGES["ModelInferRequest"]()
    tensor = made.inputs.add(name="x", datatype=datatype, shape=[1])
    for name, values in contents.items():
        getattr(tensor.contents, name).extend(values)
    return made


@pytest.mark.parametrize(
    ("datatype", "contents", "packed"),
    [
        ("FP64", {"fp64_contents": [1.5]}, np.float64(1.5).tobytes()),
        ("FP32", {"fp32_contents": [1.5]}, np.float32(1.5).tobytes()),
        ("INT8", {"int_contents": [-2]}, b"\xfe"), ("UINT64", {"uint64_contents": [2**64 - 1]}, b"\xff" * 8),
        ("BOOL", {"bool_contents": [True]}, b"\x01"), ("BYTES", {"bytes_contents": [b"ab"]}, b"\x02\0\0\0ab"),
    ],
)
def test_contents_become_binary_tensors(
    datatype: str, contents: dict[str, Any], packed: bytes
) -> None:
    body, length = to_http(request(datatype, **contents))
    assert body[length:] == packed


@pytest.mark.parametrize(
    ("datatype", "contents"),
    [("INT8", {"int_contents": [300]}), ("FP16", {"fp32_contents": [1.0]}),
     ("FP64", {"fp32_contents": [1.0]}), ("FP64", {"fp64_contents": [1.0], "int_contents": [1]})],
)
def test_contents_of_another_datatype_are_refused(
    datatype: str, contents: dict[str, Any]
) -> None:
    with pytest.raises(Unreadable, match="not those of its datatype"):
        to_http(request(datatype, **contents))


def test_raw_contents_are_one_an_input() -> None:
    made = request("FP64")
    made.raw_input_contents.extend([b"", b""])
    with pytest.raises(Unreadable, match="one entry an input"):
        to_http(made)
