"""A search of two objectives, average precision and latency: its front, and its choice by the rule.

The rule: of the trials on the front within 1 % of the best average precision, the fastest. The
front and the choice are computed anew here from the trials' own values, by comparing every pair. The
data is the Adult table, or one made like it where RAYMILL_DATA has none (`data` in the details says
which). `ours` is the chosen model's median latency, the reference that of the most precise trial.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.adult import ROWS, adult
from benchmarks.harness import Figure, sized
from raymill.cluster.local import ray_session
from raymill.cluster.spec import ClusterSpec
from raymill.training.spec import ModelSpec, TrainingSpec
from raymill.tuning.search import search
from raymill.tuning.spec import TuningSpec

NAMES = ("average_precision", "p50_latency_ms")
TOLERANCE = 0.01


def front_of(points: dict[int, tuple[float, float]]) -> list[int]:
    """The trials (precision, latency) that no other beats in one and equals in the other."""
    return [
        number for number, (precision, latency) in points.items()
        if not any(p >= precision and t <= latency and (p, t) != (precision, latency)
                   for p, t in points.values())
    ]


def run() -> Figure:
    trials = sized(24, 6)
    tuning = TuningSpec.model_validate({
        "trials": trials, "sampler": "tpe", "objectives": list(NAMES),
        "choose": f"within:average_precision:{TOLERANCE:.0%}",
        "space": {
            "training.lr": {"low": 3e-4, "high": 1e-2, "log": True},
            "model.width": {"choice": [16, 64, 256, 512]},
            "model.depth": {"low": 1, "high": 5},
        }})
    model = ModelSpec.model_validate({"family": "mlp", "numeric_embedding": "none"})
    with tempfile.TemporaryDirectory() as place, ray_session(ClusterSpec()):
        folder = Path(place)
        prepared, kind = adult(folder, sized(ROWS, 2000))
        found = search(model, TrainingSpec(epochs=5, batch_size=512), NAMES[0], tuning, prepared,
                       folder / "out")
    points = {t.number: (t.measures[NAMES[0]], t.measures[NAMES[1]]) for t in found.trials
              if t.state == "complete"}
    front = front_of(points)
    best = max(points[number][0] for number in front)
    able = [number for number in front if points[number][0] >= best - TOLERANCE * abs(best)]
    chosen = min(able, key=lambda number: points[number][1])
    most_precise = max(points, key=lambda number: (points[number][0], -points[number][1]))
    for number in sorted(front, key=lambda n: points[n][1]):
        mark = " <- chosen" if number == found.best_trial else ""
        print(f"trial {number:>2}: average precision {points[number][0]:.4f}, "
              f"latency {points[number][1]:.3f} ms{mark}", flush=True)
    return Figure(
        name="pareto", unit="ms", ours=points[found.best_trial][1],
        reference=points[most_precise][1], reference_is="the most precise trial",
        goal="front and choice as computed anew; ratio <= 1",
        holds=sorted(front) == sorted(found.front) and found.best_trial == chosen
        and points[found.best_trial][1] <= points[most_precise][1],
        details={"data": kind, "trials": len(points), "front": sorted(front), "chosen": chosen,
                 "search_chose": found.best_trial, "search_front": sorted(found.front),
                 "points": {number: points[number] for number in sorted(front)},
                 "rule": tuning.choose},
    )
