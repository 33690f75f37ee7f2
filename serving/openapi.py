"""What the endpoint says of itself: JSON Schema of a row, OpenAPI, and a page to read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import jinja2

from .examples import examples, infer, quoted
from .identity import new_id
from .spec import ServingSpec

if TYPE_CHECKING:
    from raymill.data.contract import ColumnRule, Contract

_TYPES: dict[str, dict[str, Any]] = {
    "int64": {"type": "integer"},
    "float64": {"type": "number"},
    "bool": {"type": "boolean"},
    "string": {"type": "string"},
    "timestamp": {"type": "string", "format": "date-time"},
    "binary": {"type": "string", "contentEncoding": "base64"},
}
# A 1x1 grey PNG.
_PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
)
_PROBLEMS = {
    400: "The body is not what its Content-Type says.",
    413: "The body is too long.",
    415: "The body is of another Content-Type, or compressed.",
    422: "A row breaks the contract; `errors` names its row, field and rule.",
    429: "Too many requests wait; see Retry-After.",
    504: "No answer within the deadline.",
}


@dataclass(frozen=True)
class Pages:
    """The fixed documents of an endpoint, made once."""

    schema: dict[str, Any]  # of a row
    openapi: dict[str, Any]
    docs: bytes  # HTML without any outside resource


def pages(contract: Contract, name: str, version: int, limits: ServingSpec) -> Pages:
    schema, row = row_schema(contract), example_row(contract)
    example = {"rows": [row]}
    answer = {"predictions": [_example_answer(contract)], "model": name, "version": version,
              "id": new_id()}
    document = _openapi(schema, example, answer, name, version, limits)
    document["paths"] |= _other_protocols(contract, row, name)
    if limits.log is not None:
        document["paths"]["/feedback"] = _feedback(contract)
    page = _template().render(
        name=name, version=version, schema=schema, limits=limits, problems=_PROBLEMS,
        example=json.dumps(example, indent=2), answer=json.dumps(answer, indent=2),
        line=quoted(example), url=limits.url,
        others=examples(contract, row, name, limits.url),
    )
    return Pages(schema, document, page.encode())


def row_schema(contract: Contract) -> dict[str, Any]:
    """JSON Schema of one row: what the model reads, and what else may be sent along."""
    rules = {name: contract.columns[name] for name in contract.features}
    others = [name for name in (*contract.columns, *contract.drop) if name not in rules]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {name: _property(rule) for name, rule in rules.items()}
        | {name: {"description": "taken, and not looked at"} for name in others},
        "required": [name for name, rule in rules.items() if not rule.nullable],
        "additionalProperties": False,
    }


def example_row(contract: Contract) -> dict[str, Any]:
    """A made-up row that keeps the contract; no value of the training data but listed ones."""
    return {name: _example(contract.columns[name]) for name in contract.features}


def _property(rule: ColumnRule) -> dict[str, Any]:
    out = dict(_TYPES[rule.type])
    if rule.kind == "text":
        out["description"] = "free text"
    if rule.type in ("int64", "float64"):
        bounds = {"minimum": rule.min, "maximum": rule.max}
        out.update({key: bound for key, bound in bounds.items() if bound is not None})
    if rule.values is not None and rule.closed:
        out["enum"] = [*rule.values, None] if rule.nullable else list(rule.values)
    elif rule.values is not None and not rule.sensitive:
        out["examples"] = list(rule.values[:5])
    if rule.pattern is not None:
        out["pattern"] = f"^(?:{rule.pattern})$"
    if rule.nullable:
        out["type"] = [out["type"], "null"]
    return out


def _example(rule: ColumnRule) -> Any:
    if rule.values and (rule.closed or not rule.sensitive):
        return rule.values[0]
    if rule.kind == "text":
        return "a few words of text"
    if rule.type in ("int64", "float64"):
        return _between(rule)
    if rule.type == "timestamp":
        return rule.min if isinstance(rule.min, str) else "2026-01-31T12:00:00"
    return {"bool": True, "binary": _PIXEL}.get(rule.type, None if rule.nullable else "text")


def _between(rule: ColumnRule) -> float | int:
    low = rule.min if isinstance(rule.min, int | float) else None
    high = rule.max if isinstance(rule.max, int | float) else None
    if low is not None and high is not None:
        value = (low + high) / 2
    else:
        value = low if low is not None else high if high is not None else 0.0
    return int(value) if rule.type == "int64" else float(f"{value:.4g}")


def _example_answer(contract: Contract) -> dict[str, Any]:
    if contract.classes is None:
        return {"prediction": 1.5}
    share = round(1 / len(contract.classes), 4)
    return {
        "prediction": contract.classes[-1],
        "probability": dict.fromkeys(contract.classes, share),
    }


def _openapi(
    schema: dict[str, Any], example: dict[str, Any], answer: dict[str, Any],
    name: str, version: int, limits: ServingSpec,
) -> dict[str, Any]:
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    refusals = {
        str(status): {"description": text, "content": problem} for status, text in _PROBLEMS.items()
    }
    body = {
        "type": "object",
        "required": ["rows"],
        "additionalProperties": False,
        "properties": {
            "rows": {
                "type": "array", "minItems": 1, "maxItems": limits.max_rows,
                "items": {"$ref": "#/components/schemas/Row"},
            }
        },
    }
    predict = {
        "summary": "Predict rows",
        "operationId": "predict",
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": body, "example": example}, **_STREAM},
        },
        "responses": {
            "200": {
                "description": "One prediction a row, in the rows' order.",
                "content": {"application/json": {"schema": _answer_schema(), "example": answer},
                            **_STREAM},
            },
            **refusals,
        },
    }
    row = {key: value for key, value in schema.items() if key != "$schema"}
    return {
        "openapi": "3.1.0",
        "info": {"title": name, "version": str(version)},
        "paths": {
            "/predict": {"post": predict},
            "/healthz": _page("The process is alive"),
            "/readyz": _page("The model is loaded, warm and answers"),
            "/metrics": _page("Prometheus metrics", "text/plain"),
            "/schema": _page("JSON Schema of a row"),
        },
        "components": {"schemas": {"Row": row, "Problem": _PROBLEM_SCHEMA}},
    }


_STREAM: dict[str, Any] = {"application/vnd.apache.arrow.stream": {
    "schema": {"type": "string", "format": "binary", "description": "an Arrow IPC stream"}}}


def _feedback(contract: Contract) -> dict[str, Any]:
    """The path that takes true labels."""
    classes = contract.classes
    label = {"type": "number"} if classes is None else {"type": ["string", "number", "boolean"]}
    entry = {
        "type": "object", "required": ["id", "label"], "additionalProperties": False,
        "properties": {"id": {"type": "string", "description": "of an answer, or ID.k for its row k"},
                       "label": label}}
    body = {
        "type": "object", "required": ["labels"], "additionalProperties": False,
        "properties": {"labels": {"type": "array", "minItems": 1, "items": entry}}}
    example = {"labels": [{"id": new_id(), "label": 1.5 if classes is None else classes[-1]}]}
    return _post("Send true labels of answered rows", body, example)


def _post(summary: str, schema: dict[str, Any], example: dict[str, Any]) -> dict[str, Any]:
    content = {"application/json": {"schema": schema, "example": example}}
    problem = {"description": "A problem document", "content": {"application/problem+json": {
        "schema": {"$ref": "#/components/schemas/Problem"}}}}
    return {"post": {
        "summary": summary, "requestBody": {"required": True, "content": content},
        "responses": {"200": {"description": summary, "content": {
            "application/json": {"schema": {"type": "object"}}}},
            **{str(status): problem for status in _PROBLEMS}}}}


def _other_protocols(
    contract: Contract, row: dict[str, Any], name: str
) -> dict[str, Any]:
    """The paths of MLflow's scoring and the Open Inference Protocol."""
    anything = {"type": "object"}
    model = f"/v2/models/{name}"
    return {
        "/invocations": _post("MLflow scoring", anything, {"dataframe_records": [row]}),
        f"{model}/infer": _post("Open Inference Protocol v2", anything, infer(contract, row)),
        "/ping": _page("MLflow's health check", "application/json"),
        "/v2": _page("Open Inference Protocol: the server"),
        "/v2/health/live": _page("Open Inference Protocol: the process is alive"),
        "/v2/health/ready": _page("Open Inference Protocol: the model answers"),
        model: _page("Open Inference Protocol: the model's tensors"),
        f"{model}/ready": _page("Open Inference Protocol: the model answers"),
    }


_PROBLEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "RFC 9457 problem details",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "row": {"type": "integer", "description": "index of the row, from 0"},
                    "field": {"type": "string"},
                    "rule": {"type": "string"},
                },
            },
        },
    },
}


def _answer_schema() -> dict[str, Any]:
    prediction = {
        "type": "object",
        "properties": {
            "prediction": {"type": ["string", "number"]},
            "probability": {"type": "object", "additionalProperties": {"type": "number"}},
        },
    }
    return {
        "type": "object",
        "properties": {
            "predictions": {"type": "array", "items": prediction},
            "model": {"type": "string"},
            "version": {"type": "integer"},
            "id": {"type": "string", "description": "for /feedback; row k is ID.k"},
        },
    }


def _page(summary: str, content_type: str = "application/json") -> dict[str, Any]:
    return {
        "get": {
            "summary": summary,
            "responses": {"200": {"description": summary, "content": {content_type: {}}}},
        }
    }


def _template() -> jinja2.Template:
    text = files("raymill.serving").joinpath("docs.html.j2").read_text(encoding="utf-8")
    return jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(text)
