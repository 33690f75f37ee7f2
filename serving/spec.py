"""The spec of serving."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from raymill.specs import Duration, Part


class ReplicasSpec(Part):
    """Replicas go between `min` and `max` so that each has about `target_ongoing` requests."""

    min: Annotated[int, Field(ge=1)] = 1
    max: Annotated[int, Field(ge=1)] = 4
    target_ongoing: Annotated[float, Field(gt=0)] = 16
    upscale_delay: Duration = "2s"
    downscale_delay: Duration = "30s"

    @model_validator(mode="after")
    def _ordered(self) -> ReplicasSpec:
        if self.min > self.max:
            raise ValueError(f"min <= max must hold, but got min={self.min}, max={self.max}")
        return self


class ServingSpec(Part):
    """The endpoint and its limits."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1024, le=65535)] = 8000
    replicas: ReplicasSpec = ReplicasSpec()
    cpus_per_replica: Annotated[float, Field(gt=0)] = 0.5
    gpus_per_replica: Annotated[float, Field(ge=0)] = 0
    threads: Annotated[int, Field(ge=1)] = 1
    deadline_ms: Annotated[int, Field(ge=1, le=600_000)] = 10_000
    max_batch_rows: Annotated[int, Field(ge=1)] = 1024  # rows of one forward pass
    max_rows: Annotated[int, Field(ge=1)] = 10_000  # rows of one request
    max_body_mb: Annotated[float, Field(gt=0, le=1024)] = 8
    max_waiting: Annotated[int, Field(ge=1)] = 256  # requests a replica holds before it says 429

    @model_validator(mode="after")
    def _loopback(self) -> ServingSpec:
        if self.host not in ("127.0.0.1", "localhost"):
            raise ValueError(
                "serving.host must be 127.0.0.1: the endpoint has no API keys yet; put a proxy "
                f"that authenticates in front of it, but got {self.host!r}"
            )
        return self
