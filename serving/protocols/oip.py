"""The Open Inference Protocol v2 over HTTP, with the binary tensor extension.

https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol and Triton's
`protocol/extension_binary_data.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from raymill.serving.answers import JSON, Answer, Request, Route, encode, fixed
from raymill.serving.desk import Asked, Desk, Read
from raymill.serving.pages import check_ready
from raymill.serving.problems import NAME_LENGTH, HttpProblem
from raymill.serving.scorer import Scored

from .native import not_json
from .tensors import Tensor, inputs_of, outputs_of, refusal, table_of, to_bytes, values_of

if TYPE_CHECKING:
    from raymill.data.contract import Contract
    from raymill.serving.model import Model

OCTETS = b"application/octet-stream"
_HEADER = b"inference-header-content-length"
PLATFORM = "raymill_pytorch"


class _Input(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] = {}
    data: list[Any] | None = None


class _Output(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    parameters: dict[str, Any] = {}


class _Infer(msgspec.Struct, forbid_unknown_fields=True):
    inputs: list[_Input]
    id: str = ""
    parameters: dict[str, Any] = {}
    outputs: list[_Output] | None = None


_INFER = msgspec.json.Decoder(_Infer)


class Routes:
    """The routes under `/v2`. A path that names a version is answered by that version."""

    def __init__(self, name: str, desk: Desk) -> None:
        self._name, self._desk = name, desk

    def all(self) -> list[Route]:
        read: Callable[[Model], Read] = lambda model: model.tensors.read
        infer = self._desk.handler({JSON: read, OCTETS: read, b"": read})
        live, ready = fixed(Answer(b'{"live":true}')), self._page(self._ready)
        routes = [
            ("GET", "/v2", fixed(Answer(encode(server_metadata())))),
            ("GET", "/v2/health/live", live),
            ("GET", "/v2/health/ready", ready),
        ]
        for model in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            routes += [
                ("GET", model, self._page(self._metadata)),
                ("GET", f"{model}/ready", ready),
                ("POST", f"{model}/infer", self._checked(infer)),
            ]
        return [Route(method, path, handler, open=path.startswith("/v2/health/"),
                      dialect=as_error) for method, path, handler in routes]

    def _page(self, page: Callable[[Model | None], Any]) -> Any:
        async def handler(request: Request) -> Answer:
            return Answer(encode(page(self._named(request))))

        return handler

    def _checked(self, infer: Any) -> Any:
        async def handler(request: Request) -> Answer:
            named = self._named(request)
            request.version = named.version if named is not None else 0
            answer: Answer = await infer(request)
            return answer

        return handler

    def _named(self, request: Request) -> Model | None:
        """The model of the version in the path; None where it names none."""
        models = self._desk.variants.now.models
        known = {str(version): model for version, model in models.items()}
        model, version = request.values.get("model"), request.values.get("version")
        if model not in (None, self._name) or (version is not None and version not in known):
            raise HttpProblem(404, f"The model here is {self._name}, version "
                                   f"{' or '.join(known)}.")
        return known[version] if version is not None else None

    def _ready(self, named: Model | None) -> dict[str, Any]:
        check_ready(lambda: self._desk.stuck)
        return {"ready": True, "name": self._name}

    def _metadata(self, named: Model | None) -> dict[str, Any]:
        now = self._desk.variants.now
        versions = sorted(now.models) if named is None else [named.version]
        return (named or now.champion).tensors.metadata(versions)


class OpenInference:
    """Reads and writes the tensors of one contract."""

    def __init__(self, contract: Contract, name: str) -> None:
        self._contract, self._name = contract, name
        self._outputs = {each["name"]: each["datatype"] for each in outputs_of(contract)}

    def metadata(self, versions: Sequence[int]) -> dict[str, Any]:
        return {"name": self._name, "versions": [str(each) for each in versions],
                "platform": PLATFORM, "inputs": inputs_of(self._contract),
                "outputs": outputs_of(self._contract)}

    def read(self, body: bytes, request: Request) -> Asked:
        """The tensors of an infer request.

        Raises:
            HttpProblem: 400 or 422, naming the tensor.
        """
        head, binary = _split(body, request.header(_HEADER))
        try:
            infer = _INFER.decode(head)
        except msgspec.ValidationError as error:
            raise HttpProblem(422, f"The request isn't one of v2: {str(error)[:200]}.") from None
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise not_json(error) from None
        wants_binary = infer.parameters.pop("binary_data_output", False)
        _refuse_parameters(infer.parameters, "the request")
        tensors, at = [], 0
        for each in infer.inputs:
            size = each.parameters.pop("binary_data_size", None)
            _refuse_parameters(each.parameters, f"the input {each.name[:NAME_LENGTH]}")
            data = _data(each, size, binary, at)
            at += size or 0
            tensors.append(Tensor(each.name, each.datatype, each.shape, data))
        if at != len(binary):
            raise HttpProblem(422, "The inputs' binary_data_size don't add up to the body.")
        table = table_of(tensors, self._contract)
        chosen = self._chosen(infer, bool(wants_binary))
        return Asked(
            table, len(table),
            lambda scored: self._write(scored, infer.id or request.id, chosen),
            lambda name: values_of(tensors, name))

    def _chosen(self, infer: _Infer, binary: bool) -> dict[str, bool]:
        """The outputs to give, and whether each in the binary form."""
        if not infer.outputs:
            return dict.fromkeys(self._outputs, binary)
        chosen = {}
        for output in infer.outputs:
            if output.name not in self._outputs:
                raise HttpProblem(422, f"There is no output {output.name[:NAME_LENGTH]}; there are "
                                       f"{', '.join(self._outputs)}.")
            chosen[output.name] = bool(output.parameters.pop("binary_data", binary))
            _refuse_parameters(output.parameters, f"the output {output.name}")
        return chosen

    def _write(self, scored: Scored, id_: str, chosen: dict[str, bool]) -> Answer:
        columns = scored.columns()
        outputs, parts = [], []
        for name, binary in chosen.items():
            output: dict[str, Any] = {"name": name, "datatype": self._outputs[name],
                                      "shape": [scored.count]}
            if binary:
                part = to_bytes(columns[name], self._outputs[name])
                parts.append(part)
                output["parameters"] = {"binary_data_size": len(part)}
            else:
                output["data"] = columns[name]
            outputs.append(output)
        document: dict[str, Any] = {"model_name": self._name,
                                    "model_version": str(scored.version)}
        head = encode(document | {"id": id_, "outputs": outputs})
        if not parts:
            return Answer(head)
        length = (_HEADER, str(len(head)).encode())
        return Answer(b"".join([head, *parts]), OCTETS, headers=[length])


def server_metadata() -> dict[str, Any]:
    from raymill import __version__

    return {"name": "raymill", "version": __version__, "extensions": ["binary_tensor_data"]}


def as_error(document: dict[str, Any]) -> dict[str, Any]:
    """v2 clients look for `error`."""
    return document | {"error": document["detail"]}


def _split(body: bytes, length: bytes) -> tuple[bytes, bytes]:
    if not length:
        return body, b""
    if not length.isdigit() or int(length[:12]) > len(body):
        raise HttpProblem(400, "Inference-Header-Content-Length is longer than the body.")
    return body[: int(length)], body[int(length) :]


def _data(each: _Input, size: Any, binary: bytes, at: int) -> list[Any] | bytes:
    if size is None:
        if each.data is None:
            raise refusal(each.name, "it has neither data nor binary_data_size")
        return each.data
    if each.data is not None or type(size) is not int or not 0 <= size <= len(binary) - at:
        raise refusal(each.name, "binary_data_size must be the bytes of its part of the body")
    return binary[at : at + size]


def _refuse_parameters(parameters: dict[str, Any], where: str) -> None:
    if parameters:
        name = next(iter(parameters))[:NAME_LENGTH]
        raise HttpProblem(422, f"The parameter {name} of {where} is not supported.")
