"""`raymill cluster up`, `status` and `down`: a cluster of several raylets on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from raymill.cluster import state
from raymill.tracking.home import Home

from .output import emit_json, emit_table
from .progress import shown


def cluster_up_verb(options: argparse.Namespace) -> None:
    """Start a cluster, which goes on by itself."""
    with shown() as notify:
        from raymill.cluster.up import up

        found = up(Home.find().path, workers=options.workers, cpus=options.cpus,
                   gpus=options.gpus, head_cpus=options.head_cpus,
                   object_store_mb=options.object_store_mb, notify=notify)
    _show(options, found)
    if not options.json:
        print("next: raymill submit SPEC --follow, or set cluster.address to auto\n"
              "stop: raymill cluster down")


def cluster_status_verb(options: argparse.Namespace) -> None:
    """Tell of the cluster of this home."""
    found = state.read(Home.find().path)
    if found is not None:
        _show(options, found)
    elif options.json:
        emit_json({"ok": True, "cluster": None})
    else:
        print("no cluster runs; start one: raymill cluster up")


def cluster_down_verb(options: argparse.Namespace) -> None:
    """End the cluster and all of its processes."""
    from raymill.cluster.up import down

    home = Home.find().path
    _end_services(home)
    ended = down(home)
    if options.json:
        emit_json({"ok": True, "ended": ended.address})
    else:
        print(f"ended {ended.address}: {len(ended.nodes)} nodes, no process left")


def _end_services(home: Path) -> None:
    """In order, with what they have been asked; the end of the cluster would cut it short."""
    from raymill.serving.service import status, stop

    known = state.read(home)
    for service in status(home):
        if known is not None and service.cluster == known.address:
            stop(home, service.name)


def _show(options: argparse.Namespace, found: Any) -> None:
    if options.json:
        emit_json({"ok": found.phase == "ready", "cluster": found.to_dict()})
        return
    print(f"{found.phase}  {found.address}  jobs {found.dashboard}  (loopback, with a token)")
    if found.error:
        print(found.error)
    emit_table("nodes", ["node", "state", "cpus", "gpus"], [
        [node.name, "alive" if node.alive else "LOST", node.cpus, node.gpus]
        for node in found.nodes
    ])
