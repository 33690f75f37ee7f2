"""Frees the placement groups that stopped trials leave behind.

A trial that Tune stops is killed, and Ray Train's controller with it; the controller's placement
group stays until this job ends, unless somebody removes it. Ray's own cleaner asks the dashboard,
which may be off or another instance's, and does not know a group that was still pending. This one
asks the GCS alone.
"""

from __future__ import annotations

import time
from typing import Any

import ray
from ray._private.state import state
from ray.core.generated import gcs_pb2
from ray.util.placement_group import PlacementGroup, remove_placement_group


def free_orphans() -> int:
    """Remove this job's placement groups whose creating actor is dead; how many there were."""
    dead = [group for group in _made_by_actors() if group.creator_actor_dead]
    for group in dead:
        remove_placement_group(PlacementGroup(ray.PlacementGroupID(group.placement_group_id)))
    return len(dead)


def settle(patience_s: float = 10.0) -> None:
    """Free what trials that are being ended still hold: the next training may need all of it."""
    deadline = time.monotonic() + patience_s
    while _made_by_actors() and time.monotonic() < deadline:
        free_orphans()
        time.sleep(0.2)


def _made_by_actors() -> list[Any]:
    """This job's placement groups that an actor made. Those of the driver are its own to remove."""
    job = ray.get_runtime_context().get_job_id()
    raw = state._connect_and_get_accessor().get_placement_group_table()
    groups = [gcs_pb2.PlacementGroupTableData.FromString(each) for each in raw]
    return [
        group for group in groups
        if group.creator_job_id.hex() == job and not group.is_detached
        and not ray.ActorID(group.creator_actor_id).is_nil()
        and group.state != gcs_pb2.PlacementGroupTableData.REMOVED
    ]
