"""The dashboard and the alert rules name what /metrics has."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from raymill.data.contract import Contract
from raymill.serving.endpoint import build
from raymill.serving.spec import ServingSpec

FOLDER = Path(__file__).parents[2] / "deploy" / "monitoring"
RULES = [rule for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]
         for rule in group["rules"]]
DASHBOARD = json.loads((FOLDER / "grafana.json").read_text())
EXPRESSIONS = [rule["expr"] for rule in RULES] + [
    target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


@pytest.fixture
def samples(contract: Contract, predictor: Any) -> dict[str, set[str]]:
    """Names of the samples that an endpoint gives after some requests, and their labels."""
    app = build("fraud", 3, ServingSpec(), contract, predictor)

    async def ask() -> str:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://e") as client:
            await client.post("/predict", json={"rows": [{"x": 1.0, "code": "AB"}]})
            return (await client.get("/metrics")).text

    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(asyncio.run(ask())):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_names_metrics_and_labels_that_there_are(
    expression: str, samples: dict[str, set[str]]
) -> None:
    names = set(re.findall(r"\braymill_\w+", expression))
    assert names and names <= samples.keys()
    known = set[str]().union(*(samples[name] for name in names)) | {"job"}
    used = set(re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"', expression))
    for listed in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression):
        used |= {name.strip() for name in listed.split(",")}
    assert used <= known


def test_the_alerts_say_what_to_do() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES)
    assert all({"summary", "action"} <= rule["annotations"].keys() for rule in RULES)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="Prometheus is not installed")
def test_prometheus_takes_the_rules() -> None:
    done = subprocess.run(["promtool", "check", "rules", str(FOLDER / "alerts.yaml")],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
