"""A policy for Serve's autoscaler: as many replicas as hold the 99th percentile of the latency.

Serve's controller takes this module by value, so it imports nothing of raymill.
"""

from __future__ import annotations

import math
from typing import Any

SETTLE_S = 6.0  # after a change, until the counts (of 5 s) are of the new number of replicas alone
FEW = 3  # late requests that may be chance
SHARE = 0.01


class HoldP99:
    """More replicas while more than 1 % of the last seconds' requests were late; one fewer while at
    most 1 % took longer than half the target. Between the two nothing changes.

    Serve adds `min` and `max`, and the delays for which a wish must hold.
    """

    def __call__(self, ctx: Any) -> tuple[int, dict[str, Any]]:
        state, now = dict(ctx.policy_state or {}), float(ctx.current_time)
        if state.get("replicas") != ctx.current_num_replicas:
            state |= {"replicas": ctx.current_num_replicas, "since": now}
        return self._wanted(ctx, now - state["since"]), state

    def _wanted(self, ctx: Any, settled_s: float) -> int:
        target = int(ctx.target_num_replicas)
        asked, late, near = (self._sum(ctx, name) for name in ("asked", "late", "near"))
        if asked == 0 and ctx.total_num_requests == 0:
            return int(ctx.capacity_adjusted_min_replicas)
        if ctx.current_num_replicas != target or settled_s < SETTLE_S:
            return target
        if late > max(SHARE * asked, FEW):
            return target + max(1, math.ceil(target / 2))
        return target - 1 if target > 1 and near <= SHARE * asked else target

    def _sum(self, ctx: Any, name: str) -> float:
        return float(sum((ctx.aggregated_metrics or {}).get(name, {}).values()))
