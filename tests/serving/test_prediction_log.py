"""The log of predictions, written behind an endpoint in this process."""

from __future__ import annotations

import asyncio
import logging
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from raymill.data.contract import Contract
from raymill.monitoring import labels, predictions
from raymill.monitoring.store import log_folder, parts
from raymill.serving import log_shipping, prediction_log
from raymill.serving.app import Endpoint
from raymill.serving.endpoint import build
from raymill.serving.identity import born, new_id, trace_of
from raymill.serving.spec import ServingSpec
from raymill.stores import Bucket, store_at

ROW = {"x": 7.0, "code": "AB", "colour": "red", "when": "2024-05-01T00:00:00"}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


class Logged:
    """An endpoint with its log in `home`; `read()` ends it and gives the log's rows."""

    def __init__(self, endpoint: Endpoint, home: Path) -> None:
        self.endpoint, self.folder = endpoint, log_folder(home, "fraud")

    def post(self, path: str, document: Any, **headers: str) -> httpx.Response:
        async def main() -> httpx.Response:
            transport = httpx.ASGITransport(self.endpoint)
            async with httpx.AsyncClient(transport=transport, base_url="http://e") as client:
                return await client.post(path, json=document, headers=headers)

        return asyncio.run(main())

    def predict(self, *rows: dict[str, Any], **headers: str) -> httpx.Response:
        return self.post("/predict", {"rows": list(rows)}, **headers)

    def read(self) -> list[dict[str, Any]]:
        self.endpoint.close()
        rows: list[dict[str, Any]] = predictions.read(self.folder).to_pylist()
        return rows


Start = Callable[..., Logged]


@pytest.fixture
def start(contract: Contract, predictor: Any, tmp_path: Path) -> Iterator[Start]:
    made: list[Logged] = []

    def start(**log: Any) -> Logged:
        spec = ServingSpec.model_validate({"max_rows": 50, "log": {"inputs": 1, **log}})
        made.append(Logged(build("fraud", 3, spec, contract, predictor, home=tmp_path), tmp_path))
        return made[-1]

    yield start
    for each in made:
        each.endpoint.close()


def test_every_answer_has_an_id_that_its_rows_in_the_log_have_too(start: Start) -> None:
    logged = start()
    answer = logged.predict(ROW, {"x": 2, "code": "CD"}, traceparent=PARENT)
    id_ = answer.json()["id"]
    assert answer.headers["x-raymill-id"] == id_ and answer.headers["traceparent"] == PARENT
    assert abs((born(id_) or 0) - time.time()) < 60
    first, second = logged.read()
    assert (first["id"], first["row"], second["id"], second["row"]) == (id_, 0, id_, 1)
    assert (first["version"], first["variant"], first["trace"]) == (3, "champion", TRACE)
    assert (first["prediction"], second["prediction"]) == ("fraud", "fine")
    assert first["probability_fraud"] == pytest.approx(0.7) and first["latency_ms"] > 0
    assert first["input.x"] == 7 and first["input.colour"] == "red"


def test_no_id_is_given_twice_nor_in_two_processes() -> None:
    code = ("import os\nfrom raymill.serving.identity import new_id\nnew_id()\nos.fork()\n"
            "os.write(1, ''.join(new_id() + '\\n' for _ in range(300)).encode())")
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ids = told.stdout.split()
    assert len(ids) == len({id_[18:] for id_ in ids}) == 600  # what is by chance of them
    assert all(born(id_) for id_ in ids)


def test_a_refused_request_has_an_id_and_no_row(start: Start) -> None:
    logged = start()
    refused = logged.predict({"x": 70})
    assert refused.status_code == 422 and born(refused.headers["x-raymill-id"])
    assert logged.read() == []


def test_a_malformed_traceparent_is_neither_logged_nor_passed_on(start: Start) -> None:
    logged = start()
    assert "traceparent" not in logged.predict(ROW, traceparent="00-1-2-3").headers
    assert logged.read()[0]["trace"] is None
    for wrong in ("", f"ff-{TRACE}-00f067aa0ba902b7-01", f"{PARENT}-more",
                  f"00-{'0' * 32}-00f067aa0ba902b7-01", PARENT.upper()):
        assert trace_of(wrong.encode()) == ""
    assert trace_of(f"01-{TRACE}-00f067aa0ba902b7-01-more".encode()) == TRACE


def test_sensitive_columns_are_hashed_with_the_homes_own_salt(
    start: Start, contract: Contract, tmp_path: Path
) -> None:
    assert contract.columns["code"].sensitive
    logged = start()
    logged.predict(ROW, ROW, {"x": 1, "code": "CD"})
    codes = [row["input.code"] for row in logged.read()]
    assert codes[0] == codes[1] != codes[2] and len(codes[0]) == 16
    salt = tmp_path / "predictions" / ".salt"
    assert salt.stat().st_mode & 0o077 == 0 and len(salt.read_bytes()) == 32
    shutil.rmtree(logged.folder)
    salt.unlink()
    other = start()
    other.predict(ROW)
    assert other.read()[0]["input.code"] != codes[0]


def test_sensitive_columns_can_be_left_out(start: Start) -> None:
    logged = start(sensitive="drop")
    logged.predict(ROW)
    (row,) = logged.read()
    assert "input.code" not in row and row["input.x"] == 7


def test_inputs_are_kept_of_the_share_that_the_policy_says(start: Start) -> None:
    logged = start(inputs=0)
    logged.predict(ROW)
    (row,) = logged.read()
    assert row["sampled"] is False and row["input.x"] is None and row["prediction"] == "fraud"
    some = start(inputs=0.5)
    for _ in range(60):
        some.predict(ROW)
    kept = [row["input.x"] for row in some.read() if row["sampled"]]
    assert 10 <= len(kept) <= 50 and set(kept) == {7.0}


def test_what_the_buffer_can_not_hold_is_counted_where_it_is_missing(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction_log, "MOST_ROWS", 3)
    monkeypatch.setattr(prediction_log, "_EVERY_S", 60.0)
    logged = start()
    for _ in range(3):
        logged.predict(ROW, ROW)
    asked = httpx.ASGITransport(logged.endpoint)

    async def scrape() -> str:
        async with httpx.AsyncClient(transport=asked, base_url="http://e") as client:
            return (await client.get("/metrics")).text

    assert "raymill_log_dropped_total 4.0" in asyncio.run(scrape())
    rows = logged.read()
    assert len(rows) == 2 and rows[0]["dropped_before"] == 4
    assert predictions.summary(logged.folder).dropped == 4


def test_a_disk_that_fails_costs_rows_and_no_answer(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    logged = start()
    with monkeypatch.context() as broken, caplog.at_level(logging.ERROR):
        broken.setattr(prediction_log, "Stream", fails)
        assert logged.predict(ROW).status_code == 200
        _until(lambda: "can't be written" in caplog.text)
    assert logged.predict(ROW).status_code == 200
    (row,) = logged.read()
    assert row["dropped_before"] == 1


def _until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_without_a_log_nothing_is_kept_and_no_label_taken(
    contract: Contract, predictor: Any, tmp_path: Path
) -> None:
    spec = ServingSpec(log=None)
    logged = Logged(build("fraud", 3, spec, contract, predictor, home=tmp_path), tmp_path)
    assert logged.predict(ROW).json()["id"]
    assert logged.post("/feedback", {"labels": []}).status_code == 404
    assert not (tmp_path / "predictions").exists()


def test_labels_join_the_answers_they_are_of(start: Start) -> None:
    logged = start()
    id_ = logged.predict(ROW, {"x": 1, "code": "AB"}).json()["id"]
    other = new_id()  # of an answer that the log does not have, or not yet
    taken = logged.post("/feedback", {"labels": [
        {"id": id_, "label": "fine"}, {"id": f"{id_}.1", "label": "fine"},
        {"id": other, "label": "fraud"}]})
    assert taken.status_code == 200 and taken.json() == {"accepted": 3}
    assert logged.post("/feedback", {"labels": [{"id": id_, "label": "fraud"}]}).is_success
    logged.endpoint.close()
    (table,) = predictions.labelled(logged.folder)
    found = table.sort_by("row").select(["row", "prediction", "label"]).to_pylist()
    assert found == [{"row": 0, "prediction": "fraud", "label": "fraud"},
                     {"row": 1, "prediction": "fine", "label": "fine"}]
    assert len(labels.history(logged.folder)) == 4


@pytest.mark.parametrize(
    ("document", "status", "field"),
    [
        ({"labels": [{"id": "hunter2-4711", "label": "fine"}]}, 422, "id"),
        ({"labels": [{"id": f"{new_id()}.x", "label": "fine"}]}, 422, "id"),
        ({"labels": [{"id": f"{new_id()}.", "label": "fine"}]}, 422, "id"),
        ({"labels": [{"id": "ffffffff-ffff-7000-8000-000000000000", "label": "fine"}]}, 422, "id"),
        ({"labels": [{"id": "01000000-0000-7000-8000-000000000000", "label": "fine"}]}, 422, "id"),
        ({"labels": [{"id": new_id(), "label": "hunter2-4711"}]}, 422, "label"),
        ({"labels": [{"id": new_id(), "label": None}]}, 422, "label"),
        ({"labels": [{"id": new_id(), "label": ["fine"]}]}, 422, "label"),
        ({"labels": [{"id": new_id(), "label": "fine", "hunter2-4711": 1}]}, 422, None),
        ({"labels": []}, 422, None),
        ({"labels": [{"id": new_id(), "label": "fine"}] * 51}, 422, None),
        ([], 422, None),
    ],
)
def test_a_label_that_can_not_be_one_is_refused_and_none_of_its_request_is_kept(
    start: Start, document: Any, status: int, field: str | None
) -> None:
    logged = start()
    if field is not None:
        document["labels"].insert(0, {"id": new_id(), "label": "fine"})
    answer = logged.post("/feedback", document)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    if field is not None:
        (error,) = answer.json()["errors"]
        assert (error["row"], error["field"]) == (1, field)
        assert "hunter2-4711" not in answer.text
    assert len(labels.history(logged.folder)) == 0


@pytest.mark.parametrize(("label", "known"), [(1, "1"), (1.0, "1"), ("1", "1"), (True, "true"),
                                              (False, "false"), (0.5, "0.5")])
def test_labels_are_named_as_classes_are(label: object, known: str) -> None:
    from raymill.serving.feedback import class_text

    assert class_text(label) == known


def test_finished_files_are_put_into_a_store_once_as_they_are(
    s3: str, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    put: list[str] = []
    plain = Bucket.put
    monkeypatch.setattr(
        Bucket, "put", lambda self, name, source: (put.append(name), plain(self, name, source))[1])
    place = store_at("s3://rows/logs/predictions/fraud")
    for _ in range(2):  # a service, and its next start
        logged = start(store="s3://rows/logs")
        logged.predict(ROW)
        logged.endpoint.close()
        files = parts(logged.folder)
        assert place.names() == sorted(f"{path.parent.name}/{path.name}" for path in files)
        assert place.read(place.names()[0]) == (logged.folder / place.names()[0]).read_bytes()
    assert len(put) == len(set(put)) == 2


def test_a_store_that_is_away_costs_no_line_of_the_log(
    s3: str, start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(log_shipping, "_EVERY_S", 0.05)
    logged = start(store="s3://none-such/logs")
    logged.predict(ROW)
    with caplog.at_level(logging.ERROR, "raymill.serving"):
        assert len(logged.read()) == 1
    [told] = [r.getMessage() for r in caplog.records if "can't be put into s3://" in r.getMessage()]
    assert "testing" not in told  # the key
