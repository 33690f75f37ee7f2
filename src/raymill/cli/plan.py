"""`raymill plan`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from raymill.errors import EXIT_BAD_INPUT, EXIT_OK
from raymill.spec import Spec, load_spec
from raymill.tracking.home import Home

from .output import emit_json, emit_table, number
from .progress import shown
from .times import duration


def plan_verb(options: argparse.Namespace) -> int:
    """Show the stages with what they take; exits 2 when it can't be, with the arithmetic."""
    spec, base = load_spec(options.spec, options.overrides), Path(options.spec).resolve().parent
    from raymill.plan import make

    nodes = _nodes(spec, base, options.declared)
    plan = make(spec, nodes, _data_mb(spec, base))
    estimate = None
    if options.dry_run and not plan.problems:
        from raymill.dryrun import estimate as measure

        with shown() as notify:
            estimate = measure(spec, base, plan, options.price, notify)
    if options.json:
        emit_json({"ok": not plan.problems, **plan.to_dict(),
                   "estimate": estimate.to_dict() if estimate is not None else None})
    else:
        _show(plan, estimate)
    return EXIT_BAD_INPUT if plan.problems else EXIT_OK


def _nodes(spec: Spec, base: Path, declared: bool) -> list[dict[str, float]]:
    from raymill import plan
    from raymill.cluster.attach import located
    from raymill.cluster.local import ray_session

    if declared:
        return plan.declared_nodes(spec.cluster)
    cluster = located(spec.cluster, Home.find().path)
    if cluster.address == "local":
        return plan.local_nodes(cluster)
    with ray_session(cluster, base):
        return plan.cluster_nodes()


def _data_mb(spec: Spec, base: Path) -> float:
    from raymill.data.source import discover_all

    data = spec.data
    files = discover_all(data.source, data.validation, data.test, base, data.format)
    return sum(file.size for file in files) / 2**20


def _show(plan: Any, estimate: Any) -> None:
    cpus, gpus = (sum(node.get(kind, 0) for node in plan.nodes) for kind in ("CPU", "GPU"))
    print(f"{len(plan.nodes)} machine{'' if len(plan.nodes) == 1 else 's'}: {cpus:g} CPUs, "
          f"{gpus:g} GPUs")
    emit_table("stages", ["stage", "at once", "later", "cpus each", "gpus each", "memory MB", ""], [
        [s.name, s.at_once, s.waits or "", number(s.cpus, 2), number(s.gpus, 2),
         round(s.memory_mb), s.note] for s in plan.stages
    ])
    if any(stage.waits for stage in plan.stages):
        print("later: trials that begin as others end, and replicas that start under load")
    for warning in plan.warnings:
        print(f"warning: {warning}")
    for problem in plan.problems:
        print(f"refused: {problem}")
    if estimate is not None:
        emit_table("estimate", ["stage", "time", "how"], [
            [part.name, duration(part.seconds), part.how] for part in estimate.parts])
        cost = f", {estimate.cost:,.2f} at the given price" if estimate.cost is not None else ""
        print(f"in all {duration(estimate.seconds)}{cost}; peak memory {estimate.memory_mb:,.0f} MB")
