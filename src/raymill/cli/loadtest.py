"""`raymill loadtest`: the highest rate within a latency objective, kept as evidence."""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

from raymill.errors import EXIT_OK, EXIT_REFUSED, UsageError
from raymill.events import note
from raymill.tracking.home import Home

from .output import emit_json, emit_table
from .progress import shown

EVIDENCE = "raymill.loadtest"  # the tag of the model version
_MOST_ROWS = 10_000


def loadtest_verb(options: argparse.Namespace) -> int:
    """Offer growing rates; exits 3 when --require-rate is not reached within the objective."""
    from raymill.serving.loadtest import LoadOptions, Slo, Step, loadtest

    slo, home = Slo.parse(options.slo), Home.find()
    url = _url(options.target, home)
    bodies = _bodies(url, options)
    with shown() as notify:
        def told(step: Step) -> None:
            state = "holds" if step.holds else f"breaks: {step.why}"
            note(notify, f"{step.offered:,.0f}/s  p50 {step.quantiles['p50']:.1f}  "
                         f"p99 {step.quantiles['p99']:.1f} ms  {state}")

        result = loadtest(url, bodies, slo, LoadOptions(
            seconds=options.seconds, start=options.start, most=options.most,
            headers=_key(options.key_env)), told)
    kept = _keep(result, home)
    _tag(result, home, options.tracking)
    if options.json:
        emit_json({"ok": True, **result.to_dict(), "report": str(kept)})
    else:
        _print(result, kept)
    required = options.require_rate
    return EXIT_OK if required is None or result.rate >= required else EXIT_REFUSED


def _url(target: str, home: Home) -> str:
    if target.startswith(("http://", "https://")):
        return target
    from raymill.serving.service import status

    for service in status(home.path, target):
        if service.state == "ready":
            return service.url
    raise UsageError(f"no service {target!r} is ready", cure="raymill serve NAME --detach, or "
                     "give the endpoint's URL.")


def _key(variable: str | None) -> dict[str, str]:
    if variable is None:
        return {}
    if not os.environ.get(variable):
        raise UsageError(f"the variable {variable} must hold the API key",
                         cure=f"export {variable}=...")
    return {"authorization": f"Bearer {os.environ[variable]}"}


def _bodies(url: str, options: argparse.Namespace) -> list[bytes]:
    """Requests of --rows rows each: of the file given, else the endpoint's own example."""
    rows = _rows(url, options) if options.input else [_example(url, options.key_env)]
    size = options.rows
    parts = [rows[low : low + size] for low in range(0, len(rows) - size + 1, size)]
    if not parts:
        parts = [[rows[i % len(rows)] for i in range(size)]]
    return [json.dumps({"rows": part}).encode() for part in parts]


def _rows(url: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of a file, checked against the contract of the model that is served."""
    import httpx

    from raymill.api import load_contract
    from raymill.data.tables import json_rows, read_rows

    try:
        ready = httpx.get(f"{url}/readyz", headers=_key(options.key_env), timeout=10,
                          trust_env=False).raise_for_status().json()
        served = f"{ready['model']}:{ready['version']}"
    except (httpx.HTTPError, KeyError, ValueError) as error:
        raise UsageError(f"{url}/readyz must say which model it serves, but got "
                         f"{type(error).__name__}") from None
    table = read_rows(options.input, load_contract(served, tracking_uri=options.tracking))
    rows = json_rows(table.slice(0, _MOST_ROWS))
    if not rows:
        raise UsageError(f"--input must hold rows, but {options.input} has none")
    return rows


def _example(url: str, variable: str | None) -> dict[str, Any]:
    import httpx

    try:
        page = httpx.get(f"{url}/openapi.json", headers=_key(variable), timeout=10,
                         trust_env=False).raise_for_status().json()
        body = page["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
        row: dict[str, Any] = body["example"]["rows"][0]
    except (httpx.HTTPError, KeyError, ValueError) as error:
        raise UsageError(f"{url}/openapi.json must show an example request, but got "
                         f"{type(error).__name__}", cure="Give rows with --input.") from None
    return row


def _keep(result: Any, home: Home) -> Path:
    """The page with its plot, and the numbers beside it."""
    from raymill.evaluation.load_page import render

    folder = home.path / "loadtests"
    folder.mkdir(mode=0o700, exist_ok=True)
    stem = f"{result.model or 'endpoint'}-v{result.version}-{time.strftime('%Y%m%d-%H%M%S')}"
    document = result.to_dict()
    (folder / f"{stem}.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
    page = folder / f"{stem}.html"
    page.write_text(render(document), encoding="utf-8")
    return page


def _tag(result: Any, home: Home, tracking: str | None) -> None:
    """The evidence on the model version, where this home's registry has that version."""
    from raymill.tracking.registry import Registry

    registry = Registry(tracking or home.tracking_uri, home)
    known = {(v.name, v.version) for v in registry.versions(result.model or None)}
    if (result.model, result.version) not in known:
        return
    best = result.best
    said = {"slo": result.slo, "rate": round(result.rate, 1), "at": round(time.time()),
            "quantiles_ms": {k: round(v, 2) for k, v in best.quantiles.items()} if best else {}}
    registry.annotate(result.model, result.version, {EVIDENCE: json.dumps(said)})


def _print(result: Any, page: Path) -> None:
    most = max(step.offered for step in result.steps)
    emit_table(f"{result.model} version {result.version}, {result.slo}",
               ["offered/s", "answered/s", "p50 ms", "p95", "p99", "p99.9", "shed", "failed", ""], [
        [f"{s.offered:,.0f}", f"{s.answered:,.0f}",
         *(f"{s.quantiles[q]:.1f}" for q in ("p50", "p95", "p99", "p99.9")), s.shed, s.failed,
         "█" * max(1, round(20 * s.offered / most)) + ("" if s.holds else f" {s.why}")]
        for s in sorted(result.steps, key=lambda step: step.offered)
    ])
    if result.best is None:
        print(f"\nno rate held {result.slo}")
    else:
        print(f"\n{result.rate:,.0f} requests/s within {result.slo}, limited by {result.limited_by}")
    print(page)
