from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from raymill.data.contract import Contract
from raymill.serving import access_log
from raymill.serving.access_log import AccessLog, folder_of
from raymill.serving.endpoint import build
from raymill.serving.spec import ServingSpec

SECRET = "hunter2-4711"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def log(tmp_path: Path) -> Iterator[AccessLog]:
    made = AccessLog(tmp_path, "fraud")
    yield made
    made.close()


def test_a_line_tells_of_the_answer_and_holds_no_value(
    contract: Contract, predictor: Any, log: AccessLog
) -> None:
    app = build("fraud", 3, ServingSpec(), contract, predictor)
    app.observe(log)

    async def main() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app),
                                     base_url="http://e") as client:
            await client.post(f"/predict?token={SECRET}", json={"rows": [{"x": 1.0, "code": "AB"}]},
                              headers={"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"})
            await client.post("/predict", json={"rows": [{"x": SECRET, "code": "AB"}]})
            await client.get(f"/v2/models/{SECRET}")
            await client.get(f"/{SECRET}")

    asyncio.run(main())
    text = log.path.read_text()
    assert SECRET not in text
    good, bad, template, other = map(json.loads, text.splitlines())
    assert (good["method"], good["path"], good["status"]) == ("POST", "/predict", 200)
    assert (good["version"], good["variant"], good["trace"]) == (3, "champion", TRACE)
    assert good["id"] and good["ms"] > 0 and good["bytes"] > 0 and good["time"] > 0
    assert (bad["status"], bad["version"]) == (422, 3)
    assert (template["path"], template["status"]) == ("/v2/models/{model}", 404)
    assert (other["path"], other["status"]) == ("other", 404)


def test_files_are_rotated_and_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from raymill.serving.answers import Answer

    monkeypatch.setattr(access_log, "FILE_BYTES", 1000)
    log = AccessLog(tmp_path, "fraud")
    for _ in range(200):
        log(None, Answer(b"", status=404), 0.001)
    log.close()
    files = list(folder_of(tmp_path).iterdir())
    assert len(files) == access_log.FILES
    assert all(path.stat().st_size <= 1000 for path in files)


def test_of_ended_replicas_a_few_files_stay(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    folder.mkdir(parents=True)
    for pid in range(6):
        (folder / f"fraud-{2**30 + pid}.jsonl").write_text("{}\n")
    (folder / "other-1073741824.jsonl").write_text("{}\n")
    AccessLog(tmp_path, "fraud").close()
    left = sorted(path.name for path in folder.iterdir())
    assert len(left) == access_log.FILES + 2 and "other-1073741824.jsonl" in left
