from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from raymill.data.contract import Contract
from raymill.serving.endpoint import build
from raymill.serving.sequential import Moments
from raymill.serving.spec import ServingSpec
from raymill.serving.worth import LoggedValues
from raymill.training.bundle import Bundle

from .test_app import GOOD, Client


def test_labels_that_come_back_tell_what_a_versions_answers_were_worth(
    contract: Contract, predictor: Any, bundle: Bundle, tmp_path: Path
) -> None:
    spec, began = ServingSpec.model_validate({"log": {}}), time.time() - 1
    endpoint = build("fraud", 3, spec, contract, predictor, home=tmp_path)
    ask = Client(endpoint)
    ids = [ask.predict([GOOD]).json()["id"] for _ in range(4)]
    labels = [{"id": id_, "label": label}
              for id_, label in zip(ids, ["fraud", "fraud", "fraud", "fine"], strict=True)]
    assert ask("POST", "/feedback", json={"labels": labels}).status_code == 200
    endpoint.close()
    values, found = LoggedValues(tmp_path, "fraud"), dict[int, Moments]()
    for _ in range(200):
        found = dict(values.since(began, bundle.path))
        if found:
            break
        time.sleep(0.05)
    assert (found[3].count, found[3].mean) == (4, 0.75)
    assert values.since(began + 1, bundle.path) == {}
