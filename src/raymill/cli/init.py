"""`raymill init`: a spec and a contract from the data."""

from __future__ import annotations

import argparse
from pathlib import Path

from raymill.cluster.local import ray_session
from raymill.cluster.spec import ClusterSpec
from raymill.data.infer import infer
from raymill.data.source import discover_all
from raymill.scaffold import check_parts, column_rows, spec_text, write_project

from .output import emit_json, emit_table
from .progress import shown


def init_verb(options: argparse.Namespace) -> None:
    """Infer the contract over all rows and write both files."""
    folder = Path(options.name)
    spec = check_parts(folder.name, {
        "source": options.data, "target": options.target, "test": options.test,
        "time": options.time, "group": options.group, "drop": options.drop,
    })
    write_project(folder, {}, force=options.force)
    with shown() as notify:
        files = discover_all(options.data, None, options.test, Path.cwd(), spec.format)
        with ray_session(ClusterSpec(), None, notify):
            inferred = infer(files, spec)
        image = any(rule.kind == "image" for rule in inferred.contract.columns.values())
        texts = {
            "raymill.yaml": spec_text(
                folder.name, folder, inferred.contract, options.data, options.test or [],
                time=options.time, group=options.group, drop=options.drop, image=image),
            "contract.yaml": inferred.contract.to_yaml(),
        }
        paths = write_project(folder, texts, force=options.force)
    if options.json:
        emit_json({"ok": True, "files": [str(path) for path in paths],
                   "task": inferred.contract.task, "classes": inferred.contract.classes,
                   "notes": inferred.notes})
        return
    emit_table(f"{inferred.contract.task}, target {options.target}",
               ["column", "type", "kind", "nulls"], column_rows(inferred.contract))
    for line in inferred.notes:
        print(f"note: {line}")
    print(f"wrote {' and '.join(map(str, paths))}\nnext: raymill check {paths[0]}")
