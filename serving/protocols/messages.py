"""The messages of the Open Inference Protocol's gRPC service, in a descriptor pool of their own.

Field for field those of KServe's `grpc_predict_v2.proto`. Written out here rather than generated:
a generated module would claim the package `inference` for the whole process, and clients bring
their own.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICE = "inference.GRPCInferenceService"
METHODS = ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer")
_SCALARS = {"double": 1, "float": 2, "int64": 3, "uint64": 4, "int32": 5, "bool": 8, "string": 9,
            "bytes": 12, "uint32": 13}
_MESSAGE = 11
# Message -> its fields in the order of their numbers from 1; `*`: repeated, `map`: to InferParameter.
_MESSAGES: dict[str, list[str]] = {
    "ServerLiveRequest": [],
    "ServerLiveResponse": ["bool live"],
    "ServerReadyRequest": [],
    "ServerReadyResponse": ["bool ready"],
    "ModelReadyRequest": ["string name", "string version"],
    "ModelReadyResponse": ["bool ready"],
    "ServerMetadataRequest": [],
    "ServerMetadataResponse": ["string name", "string version", "string* extensions"],
    "ModelMetadataRequest": ["string name", "string version"],
    "ModelMetadataResponse": [
        "string name", "string* versions", "string platform",
        "ModelMetadataResponse.TensorMetadata* inputs",
        "ModelMetadataResponse.TensorMetadata* outputs"],
    "ModelMetadataResponse.TensorMetadata": ["string name", "string datatype", "int64* shape"],
    "InferParameter": ["bool bool_param", "int64 int64_param", "string string_param",
                       "double double_param", "uint64 uint64_param"],
    "InferTensorContents": [
        "bool* bool_contents", "int32* int_contents", "int64* int64_contents",
        "uint32* uint_contents", "uint64* uint64_contents", "float* fp32_contents",
        "double* fp64_contents", "bytes* bytes_contents"],
    "ModelInferRequest": [
        "string model_name", "string model_version", "string id", "map parameters",
        "ModelInferRequest.InferInputTensor* inputs",
        "ModelInferRequest.InferRequestedOutputTensor* outputs", "bytes* raw_input_contents"],
    "ModelInferRequest.InferInputTensor": [
        "string name", "string datatype", "int64* shape", "map parameters",
        "InferTensorContents contents"],
    "ModelInferRequest.InferRequestedOutputTensor": ["string name", "map parameters"],
    "ModelInferResponse": [
        "string model_name", "string model_version", "string id", "map parameters",
        "ModelInferResponse.InferOutputTensor* outputs", "bytes* raw_output_contents"],
    "ModelInferResponse.InferOutputTensor": [
        "string name", "string datatype", "int64* shape", "map parameters",
        "InferTensorContents contents"],
}
_ONE_OF = {"InferParameter": "parameter_choice"}


def _built() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="raymill/oip.proto", package="inference", syntax="proto3"
    )
    known = dict[str, Any]()
    for name, fields in _MESSAGES.items():
        outer, _, inner = name.rpartition(".")
        message = (known[outer].nested_type if outer else file.message_type).add(name=inner or name)
        known[name] = message
        if name in _ONE_OF:
            message.oneof_decl.add(name=_ONE_OF[name])
        for number, text in enumerate(fields, 1):
            _add_field(message, name, number, text)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"inference.{name}"))
            for name in _MESSAGES}


def _add_field(message: Any, owner: str, number: int, text: str) -> None:
    kind, name = text.split()
    if kind == "map":
        entry = message.nested_type.add(name="ParametersEntry")
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, type=_SCALARS["string"], label=1)
        entry.field.add(name="value", number=2, type=_MESSAGE, label=1,
                        type_name=".inference.InferParameter")
        kind = f"{owner}.ParametersEntry*"
    label = 3 if kind.endswith("*") else 1
    kind = kind.rstrip("*")
    field = message.field.add(name=name, number=number, label=label,
                              type=_SCALARS.get(kind, _MESSAGE))
    if kind not in _SCALARS:
        field.type_name = f".inference.{kind}"
    if owner in _ONE_OF:
        field.oneof_index = 0


MESSAGES: dict[str, Any] = _built()
"""Message classes by their names."""
