"""The spec of tracking."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from raymill.specs import Part


class TrackingSpec(Part):
    """Where runs and models are recorded. `uri: null` is SQLite in the raymill home.

    `system_metrics` records every 10 s how busy the driver's machine is: CPU, memory, disk,
    network, and GPUs where nvidia-smi lists any.
    """

    uri: str | None = None
    """MLflow's: sqlite:///, postgresql://, mysql:// or http(s)://; null: SQLite in the home."""
    experiment: Annotated[str, Field(min_length=1)] | None = None
    """MLflow's experiment; null: the spec's name."""
    system_metrics: bool = False
    """Whether the driver's machine is watched."""
    promote: Literal["auto", "manual"] = "auto"
    """auto: a model that passes its gates becomes champion; manual: only you promote."""

    @field_validator("uri")
    @classmethod
    def _no_file_store(cls, uri: str | None) -> str | None:
        if uri is not None and (uri.startswith("file:") or "://" not in uri):
            raise ValueError(
                f"tracking.uri is sqlite:///..., postgresql://..., mysql://... or http(s)://...; "
                f"MLflow no longer takes folders, but got {uri!r}"
            )
        return uri
