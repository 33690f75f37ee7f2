"""Decides how a rollout goes on: by a clock and by counts alone, without a service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

from .sequential import LEAST, Moments, exceeds, upper_edge
from .tally import EDGES, Tally
from .terms import Terms

ALPHA = 0.05
"""The chance, over a whole rollout and however often it is looked at, that an equal model is taken
for a worse one."""
TAIL, TIMES, MORE = 0.95, 1.5, 0.05
"""An answer is slow beyond `TIMES` the champion's 95th percentile; the challenger may have a share
of them that is `MORE` larger."""


class Values(Protocol):
    """What answers turned out to be worth, once their true labels came back."""

    def since(self, began: float, bundle: Path) -> Mapping[int, Moments]:
        """By version, of answers given after `began` (epoch seconds); larger is better. `bundle`
        is the champion's: what an answer is worth is said there."""
        ...


@dataclass(frozen=True)
class Finding:
    """One comparison: what is seen, and whether it is shown that the challenger is worse."""

    name: str
    text: str
    worse: bool


@dataclass(frozen=True)
class Decision:
    """`stay`, `step` (to the next share), `complete` or `back`, and why."""

    what: Literal["stay", "step", "complete", "back"]
    why: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Rollout:
    """A rollout at one of its steps; `at` counts them from 0.

    `before` is the champion's tally of the step before: what a step of 100 % is compared with.
    """

    terms: Terms
    since: float
    at: int = 0
    paused: bool = False
    before: Tally | None = None

    @property
    def share(self) -> float:
        return self.terms.shares[self.at] if self.terms.shares else 0.0

    @property
    def last(self) -> bool:
        return self.at >= len(self.terms.shares) - 1

    def next(self, now: float, champion: Tally) -> Rollout:
        """At the following step."""
        return replace(self, at=self.at + 1, since=now, before=champion)

    def pause(self) -> Rollout:
        return replace(self, paused=True)

    def resume(self, now: float) -> Rollout:
        """The step that it was paused at begins anew."""
        return replace(self, paused=False, since=now)

    def look(
        self, now: float, champion: Tally, challenger: Tally,
        values: tuple[Moments, Moments] | None = None,
    ) -> Decision:
        """What to do now.

        Args:
            champion, challenger: the sums of this step. values: theirs; None: no labels.
        """
        old = self.before if self.share == 1.0 and self.before is not None else champion
        found = self._findings(old, challenger, values)
        shown = [finding for finding in found if finding.worse]
        if shown and self.terms.mode != "shadow":
            return Decision("back", "; ".join(f"{f.name}: {f.text}" for f in shown), found)
        wait = self._wait(now, challenger)
        if wait:
            return Decision("stay", wait, found)
        return Decision("complete" if self.last else "step", "no worse than the champion", found)

    def _wait(self, now: float, challenger: Tally) -> str:
        if self.terms.mode == "shadow":
            return "a shadow stays until it is aborted or promoted"
        if self.last and self.share < 1.0:
            return f"stays at {self.share:.0%} until it is aborted or promoted"
        if self.paused:
            return "paused"
        left = self.terms.bake_s - (now - self.since)
        if left > 0:
            return f"bakes {left:.0f} s more"
        missing = self.terms.least - challenger.requests
        return f"waits for {missing} more requests of the challenger" if missing > 0 else ""

    def _findings(
        self, old: Tally, new: Tally, values: tuple[Moments, Moments] | None
    ) -> tuple[Finding, ...]:
        alpha = ALPHA / self.terms.compared / 4  # four kinds of comparison
        found = [_errors(old, new, alpha), _latency(old, new, alpha),
                 *_drift(old, new, self.terms.drift, alpha), _value(values, alpha)]
        return tuple(each for each in found if each is not None)


def _errors(old: Tally, new: Tally, alpha: float) -> Finding:
    a, b = old.failures, new.failures
    text = f"{b.mean:.2%} of {b.count} failed, {a.mean:.2%} of {a.count} of the champion's"
    return Finding("errors", text, exceeds(b, a, 0.0, alpha))


def _latency(old: Tally, new: Tally, alpha: float) -> Finding | None:
    if sum(old.slow) < LEAST or not sum(new.slow):
        return None
    edge = TIMES * upper_edge(old.slow, EDGES, TAIL)
    a, b = old.slower_than(edge), new.slower_than(edge)
    text = (f"{b.mean:.1%} of {b.count} answers took more than {1000 * edge:.3g} ms, {a.mean:.1%} "
            "of the champion's")
    return Finding("latency", text, exceeds(b, a, MORE, alpha))


def _drift(old: Tally, new: Tally, most: float, alpha: float) -> list[Finding]:
    found = []
    for name in sorted(old.sums.keys() & new.sums.keys()):
        a, b = old.output(name), new.output(name)
        spread = a.variance**0.5
        moved = (b.mean - a.mean) / spread if spread else 0.0
        worse = spread > 0 and any(
            exceeds(more, less, most * spread, alpha / 2 / len(old.sums))
            for more, less in ((a, b), (b, a)))
        text = (f"the mean of {name} is {b.mean:.4g}, the champion's {a.mean:.4g}: "
                f"{moved:+.2f} standard deviations, and {most:g} are allowed")
        found.append(Finding("drift", text, worse))
    return found


def _value(values: tuple[Moments, Moments] | None, alpha: float) -> Finding | None:
    if values is None:
        return None
    a, b = values
    text = f"{b.mean:.4g} an answer of {b.count} labelled, {a.mean:.4g} of {a.count} of the champion's"
    return Finding("value", text, exceeds(a, b, 0.0, alpha))
