"""What a watcher reads from the metrics of several replicas."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from raymill.cli.watching import line, table
from raymill.serving.watch import Glance, by, percentile, read

REPLICA = """
import sys
from raymill.serving.metrics import Metrics
metrics = Metrics("toy")
for _ in range(int(sys.argv[1])):
    metrics.seconds.labels("7", "champion").observe(0.003)
    metrics.answered("/predict", 200, 7, "champion")
metrics.answered("/predict", 429, 7, "champion")
metrics.held.inc(2)
metrics.held.inc()
print("ready", flush=True)
sys.stdin.read()
"""


def test_metrics_of_several_replicas_are_read_as_one(tmp_path: Path) -> None:
    replicas = [
        subprocess.Popen([sys.executable, "-c", REPLICA, count], text=True, stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE,
                         env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)})
        for count in ("30", "10")]
    for replica in replicas:
        assert replica.stdout is not None and replica.stdout.readline() == "ready\n"
    samples = read(tmp_path)
    for replica in replicas:
        replica.communicate()
    assert by(samples, "raymill_request_seconds_count", "version", "variant") == {
        ("7", "champion"): 40}
    assert by(samples, "raymill_requests_total", "status") == {("200",): 40, ("429",): 2}
    assert by(samples, "raymill_held_requests") == {(): 6}
    assert by(samples, "raymill_replicas") == {(): 2}
    assert percentile(samples, 0.5) == pytest.approx(3.75)  # the middle of 2.5 to 5 ms
    ended = read(tmp_path)
    assert by(ended, "raymill_held_requests") == {} and by(ended, "raymill_replicas") == {}
    assert by(ended, "raymill_requests_total", "status") == {("200",): 40, ("429",): 2}
    assert read(tmp_path / "none") == {} and percentile({}, 0.99) is None


def test_a_service_is_told_in_a_line_and_in_a_table() -> None:
    glance = Glance("toy", 7, "ready", "http://e", 1, 2, 123.4, 3.75, None, 6, 0.5, 0.0,
                    [{"version": "7", "variant": "champion", "share": 1.0}])
    assert line(glance) == ("toy ready  replicas 1 of 2  requests/s 123  p50 ms 3.8  p99 ms -  held 6"
                            "  429/s 0.5  5xx/s 0.0  version 7 champion 100%")
    assert table([glance]).row_count == 1 and table([]).caption == "no service runs"
