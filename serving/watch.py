"""What the services of a home are doing, read from their state files and their metrics' folders."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prometheus_client import multiprocess

from .service import status
from .state import ServiceStatus

WINDOW_S = 5.0  # rates and percentiles are of so many seconds
Key = tuple[str, tuple[tuple[str, str], ...]]  # a sample's name and labels
Samples = Mapping[Key, float]


@dataclass(frozen=True)
class Glance:
    """A service now. Rates are of the last seconds, latencies those in the replicas, interpolated
    between the histogram's bounds; None: nothing was asked, or nothing is known yet.

    `shares`: of the answered predictions, by version and variant.
    """

    name: str
    version: int
    state: str
    url: str
    replicas: int
    target: int
    rate: float | None
    p50_ms: float | None
    p99_ms: float | None
    held: int
    shed: float | None  # 429 a second
    failed: float | None  # 5xx a second
    shares: list[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Watch:
    """Looks at the services of `home`, or at one of them, again and again."""

    def __init__(self, home: Path, name: str | None = None) -> None:
        self._home, self._name = home, name
        self._seen: dict[str, deque[tuple[float, Samples]]] = {}

    def look(self) -> list[Glance]:
        return [self._glance(each) for each in status(self._home, self._name)]

    def _glance(self, service: ServiceStatus) -> Glance:
        samples, now = read(Path(service.folder) / "metrics"), time.monotonic()
        seen = self._seen.setdefault(service.folder, deque())
        seen.append((now, samples))
        while len(seen) > 2 and seen[1][0] <= now - WINDOW_S:
            seen.popleft()
        then, before = seen[0]
        spent = now - then
        grown = {key: value - before.get(key, 0.0) for key, value in samples.items()}
        counts = by(grown, "raymill_request_seconds_count", "version", "variant")
        total = sum(counts.values())
        return Glance(
            service.name, service.version, service.state, service.url, service.replicas,
            service.target, total / spent if spent else None,
            percentile(grown, 0.5), percentile(grown, 0.99),
            int(by(samples, "raymill_held_requests").get((), 0)),
            _rate(grown, spent, "429"), _rate(grown, spent, "5"),
            [{"version": version, "variant": variant, "share": count / total}
             for (version, variant), count in sorted(counts.items()) if count > 0])


def read(folder: Path) -> Samples:
    """The samples of all replicas whose metrics lie in `folder`; none where there is none."""
    if not folder.is_dir():
        return {}
    try:
        files = [str(path) for path in folder.glob("*.db") if _counts(path)]
        return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value
                for family in multiprocess.MultiProcessCollector.merge(files)
                for sample in family.samples}
    except (OSError, ValueError):  # the service ends, or a replica is writing its first words
        return {}


def _counts(path: Path) -> bool:
    """Gauges are those of living replicas only; what the others counted stays."""
    gauge = path.name.startswith("gauge_live")
    return not gauge or Path(f"/proc/{path.stem.rsplit('_', 1)[1]}").exists()


def by(samples: Samples, name: str, *labels: str) -> dict[tuple[str, ...], float]:
    """A metric's samples, summed over all but these labels."""
    sums: dict[tuple[str, ...], float] = {}
    for (each, pairs), value in samples.items():
        if each == name:
            has = dict(pairs)
            key = tuple(has.get(label, "") for label in labels)
            sums[key] = sums.get(key, 0.0) + value
    return sums


def percentile(grown: Samples, share: float) -> float | None:
    """Of the latency in ms, as Prometheus's histogram_quantile has it; None: no request."""
    buckets = sorted((float(bound), count) for (bound,), count in
                     by(grown, "raymill_request_seconds_bucket", "le").items())
    if not buckets or buckets[-1][1] <= 0:
        return None
    wanted, low, below = share * buckets[-1][1], 0.0, 0.0
    for bound, count in buckets:
        if count >= wanted:
            if bound == float("inf"):
                return 1000 * low
            return 1000 * (low + (bound - low) * (wanted - below) / max(1e-12, count - below))
        low, below = bound, count
    return None


def _rate(grown: Samples, spent: float, status_: str) -> float | None:
    if not spent:
        return None
    statuses = by(grown, "raymill_requests_total", "status")
    return sum(count for (each,), count in statuses.items() if each.startswith(status_)) / spent
