"""What an evaluation says in plain words, for the report and the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .formats import exact, label
from .gates import better
from .results import Evaluation, maximised

RIVALS = {
    "constant": "a constant answer", "linear": "a linear model",
    "boosting": "scikit-learn's gradient boosting", "champion": "the champion",
}
_TRIES = {
    "constant": [
        "Look for a target that the columns can't tell, or rows split so that test differs from "
        + "training: see the data section and the split in the spec.",
        "Lower training.lr, and read the learning curves for a loss that never falls.",
    ],
    "linear": [
        "Train a smaller or more regularised model: lower model.width and model.depth, raise "
        + "model.dropout and training.weight_decay, or take model.family: linear.",
        "Search wider: raise tuning.trials.",
    ],
    "boosting": [
        "Search longer: raise tuning.trials and training.epochs; "
        + "the trials in the report show whether the search was still gaining.",
        "Try model.numeric_embedding: periodic or piecewise and a larger model.width: trees find "
        + "steps in single columns that a plain network smooths over.",
        "Add rows where you can: the gap between networks and trees shrinks with data.",
    ],
    "champion": ["Keep the champion. More trials or fresher training data may close the gap."],
}
_TREE_TRIES = {
    "linear": [
        "Grow smaller or more regularised trees: lower model.leaves, raise model.min_rows and "
        + "model.l2, or take model.family: linear.",
        "Search wider: raise tuning.trials.",
    ],
    "boosting": [
        "Search longer: raise tuning.trials and training.epochs.",
        "Lower model.learning_rate and raise model.min_rows: more and slower trees.",
        "Look for columns that the data has at the time of the question and the model is not shown.",
    ],
}
_IMAGE_TRIES = [
    "Search longer and train for more epochs: raise tuning.trials and training.epochs.",
    "Raise model.channels or model.blocks; set model.flip where mirrored images mean the same.",
]


@dataclass(frozen=True)
class Finding:
    """A rival that is better than the model: the fact, and what to try."""

    title: str
    text: str
    tries: list[str]


def _percent(evaluation: Evaluation) -> str:
    return f"{100 * evaluation.confidence:g} %"


def findings(evaluation: Evaluation, family: str, images: bool = False) -> list[Finding]:
    """One for each rival that is better than the model, which is of `family`, best first."""
    return [_finding(name, evaluation, family, images) for name in better(evaluation)]


def _tries(rival: str, family: str, images: bool) -> list[str]:
    if family == "gbdt" and rival in _TREE_TRIES:
        return _TREE_TRIES[rival]
    if images and rival in ("boosting", "linear"):
        return _IMAGE_TRIES
    return _TRIES.get(rival, [])


def _finding(name: str, evaluation: Evaluation, family: str, images: bool) -> Finding:
    metric, rival = evaluation.metric, evaluation.rivals[name]
    gap = rival.difference[metric]
    more = "above" if rival.metrics[metric].value > evaluation.headline.value else "below"
    low, high = sorted((abs(gap.low), abs(gap.high)))
    if gap.clear:
        sure = f"between {exact(low)} and {exact(high)}, so chance does not explain it"
    else:
        sure = (
            f"{exact(-gap.high, sign=True)} to {exact(-gap.low, sign=True)} for it: the two can't "
            "be told apart on these rows"
        )
    who = RIVALS.get(name, name)
    text = (
        f"{who[0].upper()}{who[1:]} reaches {label(metric)} {exact(rival.metrics[metric].value)}, "
        f"which is {exact(abs(gap.value))} {more} the model's "
        f"{exact(evaluation.headline.value)} on the same {evaluation.rows:,} test rows. The "
        f"{_percent(evaluation)} interval of the difference is {sure}."
    )
    verb = "is better than this model" if gap.clear else "is level with this model, or better"
    tries = [*_tries(name, family, images), *_alternative(name, gap.clear)]
    return Finding(f"{who[0].upper()}{who[1:]} {verb}", text, tries)


def _alternative(name: str, clear: bool) -> list[str]:
    if name == "boosting" and clear:
        return [
            "If none of this closes the gap, use gradient boosting here: it is the right tool "
            + "where it wins."
        ]
    return []


def summary(evaluation: Evaluation) -> str:
    """One sentence on the headline and where the model stands among its rivals."""
    metric, own = evaluation.metric, evaluation.headline
    text = (
        f"On {evaluation.rows:,} test rows that neither training nor search saw, the model reaches "
        f"{label(metric)} {exact(own.value)} ({_percent(evaluation)} interval "
        f"{exact(own.low)} to {exact(own.high)}; "
        f"{'more' if maximised(metric) else 'less'} is better)."
    )
    beaten = [name for name, rival in evaluation.rivals.items() if rival.loses(metric)]
    if beaten:
        clear = [n for n in beaten if evaluation.rivals[n].difference[metric].clear]
        text += f" It beats {_join([RIVALS.get(n, n) for n in beaten])}"
        text += "." if len(clear) == len(beaten) else _unclear(beaten, clear)
    return text


def _unclear(beaten: Sequence[str], clear: Sequence[str]) -> str:
    rest = [RIVALS.get(n, n) for n in beaten if n not in clear]
    return f", though over {_join(rest)} the lead is small enough to be chance."


def _join(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
