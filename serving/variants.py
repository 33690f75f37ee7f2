"""The versions that a replica holds, and which of them answers a request."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .plan import Plan, bucket
from .tally import Tallies

if TYPE_CHECKING:
    from .answers import Request
    from .desk import Log
    from .model import Model
    from .shadow import Shadow


@dataclass(frozen=True)
class Routing:
    """A plan, put into force in this process. It is replaced as a whole, never changed: a request
    keeps to the one that it came under, so a model that leaves lives until it owes no answer."""

    plan: Plan
    models: Mapping[int, Model]
    champion: Model
    challenger: Model | None = None
    shadow: Shadow | None = None
    tallies: Tallies | None = None
    alone: bool = field(init=False)  # the champion answers all: nothing is to be chosen
    header: bytes = field(init=False)
    column: str = field(init=False)

    def __post_init__(self) -> None:
        plan, routed = self.plan, self.challenger is not None
        object.__setattr__(self, "alone", not routed)
        object.__setattr__(self, "column", plan.key if routed and plan.column else "")
        header = "" if plan.column else plan.key.lower()
        object.__setattr__(self, "header", header.encode("latin-1"))

    def choose(self, request: Request) -> Model:
        """The model that answers; by a column it is the champion until its rows are read."""
        if self.challenger is None or self.column:
            return self.champion
        if self.header:
            value = request.header(self.header)
            return self.by_key(value.decode("latin-1")) if value else self.champion
        return self.challenger if random.random() < self.plan.share else self.champion

    def by_values(self, values: Sequence[Any] | None) -> Model:
        """By a column's values in one request: rows that go together are answered together, so
        where they have no value or several, it is the champion."""
        keys = {_text(value) for value in values or ()}
        return self.by_key(keys.pop()) if len(keys) == 1 and None not in keys else self.champion

    def by_key(self, key: str | None) -> Model:
        if self.challenger is not None and key is not None and (
            bucket(self.plan.salt, key) < self.plan.share
        ):
            return self.challenger
        return self.champion


def _text(value: Any) -> str | None:
    """A key as it reads in every protocol: 7 and 7.0 are one."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return None if value is None else str(value)


class Variants:
    """What routes the requests of one replica: `now`, which `follow` replaces."""

    def __init__(self, plan: Plan, champion: Model) -> None:
        self.now = Routing(plan, {champion.version: champion}, champion)
        self._tell: Callable[[frozenset[tuple[int, str]]], None] = lambda variants: None
        self.log: Log | None = None

    def attach(self, tell: Callable[[frozenset[tuple[int, str]]], None], log: Log) -> None:
        """Have the versions told, with what each is for, now and after each change; and have what
        a shadow scores logged."""
        self._tell, self.log = tell, log
        self._told()

    def _told(self) -> None:
        self._tell(frozenset((v, model.variant) for v, model in self.now.models.items()))

    def follow(self, plan: Plan, loaded: Mapping[int, Model]) -> None:
        """Put as much of a plan into force as is loaded; without its champion, nothing."""
        from .shadow import Shadow

        champion = loaded.get(plan.champion.version)
        if champion is None:
            return
        models = {v.version: loaded[v.version] for v in plan.variants if v.version in loaded}
        roles = {v.role: models[v.version] for v in plan.variants if v.version in models}
        shadowed, old = roles.get("shadow"), self.now
        tallies, shadow = old.tallies, old.shadow
        if old.plan.id != plan.id:
            tallies = Tallies(plan.id) if plan.measured else None
        if shadow is None or shadow.model is not shadowed or old.champion is not champion:
            shadow = None if shadowed is None else Shadow(shadowed, champion, self)
        for variant in plan.variants:
            if variant.version in models:
                models[variant.version].scorer.variant = variant.role
        self.now = Routing(plan, models, champion, roles.get("challenger"), shadow, tallies)
        if old.shadow is not None and old.shadow is not shadow:
            old.shadow.close()
        self._told()

    def count(self, version: int, status: int, seconds: float) -> None:
        """An answer by a version, for the rollout's comparison."""
        tallies = self.now.tallies
        if tallies is not None:
            tallies.answer(version, status, seconds)
