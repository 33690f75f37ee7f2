from __future__ import annotations

import base64
import re

from raymill.data.contract import ColumnRule, Contract
from raymill.data.images import problem_of
from raymill.serving.openapi import example_row, pages, row_schema
from raymill.serving.spec import ServingSpec


def test_the_schema_says_what_the_contract_says(contract: Contract) -> None:
    properties = row_schema(contract)["properties"]
    assert properties["x"] == {"type": "number", "minimum": 0, "maximum": 10}
    assert properties["n"] == {"type": ["integer", "null"], "maximum": 1_000_000}
    assert properties["colour"]["enum"] == ["red", "blue", None]
    assert properties["code"]["pattern"] == "^(?:[A-Z]{2})$"
    assert properties["photo"]["contentEncoding"] == "base64"
    assert row_schema(contract)["required"] == ["x", "code"]


def test_what_is_not_read_may_be_sent_and_nothing_else(contract: Contract) -> None:
    schema = row_schema(contract)
    assert {"id", "target"} <= schema["properties"].keys()
    assert schema["additionalProperties"] is False


def test_the_example_keeps_the_contract(contract: Contract) -> None:
    row = example_row(contract) | {"code": "AB"}  # a pattern can't be made up for
    assert contract.from_rows([row]).num_rows == 1


def test_the_example_image_can_be_decoded(contract: Contract) -> None:
    assert problem_of(base64.b64decode(example_row(contract)["photo"])) is None


def test_an_open_domain_of_a_sensitive_column_is_not_shown() -> None:
    secret = ColumnRule(type="string", kind="categorical", values=["s3cret"], sensitive=True)
    columns = {"a": secret, "y": ColumnRule(type="float64", kind="numeric")}
    contract = Contract(target="y", task="regression", columns=columns)
    made = pages(contract, "m", 1, ServingSpec())
    assert "s3cret" not in str(made)


def test_openapi_names_every_path_and_refusal(contract: Contract) -> None:
    document = pages(contract, "fraud", 3, ServingSpec()).openapi
    assert document["openapi"] == "3.1.0" and document["info"]["version"] == "3"
    responses = document["paths"]["/predict"]["post"]["responses"]
    assert set(responses) == {"200", "400", "413", "415", "422", "429", "504"}


def test_the_page_is_whole_without_a_network_and_shows_a_request(contract: Contract) -> None:
    page = pages(contract, "fraud", 3, ServingSpec()).docs.decode()
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page) and "<script" not in page
    assert "curl http://127.0.0.1:8000/predict" in page
    assert all(f"<code>{name}</code>" in page for name in contract.features)


def test_names_are_escaped_in_the_page() -> None:
    columns = {"<b>x</b>": ColumnRule(type="float64", kind="numeric"),
               "y": ColumnRule(type="float64", kind="numeric")}
    contract = Contract(target="y", task="regression", columns=columns)
    assert "<b>x</b>" not in pages(contract, "m", 1, ServingSpec()).docs.decode()


def test_the_page_shows_a_request_in_every_protocol(contract: Contract) -> None:
    page = pages(contract, "fraud", 3, ServingSpec()).docs.decode()
    for part in ("/v2/models/fraud/infer", "/invocations", "arrow.stream", "raymill.Client"):
        assert part in page
