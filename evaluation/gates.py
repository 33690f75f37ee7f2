"""The gates of a spec against an evaluation: what passed, what did not, and why."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass

from .formats import exact, interval
from .results import Evaluation, maximised
from .rules import Beats, Bound, parse_gate

_SIGNS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
BASELINE = ("constant", "linear")  # what `beats: baseline` means


@dataclass(frozen=True)
class Verdict:
    """One gate's outcome; `why` is one sentence with the numbers."""

    gate: str
    passed: bool
    why: str


def judge(gates: Sequence[str], evaluation: Evaluation) -> list[Verdict]:
    """Each gate's verdict, in order. Point estimates decide; the sentence gives the interval.

    A rival that could not be compared refuses its gate, except a champion there isn't yet.

    Raises:
        ValueError: a gate that can't be read (specs are checked earlier).
    """
    return [_judge(parse_gate(gate), evaluation) for gate in gates]


def _judge(gate: Bound | Beats, evaluation: Evaluation) -> Verdict:
    if isinstance(gate, Bound):
        return _bound(gate, evaluation)
    rivals = BASELINE if gate.rival == "baseline" else (gate.rival,)
    passes, whys = zip(*(_beats(rival, evaluation) for rival in rivals), strict=True)
    return Verdict(gate.text, all(passes), "; ".join(whys))


def _bound(gate: Bound, evaluation: Evaluation) -> Verdict:
    if gate.measure not in evaluation.metrics and gate.measure not in evaluation.footprint:
        why = f"{gate.measure} is not measured for a {evaluation.task} task"
        return Verdict(gate.text, False, why)
    value = evaluation.measure(gate.measure)
    passed = bool(_SIGNS[gate.sign](value, gate.limit))
    why = f"{gate.measure} is {exact(value)}"
    if (estimate := evaluation.metrics.get(gate.measure)) is not None:
        why += f" {interval(estimate)}"
    return Verdict(gate.text, passed, why if passed else f"{why}, not {gate.sign} {gate.limit:g}")


def _beats(rival: str, evaluation: Evaluation) -> tuple[bool, str]:
    metric = evaluation.metric
    if rival not in evaluation.rivals:
        if rival in evaluation.skipped:
            return False, f"{rival} could not be compared: {evaluation.skipped[rival]}"
        return rival == "champion", f"there is no {rival} to compare with"
    other = evaluation.rivals[rival]
    gap, passed = other.difference[metric], other.loses(metric)
    side = "better than" if passed else "the same as" if gap.value == 0 else "worse than"
    sure = "" if gap.clear else ", a difference that chance could make"
    return passed, (
        f"{metric} {exact(evaluation.headline.value)} is {side} {rival}'s "
        f"{exact(other.metrics[metric].value)} (difference {exact(gap.value, sign=True)} "
        f"{interval(gap, sign=True)}{sure})"
    )


def better(evaluation: Evaluation) -> list[str]:
    """Rivals that are better than the model on its metric, best first."""
    metric = evaluation.metric
    ahead = [
        name for name, rival in evaluation.rivals.items()
        if not rival.loses(metric) and rival.difference[metric].value != 0
    ]
    return sorted(
        ahead, key=lambda name: evaluation.rivals[name].metrics[metric].value,
        reverse=maximised(metric),
    )
