"""The spec of serving."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Annotated, Literal

from pydantic import Field, model_validator

from raymill.specs import Duration, Part, StoreUri

COLD_START_S = 60.0  # a request without a replica is held so much longer than its deadline


class ReplicasSpec(Part):
    """Replicas go between `min` and `max` so that each has about `target_ongoing` requests; or, with
    `target_p99_ms`, so that 99 % of the requests take at most so long in their replica.

    With `min` 0 a service that nobody asks has none, and holds the next request while one starts.
    """

    min: Annotated[int, Field(ge=0)] = 1
    """At least so many; 0: none while nobody asks."""
    max: Annotated[int, Field(ge=1)] = 4
    """At most so many (and no more than the machine has CPUs for)."""
    target_ongoing: Annotated[float, Field(gt=0)] = 16
    """Requests that each replica is to have at once."""
    target_p99_ms: Annotated[float, Field(gt=0, le=600_000)] | None = None
    """Instead: 99 % of the requests take at most so long in their replica."""
    upscale_delay: Duration = "2s"
    """How long the wish for more must hold."""
    downscale_delay: Duration = "30s"
    """How long the wish for fewer must hold."""

    @model_validator(mode="after")
    def _ordered(self) -> ReplicasSpec:
        if self.min > self.max:
            raise ValueError(f"min <= max must hold, but got min={self.min}, max={self.max}")
        return self


class TlsSpec(Part):
    """PEM files of the certificate, with its chain, and of its private key."""

    cert: str
    """The certificate, with its chain."""
    key: str
    """Its private key, without a passphrase."""


class RateSpec(Part):
    """How often each holder of an API key may ask."""

    per_s: Annotated[float, Field(gt=0, le=1e6)]
    """Requests a second of each holder of a key."""
    burst: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    """How many of them at once."""


class LogSpec(Part):
    """What is kept of the answers, below `predictions/` of the home."""

    inputs: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the requests whose rows are kept too."""
    sensitive: Literal["hash", "drop"] = "hash"
    """What becomes of columns that the contract calls sensitive."""
    keep: Duration = "30d"
    """Files of older days are removed, and labels that came on older days."""
    max_gb: Annotated[float, Field(gt=0, le=100_000)] = 5
    """Of finished files, beyond which the oldest go; labels have as much again."""
    store: StoreUri | None = None
    """s3://bucket/prefix, where finished files are put too; null: nowhere else."""


class ServingSpec(Part):
    """The endpoint and its limits.

    With `keys`, every request but those for its health needs an API key (`raymill serve keys
    add`); a host other than loopback needs `keys`.
    """

    host: str = "127.0.0.1"
    """An IPv4 address or localhost; beyond loopback it needs keys."""
    port: Annotated[int, Field(ge=1024, le=65535)] = 8000
    """Of the endpoint."""
    grpc_port: Annotated[int, Field(ge=1024, le=65535)] | None = None
    """gRPC's own port, on loopback only; null: no gRPC."""
    keys: bool = False
    """Whether requests need an API key, all but those for health."""
    tls: TlsSpec | None = None
    """PEM files; null: plain HTTP."""
    rate: RateSpec | None = None
    """How often each holder of a key may ask, over all replicas; null: as often as they like."""
    replicas: ReplicasSpec = ReplicasSpec()
    """How many processes answer."""
    access_log: bool = False
    """A JSON line for each answer, below services/access of the home."""
    log: LogSpec | None = LogSpec()
    """The prediction log; null: answers leave no trace, and labels are not taken."""
    cpus_per_replica: Annotated[float, Field(gt=0)] = 0.5
    """CPUs that Ray counts for a replica."""
    gpus_per_replica: Annotated[float, Field(ge=0)] = 0
    """GPUs, or a share of one; 0: it computes on the CPU."""
    threads: Annotated[int, Field(ge=1)] = 1
    """Of torch in a replica."""
    deadline_ms: Annotated[int, Field(ge=1, le=600_000)] = 10_000
    """A request that takes longer gets 504."""
    max_batch_rows: Annotated[int, Field(ge=1)] = 1024
    """Rows of one forward pass, in which waiting requests are joined."""
    max_rows: Annotated[int, Field(ge=1)] = 10_000
    """Rows of one request; more get 422."""
    max_body_mb: Annotated[float, Field(gt=0, le=1024)] = 8
    """Of one request; more gets 413."""
    max_waiting: Annotated[int, Field(ge=1)] = 256
    """Requests a replica holds before it says 429; more while other replicas are missing."""
    max_connections: Annotated[int, Field(ge=16, le=100_000)] = 4096
    """Of the endpoint; more wait to be taken."""

    @model_validator(mode="after")
    def _reachable(self) -> ServingSpec:
        try:
            IPv4Address("127.0.0.1" if self.host == "localhost" else self.host)
        except ValueError:
            raise ValueError(f"serving.host is an IPv4 address or localhost, but got "
                             f"{self.host!r}") from None
        if not self.loopback and not self.keys:
            raise ValueError(f"serving.host {self.host} lets others in, which needs keys: true "
                             "(make one: raymill serve keys add NAME)")
        if self.grpc_port == self.port:
            raise ValueError(f"grpc_port is another than port, but got {self.port} for both")
        if self.rate is not None and not self.keys:
            raise ValueError("a rate is a key's, which needs keys: true")
        return self

    @property
    def loopback(self) -> bool:
        """Only this machine can reach the endpoint."""
        return self.host == "localhost" or IPv4Address(self.host).is_loopback

    @property
    def hold_s(self) -> float:
        """How long the front waits for a replica's answer, one that must start included."""
        return self.deadline_ms / 1000 + 5 + (0 if self.replicas.min else COLD_START_S)

    @property
    def url(self) -> str:
        """The endpoint's, from this machine."""
        host = "127.0.0.1" if self.host == "0.0.0.0" else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"
