"""`raymill serve` with its `status`, `stop` and `keys`, and `raymill predict`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from raymill.errors import UsageError
from raymill.tracking.home import Home

from .keys import keys_of
from .output import clean, emit_json, emit_table
from .progress import shown
from .watching import watch


def serve_verb(options: argparse.Namespace) -> None:
    """Serve a model, or tell of the services, or stop them, or see to their keys."""
    if options.name == "keys":
        keys_of(options)
        return
    options.which = options.more[0] if options.more else None
    most = 1 if options.name in ("status", "stop") else 0
    if len(options.more) > most:
        raise UsageError(f"serve takes one NAME, but got {options.name!r} and "
                         f"{options.more[most]!r}",
                         cure="raymill serve NAME, or: raymill serve stop NAME.")
    if options.name == "status":
        _status(options)
    elif options.name == "stop":
        _stop(options)
    else:
        _start(options)


def _start(options: argparse.Namespace) -> None:
    with shown() as notify:
        from raymill.api import serve

        status = serve(options.name, tracking_uri=options.tracking, overrides=options.overrides,
                       address=options.address, detach=options.detach, notify=notify)
    if not options.detach:
        return
    if options.json:
        emit_json({"ok": True, **status.to_dict()})
        return
    print(f"{status.name} version {status.version} at {status.url}\n"
          f"  docs {status.url}/docs\n  next: raymill predict {status.name} --input FILE\n"
          f"  stop: raymill serve stop {status.name}")


def _status(options: argparse.Namespace) -> None:
    from raymill.serving.service import status

    home = Home.find().path
    if options.watch:
        watch(home, options.which, as_json=options.json)
        return
    found = [each.to_dict() for each in status(home, options.which)]
    if options.json:
        emit_json({"ok": True, "services": found})
    elif found:
        where = ["cluster"] if any(s["cluster"] for s in found) else []
        keys = ["name", "version", "state", "replicas", "target", "url", *where]
        titles = ["name", "version", "state", "replicas", "wanted", "url", *where]
        emit_table("services", titles, [[s[key] for key in keys] for s in found])
    else:
        print("no service runs; start one: raymill serve NAME --detach")


def _stop(options: argparse.Namespace) -> None:
    from raymill.serving.service import status, stop

    home = Home.find().path
    names = [options.which] if options.which else [each.name for each in status(home)]
    for name in names:
        stop(home, name)
    if options.json:
        emit_json({"ok": True, "stopped": names})
    else:
        print(f"stopped {', '.join(names)}" if names else "no service runs")


def predict_verb(options: argparse.Namespace) -> None:
    """Ask the endpoint for every row of a file."""
    from raymill.api import load_contract
    from raymill.data.tables import json_rows, read_rows
    from raymill.serving.client import Client
    from raymill.serving.service import status

    home = Home.find().path
    url, ref = options.url, options.name
    if url is None:
        running = [each for each in status(home, options.name) if each.state == "ready"]
        if not running:
            raise UsageError(f"no service called {options.name!r} is ready",
                             cure=f"Start it: raymill serve {options.name} --detach, or give --url.")
        url, ref = running[0].url, f"{options.name}:{running[0].version}"
    contract = load_contract(ref, tracking_uri=options.tracking)
    with Client(url) as client:
        answers = client.predict(json_rows(read_rows(options.input, contract)))
        by = {"answered_by": [{"model": m, "version": v} for m, v in client.answered_by]}
    if options.output:
        _write(answers, Path(options.output))
        if options.json:
            emit_json({"ok": True, **by, "rows": len(answers), "output": options.output})
        else:
            print(f"{len(answers):,} predictions in {options.output}")
    elif options.json:
        emit_json({"ok": True, **by, "predictions": answers})
    else:
        for answer in answers:
            sys.stdout.write(json.dumps(clean(answer)) + "\n")


def _write(answers: list[dict[str, Any]], path: Path) -> None:
    """Answers as JSONL, CSV or Parquet, by the name's ending."""
    import pyarrow as pa
    from pyarrow import csv, parquet

    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(clean(a)) + "\n" for a in answers), encoding="utf-8")
        return
    flat = [
        {**{k: v for k, v in a.items() if k != "probability"},
         **{f"probability_{k}": v for k, v in (a.get("probability") or {}).items()}}
        for a in answers
    ]
    table = pa.Table.from_pylist(flat)
    if path.suffix == ".csv":
        csv.write_csv(table, path)
    elif path.suffix == ".parquet":
        parquet.write_table(table, path)
    else:
        raise UsageError(f"--output ends in .jsonl, .csv or .parquet, but got {path.name!r}")
