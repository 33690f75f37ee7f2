"""`raymill score`: a registered model over files of rows."""

from __future__ import annotations

import argparse

from .output import emit_json
from .progress import shown


def score_verb(options: argparse.Namespace) -> None:
    """Score every row once; a killed scoring goes on with the same command."""
    with shown() as notify:
        from raymill.api import score

        result = score(
            options.name, options.input, options.output, tracking_uri=options.tracking,
            address=options.address, notify=notify, format=options.format,
            input_format=options.input_format, workers=options.workers, restart=options.restart,
            keep=None if options.keep is None else tuple(options.keep),
            partition=tuple(options.partition_by), on_violation=options.on_violation,
        )
    if options.json:
        emit_json({"ok": True, **result.to_dict()})
        return
    print(f"{result.scored:,} rows scored by {result.model} version {result.version}, "
          f"{result.quarantined:,} quarantined, in {result.parts} parts "
          f"({result.resumed} from before)\n"
          f"{result.rows_per_s:,.0f} rows/s; {result.seconds:.1f} s after Ray had started\n"
          f"{result.output}")
