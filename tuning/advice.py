"""What a finished search says in plain words: what mattered, and what to try next."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .importance import ENOUGH, Importances
from .records import SearchResult, TrialRecord
from .spec import Dimension
from .walk import flat

AT_BOUND = 0.04  # of a range, by its logarithm where that is searched
LITTLE = 0.05  # a share under which a field may be fixed
LATE = 0.25  # of the trials: the best among these means that the search was still gaining
FEWEST = 8  # trials from which plateaus are told


@dataclass(frozen=True)
class Advice:
    """A finding in a sentence, and what to do about it; `do` is empty where nothing is."""

    found: str
    do: str = ""

    def to_dict(self) -> dict[str, str]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.found}: {self.do}" if self.do else self.found


def advise(result: SearchResult, importances: Importances, epochs: int) -> list[Advice]:
    """The findings, the most useful first; `epochs` are those of a whole trial."""
    return [
        *_mattered(importances),
        *_bounds(result),
        *_little(result, importances),
        *_gaining(result),
        *_pruned(result.trials, epochs),
        *_failures(result.trials),
    ]


def _mattered(importances: Importances) -> Iterator[Advice]:
    top = [(name, share) for name, share in importances.shares.items() if share >= LITTLE][:3]
    if not top:
        if importances.note:
            yield Advice(importances.note)
        return
    text = ", then ".join(f"{name} ({share:.0%})" for name, share in top)
    hint = f" ({importances.note})" if importances.note else ""
    yield Advice(f"what mattered most was {text}{hint}")


def _bounds(result: SearchResult) -> Iterator[Advice]:
    """The best trial lies at an end of a range, as do most of the best few."""
    ranked = _ranked(result)
    few = ranked[: max(3, len(ranked) // 5)]
    for _, field, dimension in flat(result.space):
        value = result.best_params.get(field)
        if dimension.choice is not None or not isinstance(value, int | float):
            continue
        end = _end(dimension, float(value))
        near = [_end(dimension, float(t.params[field])) for t in few if field in t.params]
        if not end or len(near) < 2 or near.count(end) * 2 < len(near):
            continue
        bound = dimension.low if end == "low" else dimension.high
        wider = _wider(dimension, end)
        yield Advice(f"the best {field}, {_short(value)}, lies at the {end} bound of its range "
                     f"({_short(bound)}), as do most of the best trials",
                     f"widen it, {end}: {_short(wider)}" if wider is not None else
                     "widen it if the field allows")


def _end(dimension: Dimension, value: float) -> str:
    low, high = float(dimension.low or 0), float(dimension.high or 0)
    if dimension.integer:
        return "low" if value == low else "high" if value == high else ""
    if dimension.log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    share = (value - low) / (high - low)
    return "low" if share <= AT_BOUND else "high" if share >= 1 - AT_BOUND else ""


def _wider(dimension: Dimension, end: str) -> float | int | None:
    """A third of the range more, by the logarithm where that is searched; never across zero."""
    low, high = float(dimension.low or 0), float(dimension.high or 0)
    if dimension.log:
        factor: float = (high / low) ** (1 / 3)
        wider = low / factor if end == "low" else high * factor
    else:
        wider = low - (high - low) / 3 if end == "low" else high + (high - low) / 3
        if low >= 0 > wider:
            return None if low == 0 else 0
    if dimension.integer:
        return math.floor(wider) if end == "low" else math.ceil(wider)
    return float(f"{wider:.2g}")


def _little(result: SearchResult, importances: Importances) -> Iterator[Advice]:
    if importances.trials < ENOUGH:
        return
    small = [name for name, share in importances.shares.items()
             if share < LITTLE and name in result.best_params]
    if small:
        values = ", ".join(f"{name}: {_short(result.best_params[name])}" for name in small)
        yield Advice(f"{' and '.join(small)} decided little (under {LITTLE:.0%} each)",
                     f"fix what you do not need to search, as the best trial has it ({values})")


def _gaining(result: SearchResult) -> Iterator[Advice]:
    """Whether the last trials still brought something."""
    done = [trial for trial in sorted(result.trials, key=lambda t: t.number)
            if trial.value is not None]
    if len(done) < FEWEST:
        return
    better = max if result.maximize else min
    best = better(_value(trial) for trial in done)
    at = next(place for place, trial in enumerate(done, 1) if _value(trial) == best)
    late = len(done) - round(len(done) * LATE)
    if at > late:
        gained = abs(best - better(_value(trial) for trial in done[:late]))
        yield Advice(f"the search was still gaining: the best came as trial {at} of {len(done)}, "
                     f"{gained:.2g} better than the first {late}",
                     "more trials are likely to help (raise tuning.trials: they go on from here)")
    elif at <= len(done) // 2:
        yield Advice(f"a plateau: the best came as trial {at} of {len(done)}, and the "
                     f"{len(done) - at} after it brought nothing",
                     "more trials of this space are unlikely to help; change the space or the data")


def _pruned(trials: Sequence[TrialRecord], epochs: int) -> Iterator[Advice]:
    pruned = [trial for trial in trials if trial.state == "pruned"]
    if not pruned:
        return
    ran = sum(len(trial.values) for trial in trials)
    whole = epochs * sum(trial.state != "failed" for trial in trials)
    text = (f"{len(pruned)} of {len(trials)} trials were stopped early; {ran:,} of the "
            f"{whole:,} epochs that whole trials would have taken were run ({ran / whole:.0%})")
    if len(pruned) > 0.9 * len(trials) and len(trials) >= FEWEST:
        yield Advice(text, "if good trials start slowly, raise tuning.grace_epochs")
    else:
        yield Advice(text)


def _failures(trials: Sequence[TrialRecord]) -> Iterator[Advice]:
    failed = Counter(trial.cause or "no cause was kept" for trial in trials
                     if trial.state == "failed")
    for cause, count in failed.most_common(5):
        yield Advice(f"{count} of {len(trials)} trials failed", cause)


def _ranked(result: SearchResult) -> list[TrialRecord]:
    known = [trial for trial in result.trials if trial.value is not None]
    return sorted(known, key=_value, reverse=result.maximize)


def _value(trial: TrialRecord) -> float:
    assert trial.value is not None
    return trial.value


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def rungs(trials: Sequence[Mapping[str, Any]], levels: Sequence[int],
          maximize: bool) -> list[dict[str, Any]]:
    """How many trials reached each of the epochs at which a scheduler decides, how many it stopped
    there, and the best value by then."""
    rows = []
    for level in levels:
        curves = [t["values"] for t in trials if t["values"]]
        reached = [[v for e, v in c.items() if int(e) <= level] for c in curves
                   if max(map(int, c)) >= level]
        stopped = sum(t["state"] == "pruned" and max(map(int, t["values"]), default=0) == level
                      for t in trials)
        if reached:
            pick = max if maximize else min
            rows.append({"epoch": level, "reached": len(reached), "stopped": stopped,
                         "best": pick(pick(values) for values in reached)})
    return rows


def levels(grace: int, factor: float, epochs: int) -> list[int]:
    """The epochs at which successive halving decides: grace, grace x factor, ... and the last."""
    found = []
    level = float(min(grace, epochs))
    while int(level) < epochs:
        found.append(int(level))
        level *= factor
    return [*dict.fromkeys(found), epochs]
