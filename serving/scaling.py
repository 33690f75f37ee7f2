"""What Serve's autoscaler is told."""

from __future__ import annotations

from typing import Any

from raymill.specs import seconds

from .spec import ServingSpec

HOLD_P99 = "raymill.serving.autoscale:HoldP99"
_PUSH_S, _LOOK_BACK_S = 0.5, 2.0


def autoscaling(spec: ServingSpec) -> dict[str, Any]:
    """Serve's own settings for `spec.replicas`."""
    policy = {} if spec.replicas.target_p99_ms is None else {"policy": {"policy_function": HOLD_P99}}
    return policy | {
        "min_replicas": spec.replicas.min,
        # One at least: a model that can't be served is told of when the service starts.
        "initial_replicas": max(1, spec.replicas.min),
        "max_replicas": spec.replicas.max,
        "target_ongoing_requests": spec.replicas.target_ongoing,
        "upscale_delay_s": seconds(spec.replicas.upscale_delay),
        "downscale_delay_s": seconds(spec.replicas.downscale_delay),
        # Serve's default of 10 s would be most of the reaction time. (2.60 declares it
        # deprecated in favour of an environment variable that nothing reads yet.)
        "metrics_interval_s": _PUSH_S,
        "look_back_period_s": _LOOK_BACK_S,
    }
