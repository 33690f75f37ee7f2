"""Every protocol against the endpoint in this process; what one says, all say."""

from __future__ import annotations

import json
import struct
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from mlflow.utils.proto_json_utils import dump_input_data

from raymill.data.contract import Contract
from raymill.serving.endpoint import build
from raymill.serving.protocols.arrow import ARROW
from raymill.serving.spec import ServingSpec

from .test_app import GOOD, JSON, SECRET, Client, problem

STREAM = {"content-type": ARROW.decode()}
CSV = {"content-type": "text/csv"}
ROWS = [GOOD, {"x": 2.0, "code": "CD", "n": 5, "colour": "red"}]
SHARES = [0.7, 0.2]


@pytest.fixture
def ask(contract: Contract, predictor: Any) -> Client:
    return Client(build("fraud", 3, ServingSpec(max_rows=8, max_body_mb=0.1), contract, predictor))


def stream(table: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, **options) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def columns(**more: Any) -> pa.Table:
    return pa.table({"x": [7.0, 2.0], "code": ["AB", "CD"], **more})


def arrow(ask: Client, table: pa.Table, **options: Any) -> httpx.Response:
    return ask("POST", "/predict", content=stream(table, **options), headers=STREAM)


def invoke(ask: Client, document: Any) -> httpx.Response:
    body = document if isinstance(document, str) else json.dumps(document)
    return ask("POST", "/invocations", content=body, headers=JSON)


# Arrow


def test_columns_go_in_and_columns_come_out(ask: Client) -> None:
    response = arrow(ask, columns(n=pa.array([None, 5], pa.int32()),
                                  colour=pa.array(["blue", None]).dictionary_encode()))
    assert response.status_code == 200 and response.headers["content-type"] == ARROW.decode()
    assert response.headers["x-raymill-model"] == "fraud"
    answers = pa.ipc.open_stream(response.content).read_all()
    assert answers["prediction"].to_pylist() == ["fraud", "fine"]
    assert answers["probability_fraud"].to_pylist() == pytest.approx(SHARES)


def test_a_bad_value_of_a_stream_is_named_by_row_and_field(ask: Client) -> None:
    table = columns(colour=["red", SECRET])
    (error,) = problem(arrow(ask, table), 422)["errors"]
    assert (error["row"], error["field"]) == (1, "colour") and "one of" in error["rule"]


@pytest.mark.parametrize(
    ("table", "field", "rule"),
    [
        (columns(colr=["a", "b"]), "colr", "unknown field"),
        (columns(n=["1", "2"]), "n", "must be integers"),
        (columns(n=[[1], [2]]), "n", "can't be read"),
        (columns(when=pa.array([1, 2])), "when", "timestamps"),
        (pa.table({"code": ["AB"]}), "x", "must not be empty"),
        (columns(n=pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0" * 16] * 2, pa.binary(16)))),
         "n", "can't be read"),
    ],
)
def test_a_schema_is_judged_before_its_rows(
    ask: Client, table: pa.Table, field: str, rule: str
) -> None:
    (error,) = problem(arrow(ask, table), 422)["errors"]
    assert error["field"] == field and rule in error["rule"] and "row" not in error


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_a_compressed_stream_is_refused_unread(ask: Client, codec: str) -> None:
    table = pa.table({"x": np.full(5, 1.0), "code": ["AB"] * 5})
    options = pa.ipc.IpcWriteOptions(compression=codec)
    assert "compressed" in problem(arrow(ask, table, options=options), 400)["detail"]
    coded = table.set_column(1, "code", table["code"].dictionary_encode())
    assert "compressed" in problem(arrow(ask, coded, options=options), 400)["detail"]


def test_a_stream_of_too_many_rows_is_refused(ask: Client) -> None:
    table = pa.table({"x": np.ones(9), "code": ["AB"] * 9})
    assert "1 to 8 rows" in problem(arrow(ask, table), 422)["detail"]
    assert "1 to 8 rows" in problem(arrow(ask, table.slice(0, 0)), 422)["detail"]


def test_a_broken_stream_is_400_and_breaks_nothing(ask: Client) -> None:
    whole = stream(columns(colour=["red", "blue"]))
    rng = np.random.default_rng(0)
    for cut in range(0, len(whole), 31):
        assert ask("POST", "/predict", content=whole[:cut], headers=STREAM).status_code in (400, 422)
    for _ in range(150):
        changed = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            changed[place] = rng.integers(0, 256)
        response = ask("POST", "/predict", content=bytes(changed), headers=STREAM)
        assert response.status_code in (200, 400, 422), response.text
    assert arrow(ask, columns()).status_code == 200


# MLflow


@pytest.mark.parametrize(
    "document",
    [
        {"dataframe_split": {"columns": ["x", "code"], "data": [[7.0, "AB"], [2, "CD"]]}},
        {"dataframe_split": {"columns": ["x", "code"], "data": [[7, "AB"], [2, "CD"]], "index": [4, 9]},
         "params": {}},
        {"dataframe_records": ROWS}, {"instances": ROWS}, {"inputs": ROWS},
        {"inputs": {"x": [7, 2.0], "code": ["AB", "CD"]}},
    ],
)
def test_each_of_mlflows_forms_is_read(ask: Client, document: Any) -> None:
    response = invoke(ask, document)
    assert response.status_code == 200, response.text
    answers = response.json()["predictions"]
    assert [row["prediction"] for row in answers] == ["fraud", "fine"]
    assert [row["probability_fraud"] for row in answers] == pytest.approx(SHARES)


def test_what_mlflows_own_client_writes_is_read(ask: Client) -> None:
    frame = pd.DataFrame({"x": [7.0, 2.0], "n": [np.nan, 5], "code": ["AB", "CD"],
                          "when": pd.to_datetime(["2021-01-01", None])})
    frame["when"] = frame["when"].astype(object).where(frame["when"].notna(), None)
    body = dump_input_data(frame)
    assert "NaN" in body
    response = invoke(ask, body)
    assert response.status_code == 200, response.text
    assert problem(invoke(ask, body.replace("NaN", "Infinity")), 400)


def test_csv_is_read(ask: Client) -> None:
    text = 'x,code,colour,n\n7,AB,"red",\n2.0,CD,,5\n'
    response = ask("POST", "/invocations", content=text, headers=CSV)
    assert [row["prediction"] for row in response.json()["predictions"]] == ["fraud", "fine"]


@pytest.mark.parametrize(
    ("text", "status", "field"),
    [("x,code\n7\n", 400, None), (b"x,c\xfade\n7,AB\n", 400, None), (b"x,code\n7,A\xfa\n", 400, None), ("", 400, None), ("x,code\n7,AB\n8\n", 400, None),
     ("x,code,colr\n7,AB,1\n", 422, "colr"), ("x\n7\n", 422, "code"),
     (f"x,code\n{SECRET},AB\n", 422, "x"), ("x,code\n", 422, None), ("x,x,code\n1,1,AB\n", 422, None)],
)
def test_bad_csv_is_refused_and_its_field_named(
    ask: Client, text: str | bytes, status: int, field: str | None
) -> None:
    document = problem(ask("POST", "/invocations", content=text, headers=CSV), status)
    assert [e["field"] for e in document.get("errors", [])] == ([field] if field else [])


@pytest.mark.parametrize(
    "document",
    [
        {}, {"inputs": ROWS, "instances": ROWS}, {"inputs": [[1, 2]]}, {"inputs": 3}, [], "[NaN",
        {"inputs": ROWS, "params": {"a": 1}}, {"inputs": ROWS, "model": "x"}, {"inputs": {"x": [1], "y": []}},
        {"dataframe_split": {"columns": ["x"], "data": [[1, 2]]}}, {"dataframe_split": {"data": []}},
        {"dataframe_records": {"x": [1]}}, {"inputs": []}, {"inputs": [{"x": SECRET, "code": "AB"}]},
    ],
)
def test_what_is_not_mlflows_is_refused(ask: Client, document: Any) -> None:
    response = invoke(ask, document)
    assert problem(response, response.status_code) and response.status_code in (400, 422)


def test_ping_is_answered(ask: Client) -> None:
    assert ask("GET", "/ping").status_code == 200


# Open Inference Protocol


def tensors(**more: Any) -> dict[str, Any]:
    return {"inputs": [
        {"name": "x", "datatype": "FP64", "shape": [2], "data": [7.0, 2.0]},
        {"name": "code", "datatype": "BYTES", "shape": [2, 1], "data": [["AB"], ["CD"]]},
    ], **more}


def infer(ask: Client, document: Any, path: str = "/v2/models/fraud/infer") -> httpx.Response:
    return ask("POST", path, content=json.dumps(document), headers=JSON)


def test_tensors_are_scored_and_the_id_comes_back(ask: Client) -> None:
    answer = infer(ask, tensors(id="a-1")).json()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("fraud", "3", "a-1")
    outputs = {each["name"]: each for each in answer["outputs"]}
    assert outputs["prediction"]["datatype"] == "BYTES"
    assert outputs["prediction"]["data"] == ["fraud", "fine"]
    assert outputs["probability_fraud"]["data"] == pytest.approx(SHARES)
    assert outputs["probability_fraud"]["shape"] == [2]


def test_only_the_outputs_asked_for_are_given(ask: Client) -> None:
    answer = infer(ask, tensors(outputs=[{"name": "probability_fine"}])).json()
    assert [each["name"] for each in answer["outputs"]] == ["probability_fine"]
    problem(infer(ask, tensors(outputs=[{"name": "nothing"}])), 422)


def test_binary_tensors_go_in_and_out(ask: Client) -> None:
    x = np.array([7, 2], "<f4").tobytes()
    code = struct.pack("<I2sI2s", 2, b"AB", 2, b"CD")
    head = json.dumps({"inputs": [
        {"name": "x", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": len(x)}},
        {"name": "code", "datatype": "BYTES", "shape": [2],
         "parameters": {"binary_data_size": len(code)}},
    ], "parameters": {"binary_data_output": True}}).encode()
    headers = {"content-type": "application/octet-stream",
               "inference-header-content-length": str(len(head))}
    response = ask("POST", "/v2/models/fraud/infer", content=head + x + code, headers=headers)
    assert response.status_code == 200, response.text
    length = int(response.headers["inference-header-content-length"])
    names = [each["name"] for each in json.loads(response.content[:length])["outputs"]]
    assert names == ["prediction", "probability_fine", "probability_fraud"]
    words = struct.pack("<I5sI4s", 5, b"fraud", 4, b"fine")
    assert response.content[length:].startswith(words)
    shares = np.frombuffer(response.content[length + len(words) :])
    assert shares.tolist() == pytest.approx([0.3, 0.8, *SHARES])
    for wrong in (head, head + x, head + x + code + b"z", head + x + code[:-1] + b""):
        response = ask("POST", "/v2/models/fraud/infer", content=wrong, headers=headers)
        problem(response, 422)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"datatype": "BYTES", "data": ["1", "2"]}, "x"), ({"datatype": "BF16"}, "x"),
        ({"shape": [3]}, "x"), ({"shape": [2, 2]}, "x"), ({"shape": []}, "x"), ({"shape": [-1]}, "x"),
        ({"data": [True, 2]}, "x"), ({"data": ["7", "2"]}, "x"), ({"data": [7, 11]}, "x"),
        ({"data": [7, None]}, "x"), ({"name": "colr"}, "colr"), ({"name": "code"}, "code"),
        ({"data": [7], "shape": [1]}, "code"), ({"data": None}, "x"), ({"data": [[7], [2]]}, "x"),
        ({"parameters": {"binary_data_size": 9}}, "x"), ({"datatype": "INT8", "data": [10**30, 2]}, "x"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(
    ask: Client, change: dict[str, Any], field: str
) -> None:
    document = tensors()
    document["inputs"][0] |= change
    refused = problem(infer(ask, document), 422)
    assert refused["errors"][0]["field"] == field and refused["error"] == refused["detail"]


@pytest.mark.parametrize(
    "document",
    [{}, {"inputs": []}, {"inputs": 3}, tensors(parameters={"priority": 1}), tensors(more=1), [],
     tensors(outputs=[{"name": "prediction", "parameters": {"classification": 1}}])],
)
def test_what_is_not_of_v2_is_refused(ask: Client, document: Any) -> None:
    problem(infer(ask, document), 422)


def test_the_model_describes_itself(ask: Client) -> None:
    assert ask("GET", "/v2").json()["extensions"] == ["binary_tensor_data"]
    assert ask("GET", "/v2/health/live").json() == {"live": True}
    assert ask("GET", "/v2/health/ready").json()["ready"] is True
    assert ask("GET", "/v2/models/fraud/versions/3/ready").json()["ready"] is True
    metadata = ask("GET", "/v2/models/fraud").json()
    assert metadata["versions"] == ["3"]
    kinds = {each["name"]: each["datatype"] for each in metadata["inputs"]}
    assert kinds == {"x": "FP64", "n": "INT64", "colour": "BYTES", "code": "BYTES",
                     "when": "BYTES", "photo": "BYTES"}


@pytest.mark.parametrize("path", ["/v2/models/other", "/v2/models/fraud/versions/2", "/v2/models/"])
def test_another_model_is_not_here(ask: Client, path: str) -> None:
    problem(ask("GET", path), 404)
    problem(infer(ask, tensors(), f"{path}/infer"), 404)


# All of them


def test_every_protocol_says_the_same(ask: Client) -> None:
    native = [row["probability"]["fraud"] for row in ask.predict(ROWS).json()["predictions"]]
    table = columns(n=pa.array([None, 5]), colour=pa.array([None, "red"]))
    others = [
        pa.ipc.open_stream(arrow(ask, table).content).read_all()["probability_fraud"].to_pylist(),
        [r["probability_fraud"] for r in invoke(ask, {"inputs": ROWS}).json()["predictions"]],
        infer(ask, tensors()).json()["outputs"][2]["data"],
    ]
    assert all(each == native for each in others)
