"""The endpoint's own Prometheus metrics, summed over the replicas of a host."""

from __future__ import annotations

import os
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)

from .environment import METRICS

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)


class Metrics:
    """Counters of one replica.

    A scrape reaches any one replica, so replicas that share the folder named by
    `PROMETHEUS_MULTIPROC_DIR` (set before prometheus_client is first imported) each answer
    with the sum over all of them, the ended ones' counts included.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._registry = own = CollectorRegistry()
        self.requests = Counter(
            "raymill_requests", "Requests answered", ("path", "status", "version", "variant"),
            registry=own,
        )
        self.seconds = Histogram(
            "raymill_request_seconds", "Time to answer a predict", ("version", "variant"),
            buckets=_SECONDS, registry=own,
        )
        self.batch_rows = Histogram(
            "raymill_batch_rows", "Rows of a forward pass", buckets=_ROWS, registry=own
        )
        self.batch_requests = Histogram(
            "raymill_batch_requests", "Requests joined in a forward pass", buckets=_ROWS, registry=own
        )
        self.held = Gauge(
            "raymill_held_requests", "Requests that wait or are being scored",
            multiprocess_mode="livesum", registry=own,
        )
        self.logged = Counter(
            "raymill_log_rows", "Rows written to the prediction log", registry=own)
        self.dropped = Counter(
            "raymill_log_dropped", "Answered rows that could not be logged", registry=own)
        self.labels = Counter("raymill_labels", "Labels taken by /feedback", registry=own)
        replicas = Gauge(
            "raymill_replicas", "Replicas that run on this host", multiprocess_mode="livesum",
            registry=own,
        )
        replicas.set(1)
        self._model = Gauge(
            "raymill_model_info", "The versions that are loaded, and what for; 0: no longer",
            ("name", "version", "variant"), multiprocess_mode="livemax", registry=own,
        )
        self._serving = frozenset[tuple[int, str]]()

    def serves(self, variants: frozenset[tuple[int, str]]) -> None:
        """Tell which versions are loaded, and what for."""
        for version, variant in self._serving | variants:
            now = (version, variant) in variants
            self._model.labels(self._name, str(version), variant).set(int(now))
        self._serving |= variants

    def answered(self, path: str, status: int, version: int, variant: str) -> None:
        """Count an answer; version 0: no model was asked."""
        self.requests.labels(path, str(status), str(version or ""), variant).inc()

    def batch(self, requests: int, rows: int) -> None:
        self.batch_requests.observe(requests)
        self.batch_rows.observe(rows)

    def text(self) -> bytes:
        folder = os.environ.get(METRICS)
        if folder is None:
            return generate_latest(self._registry)
        _forget_ended(Path(folder))
        together = CollectorRegistry()
        multiprocess.MultiProcessCollector(together, path=folder)
        return generate_latest(together)


def _forget_ended(folder: Path) -> None:
    """Drop the gauges of replicas that have ended; their counts stay."""
    for file in folder.glob("gauge_live*_*.db"):
        if not Path(f"/proc/{file.stem.rsplit('_', 1)[1]}").exists():
            file.unlink(missing_ok=True)
