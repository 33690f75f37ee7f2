"""Keeps a replica at the service's plan, loads what it lacks beside what answers, and says so."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raymill.errors import RaymillError

from .aside import aside
from .plan import GOLDEN, PLAN, Ack, Plan, Variant, missing_share
from .variants import Variants

if TYPE_CHECKING:
    from .model import Model

MOST_SHARE = 4
"""A replica holds so many times `max_waiting` at most, however many others are missing."""
_POLL_S = 0.1
_log = logging.getLogger("raymill.serving")
Make = Callable[[Variant, dict[str, Any] | None], "Model"]
"""Loads a version; the answers that it must give to golden rows, where they were worked out."""


class Follower:
    """What a replica of a supervised service does beside answering.

    `start` loads all of the plan before the replica is ready; a version that can't be loaded is
    refused in the replica's ack, unless it is the champion.
    """

    def __init__(self, folder: Path, make: Make) -> None:
        self._folder, self._make = folder, make
        self._loaded: dict[int, Model] = {}
        self._refused: dict[int, str] = {}
        self._loading = set[int]()
        self._lock = threading.Lock()
        self._seen: object = None
        self._told: Ack | None = None

    def start(self, plan: Plan) -> Variants:
        """The variants of the plan, loaded.

        Raises:
            Exception: the champion can't be loaded.
        """
        self._plan = aside(lambda: self._load_all(plan))
        self._variants = Variants(plan, self._loaded[plan.champion.version])
        self._variants.follow(self._plan, self._loaded)
        self._acknowledge()
        threading.Thread(target=self._run, name="follower", daemon=True).start()
        return self._variants

    def _load_all(self, plan: Plan) -> Plan:
        """Loads until the plan stays what it is; that one."""
        champion = plan.champion
        self._loaded[champion.version] = self._made(champion)
        while True:
            for variant in plan.variants:
                self._load(variant)
            newest = Plan.read(self._folder) or plan
            if newest.id == plan.id:
                return plan
            plan = newest

    def _run(self) -> None:
        while True:
            threading.Event().wait(_POLL_S)
            try:
                self._look()
            except Exception as error:  # noqa: BLE001 - it must go on following
                if not self._folder.exists():
                    return  # its supervisor was killed, and there are no more plans
                _log.error("following the plan: %s: %s", type(error).__name__, error)

    def _look(self) -> None:
        stat = (self._folder / PLAN).stat()
        if self._seen != (stat.st_ino, stat.st_mtime_ns):
            plan = Plan.read(self._folder)
            if plan is not None and plan.id >= self._plan.id:
                self._plan = plan
                self._put_in_force()
            self._seen = (stat.st_ino, stat.st_mtime_ns)
        for variant in self._plan.variants:
            if variant.version not in (*self._loaded, *self._refused, *self._loading):
                self._loading.add(variant.version)
                threading.Thread(target=self._load_beside, args=(variant,), name="load",
                                 daemon=True).start()
        self._make_room()
        tallies = self._variants.now.tallies
        if tallies is not None:
            tallies.write(self._folder)

    def _make_room(self) -> None:
        """Replicas that are missing leave their requests to this one: let it hold more."""
        share = min(missing_share(self._folder), MOST_SHARE)
        for model in list(self._loaded.values()):
            model.batcher.share = share

    def _load_beside(self, variant: Variant) -> None:
        self._load(variant)
        self._loading.discard(variant.version)
        self._put_in_force()

    def _put_in_force(self) -> None:
        with self._lock:
            plan = self._plan
            wanted = {v.version: v.digest for v in plan.variants}
            for version in [v for v in self._loaded if v not in wanted]:
                del self._loaded[version]
            for version in [v for v in self._refused if v not in wanted]:
                del self._refused[version]
            self._variants.follow(plan, self._loaded)
            self._acknowledge()

    def _load(self, variant: Variant) -> None:
        if variant.version in self._loaded or variant.version in self._refused:
            return
        try:
            self._loaded[variant.version] = self._made(variant)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the cause of a refusal
            told = str(error) if isinstance(error, RaymillError) else repr(error)
            self._refused[variant.version] = told
            _log.error("version %d is refused: %s", variant.version, told)

    def _made(self, variant: Variant) -> Model:
        path = self._folder / GOLDEN / f"{variant.version}.json"
        expected = json.loads(path.read_text())["answers"] if path.exists() else None
        return self._make(variant, expected)

    def _acknowledge(self) -> None:
        ack = Ack(self._plan.id, tuple(sorted(self._loaded)), dict(self._refused))
        if ack != self._told:
            ack.write(self._folder)
            self._told = ack
