"""How many replicas this machine has room for."""

from __future__ import annotations

from raymill.errors import UsageError

from .spec import ServingSpec


def fitting(spec: ServingSpec, cpus: int) -> ServingSpec:
    """`spec` with no more replicas than there are CPUs for.

    Raises:
        UsageError: not even `replicas.min` fit, or not one.
    """
    most = int(cpus / spec.cpus_per_replica + 1e-9)
    least = max(1, spec.replicas.min)
    if most < least:
        raise UsageError(
            f"serving.replicas.min={spec.replicas.min}, at least one, with cpus_per_replica="
            f"{spec.cpus_per_replica:g} needs more than the {cpus} CPUs of this machine",
            cure="Lower one of the two.",
        )
    replicas = spec.replicas.model_copy(update={"max": min(spec.replicas.max, most)})
    return spec.model_copy(update={"replicas": replicas})
