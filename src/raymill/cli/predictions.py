"""`raymill predictions`: what was answered, and the rows of it as a file."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from raymill.errors import UsageError
from raymill.specs import seconds
from raymill.tracking.home import Home

from .output import emit_json, emit_table, number


def predictions_verb(options: argparse.Namespace) -> None:
    """Sums over a model's prediction log; with --output its rows."""
    from raymill.monitoring.predictions import Window, summary
    from raymill.monitoring.store import log_folder

    log = log_folder(Home.find().path, options.name)
    if not log.is_dir():
        raise UsageError(f"no answer of {options.name!r} was logged in this home",
                         cure="A service logs unless serving.log is null; see raymill models.")
    since = None
    if options.since is not None:
        try:
            since = datetime.now(UTC) - timedelta(seconds=seconds(options.since))
        except ValueError as error:
            raise UsageError(f"--since: {error}") from None
    window = Window(since=since, version=options.version)
    if options.output is not None:
        _export(options, log, window)
        return
    told = summary(log, window)
    if options.json:
        emit_json({"ok": True, "name": options.name, **told.to_dict()})
        return
    emit_table(f"predictions of {options.name}", ["what", "value"], [
        ["rows answered and logged", f"{told.rows:,}"],
        ["of these with their inputs", f"{told.sampled:,}"],
        ["rows dropped", f"{told.dropped:,}"],
        ["rows with a label", f"{told.labels:,}"],
        ["first", _shown(told.first)], ["last", _shown(told.last)],
        ["files", f"{told.files:,} ({told.bytes / 1e6:,.1f} MB)"],
        *[[f"version {each['version']} as {each['variant']}", f"{each['rows']:,}"]
          for each in told.versions]])
    if told.labels:
        _worth(log, window)


def _worth(log: Path, window: Any) -> None:
    from raymill.monitoring.value import worth

    emit_table("right answers among the labelled (for numbers: minus the absolute error)",
               ["version", "as", "rows", "mean", "variance"], [
        [each.version, each.variant, each.count, number(each.mean), number(each.variance)]
        for each in worth(log, window=window)])


def _shown(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _export(options: argparse.Namespace, log: Path, window: Any) -> None:
    """The rows as .parquet, .csv or .jsonl, by the name's ending."""
    import pyarrow as pa
    from pyarrow import csv, parquet

    from raymill.monitoring.predictions import labelled, read

    path = Path(options.output)
    if path.suffix not in (".parquet", ".csv", ".jsonl"):
        raise UsageError(f"--output ends in .parquet, .csv or .jsonl, but got {path.name!r}")
    if options.labelled:
        parts = list(labelled(log, window))
        table = pa.concat_tables(parts, promote_options="permissive") if parts else pa.table({})
    else:
        table = read(log, window)
    if path.suffix == ".parquet":
        parquet.write_table(table, path)
    elif path.suffix == ".csv":
        csv.write_csv(table, path)
    else:
        table.to_pandas().to_json(path, orient="records", lines=True, date_format="iso")
    if options.json:
        emit_json({"ok": True, "rows": len(table), "output": str(path)})
    else:
        print(f"{len(table):,} rows in {path}")
