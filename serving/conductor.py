"""Changes what a running service serves: takes commands, proves models, and leads rollouts.

All of it happens in the supervisor's loop, one `tick` after another. Work that takes a while is a
generator that yields while it waits, so that an abort is never kept waiting.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Generator
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from raymill.errors import ArtifactError, RaymillError, UsageError
from raymill.tracking.audit import Audit
from raymill.tracking.home import Home

from .aside import step_aside
from .mailbox import Ask, Mailbox
from .order import Order
from .plan import ACKS, GOLDEN, STATS, Plan, Variant, acks
from .proof import Proof
from .rollout import Decision, Rollout, Values
from .rollout_state import ENDED, RolloutStatus, read_rollout, write_rollout
from .sequential import Moments
from .tally import Tally, quantile_ms, together
from .terms import Terms

PROOF_S, LOAD_S, SWITCH_S, CROWN_S = 60.0, 60.0, 10.0, 60.0
KEEP_S = 600.0  # how long a former champion stays loaded, for a rollback
_LOOK_S, _VALUES_S = 1.0, 30.0
Work = Generator[None, None, None]
Crowning = Generator[None, None, dict[str, Any]]
CONTROLLER = "raymill"  # the actor of what happens by itself


class Conductor:
    """The plan of one service, and who may change it.

    `plan` is what the replicas follow. At most one piece of `work` and one rollout are under way.
    """

    def __init__(self, order: Order, values: Values | None = None) -> None:
        self._order, self._values = order, values
        self._folder, self._home = Path(order.folder), Path(order.home)
        for name in (ACKS, STATS, GOLDEN):
            (self._folder / name).mkdir(mode=0o700, exist_ok=True)
        self._mail = Mailbox(self._folder)
        self._audit = Audit(Home(self._home).audit)
        self._work: Work | None = None
        self._kind = ""
        self._asked: Ask | None = None  # by whom the work was
        self._firm = False  # the work must not be cut short
        self._rollout: Rollout | None = None
        self._status: RolloutStatus | None = None
        self._former: tuple[int, float] | None = None  # version, and until when it is kept
        self._looked = self._valued = 0.0
        self._worth: tuple[Moments, Moments] | None = None
        self.plan = Plan.first(order)
        self.plan.write(self._folder)
        left = read_rollout(self._home, order.name)
        if left is not None and left.state not in ENDED:
            write_rollout(self._home, left.but(state=ENDED[-1], ended=time.time()))

    # The loop

    def tick(self) -> None:
        """Take what was asked, go on with the work, look at the rollout."""
        try:
            self._tick()
        except Exception:  # noqa: BLE001 - like a full disk; the service must go on
            traceback.print_exc()

    def _tick(self) -> None:
        if not self._firm:
            for ask in self._mail.take():
                self._answer(ask)
        if self._work is not None:
            self._go_on()
        elif self._rollout is not None and time.monotonic() - self._looked >= _LOOK_S:
            self._looked = time.monotonic()
            self._look(self._rollout)
        if self._former is not None and self._work is None and time.monotonic() > self._former[1]:
            self._let_go()

    def _answer(self, ask: Ask) -> None:
        verbs: dict[str, Callable[[Ask], None]] = {
            "start": self._start, "pause": self._pause, "resume": self._resume,
            "abort": self._abort, "promote": self._promote, "rollback": self._rollback,
        }
        try:
            verbs[ask.verb](ask)
        except Exception as error:  # noqa: BLE001 - the asker's
            self._mail.refuse(ask, error)

    def _begin(self, kind: str, ask: Ask | None, work: Work) -> None:
        self._kind, self._asked, self._work, self._firm = kind, ask, work, False

    def _go_on(self) -> None:
        assert self._work is not None
        work = self._work
        try:
            next(work)
        except StopIteration:
            self._end_work(work)
        except Exception as error:  # noqa: BLE001 - the asker's, and the log's
            ask = self._asked
            self._end_work(work)
            if ask is not None:
                self._mail.refuse(ask, error)

    def _end_work(self, work: Work) -> None:
        if self._work is work:
            self._work, self._asked, self._firm = None, None, False

    # What may be asked

    def _start(self, ask: Ask) -> None:
        if self._work is not None or self._rollout is not None:
            raise self._busy()
        variant = self._variant_of(ask)
        if variant.version == self.plan.champion.version:
            raise UsageError(f"version {variant.version} is the champion that serves already")
        self._begin("rollout", ask, self._rolling_out(ask, variant))

    def _pause(self, ask: Ask) -> None:
        rollout = self._running()
        if rollout.paused:
            raise UsageError("the rollout is paused already")
        self._rollout = rollout.pause()
        self._note(ask.actor, "pause", state="paused", why=f"paused by {ask.actor}")
        self._mail.done(ask)

    def _resume(self, ask: Ask) -> None:
        rollout = self._running()
        if not rollout.paused:
            raise UsageError("the rollout is not paused")
        self._rollout = rollout.resume(time.monotonic())
        self._note(ask.actor, "resume", state="running", why="")
        self._mail.done(ask)

    def _abort(self, ask: Ask) -> None:
        why = ask.data.get("reason") or f"aborted by {ask.actor}"
        if self._work is not None and self._rollout is None:
            kind = self._kind
            self._cut("aborted")
            if kind == "rollout":
                self._note(ask.actor, "abort", state="aborted", why=why)
            else:
                self._audit.append(f"{kind} abort", ask.actor, name=self._order.name, why=why)
            self._mail.done(ask, version=self.plan.champion.version)
            return
        self._running()
        self._back("abort", "aborted", ask.actor, why)
        self._begin("abort", ask, self._switched(ask))

    def _promote(self, ask: Ask) -> None:
        variant = self._variant_of(ask)
        rolled = self._rollout is not None and self._status is not None and (
            self._status.version == variant.version)
        if self._work is not None or (self._rollout is not None and not rolled):
            raise self._busy()
        self._begin("promote", ask, self._promoting(ask, variant))

    def _rollback(self, ask: Ask) -> None:
        """Of the rollout, where one is under way; else of the champion."""
        if self._rollout is not None or self._work is not None:
            self._abort(ask)
            return
        former = None if self._former is None else self.plan.of(self._former[0])
        if "version" in ask.data:
            former = self._variant_of(ask)
        if former is None:
            self._mail.done(ask, needs="previous")
            return
        self._begin("rollback", ask, self._rolling_back(ask, former))

    # Work

    def _rolling_out(self, ask: Ask, variant: Variant) -> Work:
        terms = Terms(**ask.data["terms"] | {"shares": tuple(ask.data["terms"]["shares"])})
        self._status = RolloutStatus(
            name=self._order.name, mode=terms.mode, version=variant.version,
            champion=self.plan.champion.version, state="preparing", began=time.time(),
            steps=terms.shares, bake_s=terms.bake_s, key=ask.data["key"],
            why="golden rows are being checked")
        self._note(ask.actor, "start", mode=terms.mode, steps=terms.shares, key=ask.data["key"],
                   state="preparing")
        try:
            yield from self._prepared(ask, variant, bool(ask.data["accept_contract"]))
        except Exception as error:
            self._note(CONTROLLER, "refused", state="refused", why=str(error))
            raise
        self._rollout = Rollout(terms, time.monotonic())
        role = self.plan.with_role(variant, "shadow" if terms.mode == "shadow" else "challenger")
        key = str(ask.data["key"])
        self._put(replace(role, key=key, column=self._is_column(key), measured=True,
                          share=self._rollout.share, salt=f"{variant.version}:{variant.digest[:16]}"))
        self._note(CONTROLLER, "step", share=self._rollout.share, state="running", why="")
        yield from self._switched(ask)

    def _promoting(self, ask: Ask, variant: Variant) -> Work:
        known = self.plan.of(variant.version) is not None
        yield from self._prepared(ask, variant, bool(ask.data.get("accept_contract")))
        try:
            champion = yield from self._crowned(
                "promote", variant, ask.actor, str(ask.data.get("reason", "")))
        except RaymillError:
            if not known:
                self._put(self.plan.without(variant.version))
            raise
        if variant.version != self.plan.champion.version:
            self._reign(variant)
        if self._rollout is not None:
            self._rollout = None
            self._note(ask.actor, "complete", state="completed", why=f"promoted by {ask.actor}",
                       share=1.0)
        yield from self._switched(ask, champion=champion)

    def _rolling_back(self, ask: Ask, former: Variant) -> Work:
        """The service first: that is what hurts."""
        was = self.plan.champion
        if former.version == was.version:
            raise UsageError(f"version {was.version} is what serves already")
        yield from self._prepared(ask, former, accept=True)
        self._reign(former)
        yield from self._acknowledged(ask)
        self._mail.say(ask, f"version {former.version} answers in place of {was.version}")
        champion = yield from self._crowned(
            "rollback", former, ask.actor, str(ask.data.get("reason", "")))
        self._mail.done(ask, version=former.version, was=was.version, champion=champion)

    def _completing(self, variant: Variant) -> Work:
        try:
            yield from self._crowned("promote", variant, CONTROLLER, "its rollout completed")
        except RaymillError as error:
            self._tell(why=f"the registry can't be told: {error}")
            until = time.monotonic() + 10  # it goes on at 100 %, and is tried again
            while time.monotonic() < until:
                yield
            return
        self._reign(variant)
        self._rollout = None
        self._note(CONTROLLER, "complete", state="completed", why="no worse than the champion")

    def _prepared(self, ask: Ask, variant: Variant, accept: bool) -> Work:
        """Loaded by every replica, and right.

        Raises:
            RaymillError: it is refused; the plan is as it was.
        """
        known = self.plan.of(variant.version)
        if known is not None:
            if known.digest != variant.digest:
                raise ArtifactError(f"version {variant.version} is served with another digest")
            return
        order = self._order.of(variant)
        proof = Proof(order, Path(self.plan.champion.bundle), accept)
        try:
            proof.start()
            yield from self._until(lambda: proof.ended, PROOF_S,
                                   "it did not answer golden rows within {:g} s")
            proof.check()
            self._mail.say(ask, f"version {variant.version} answers golden rows as it must")
            self._put(self.plan.with_role(variant, "standby"))
            yield from self._until(lambda: self._is_loaded(variant.version), LOAD_S,
                                   "not every replica loaded it within {:g} s")
        except BaseException:
            proof.kill()
            if self.plan.of(variant.version) is not None:
                self._put(self.plan.without(variant.version))
            raise

    def _is_loaded(self, version: int) -> bool:
        """Raises ArtifactError where a replica refuses it."""
        all_ = acks(self._folder)
        for ack in all_:
            if version in ack.refused:
                raise ArtifactError(ack.refused[version])
        return all(ack.plan >= self.plan.id and version in ack.loaded for ack in all_)

    def _switched(self, ask: Ask, **more: Any) -> Work:
        """Answers the asker once every replica follows the plan."""
        yield from self._acknowledged(ask)
        self._mail.done(ask, version=self.plan.champion.version, **more)

    def _acknowledged(self, ask: Ask) -> Work:
        """A replica that does not follow in time is told of: the plan is in force all the same."""
        self._firm = True  # what was done is answered for before anything else is
        id_ = self.plan.id
        try:
            yield from self._until(
                lambda: all(ack.plan >= id_ for ack in acks(self._folder)), SWITCH_S,
                "not every replica followed within {:g} s")
        except RaymillError as error:
            self._mail.say(ask, str(error))

    def _crowned(self, action: str, variant: Variant, actor: str, reason: str) -> Crowning:
        """The registry's champion; not to be cut short. What the registry then says of it.

        Raises:
            RaymillError: the registry refuses, or can't be reached.
        """
        self._firm = True
        words = [str(self._folder / "order.json"), action, str(variant.version), actor, reason]
        with TemporaryFile("w+") as told:  # a pipe would be full some day
            process = subprocess.Popen([sys.executable, "-m", "raymill.serving.crown", *words],
                                       stdin=subprocess.DEVNULL, stdout=told, text=True)
            step_aside(process)
            try:
                yield from self._until(lambda: process.poll() is not None, CROWN_S,
                                       "the registry did not answer within {:g} s")
                told.seek(0)
                result = _last_line(told.read())
                if not result["ok"]:
                    raise RaymillError(f"the registry was not changed: {result['cause']}")
                return dict(result["champion"])
            finally:
                process.kill()
                process.wait()
                self._firm = False

    def _until(self, condition: Callable[[], bool], limit_s: float, told: str) -> Work:
        end = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > end:
                raise RaymillError(told.format(limit_s))
            yield

    # The rollout

    def _look(self, rollout: Rollout) -> None:
        assert self._status is not None
        sums = together(self._folder, self.plan.id)
        champion = sums.get(self.plan.champion.version, Tally())
        version = self._status.version
        challenger = sums.get(version, Tally())
        refused = [ack.refused[version] for ack in acks(self._folder) if version in ack.refused]
        if refused:
            self._back("rolled back", "rolled back", CONTROLLER, f"a replica: {refused[0]}")
            return
        decision = rollout.look(time.monotonic(), champion, challenger, self._worths())
        self._tell(
            why=decision.why, labels=self._worth is not None,
            findings=[asdict(each) for each in decision.findings],
            counts={str(v): _seen(t) for v, t in sums.items()})
        self._decide(rollout, decision, champion)

    def _decide(self, rollout: Rollout, decision: Decision, champion: Tally) -> None:
        assert self._status is not None
        if decision.what == "back":
            self._back("rolled back", "rolled back", CONTROLLER, decision.why)
        elif decision.what == "step":
            self._rollout = rollout.next(time.monotonic(), champion)
            self._put(replace(self.plan, share=self._rollout.share))
            self._note(CONTROLLER, "step", share=self._rollout.share, why="")
        elif decision.what == "complete":
            variant = self.plan.of(self._status.version)
            assert variant is not None
            self._begin("complete", None, self._completing(variant))

    def _worths(self) -> tuple[Moments, Moments] | None:
        """(champion's, challenger's) values, looked up now and then."""
        if self._values is not None and time.monotonic() - self._valued > _VALUES_S:
            assert self._status is not None
            self._valued = time.monotonic()
            found = self._values.since(self._status.began, Path(self.plan.champion.bundle))
            old = found.get(self.plan.champion.version)
            new = found.get(self._status.version)
            self._worth = None if old is None or new is None else (old, new)
        return self._worth

    def _back(self, action: str, state: str, actor: str, why: str) -> None:
        """All requests to the champion, at once."""
        assert self._status is not None
        self._rollout, self._worth = None, None
        self._put(replace(self.plan.without(self._status.version), share=0.0, key="", salt="",
                          column=False, measured=False))
        self._note(actor, action, state=state, why=why, share=0.0)

    def _reign(self, variant: Variant) -> None:
        """`variant` is the champion; the one before stays loaded for a while."""
        was = self.plan.champion
        plan = self.plan.with_role(was, "standby").with_role(variant, "champion")
        self._former = (was.version, time.monotonic() + KEEP_S)
        kept = tuple(v for v in plan.variants if v.version in (variant.version, was.version))
        self._put(replace(plan, variants=kept, share=0.0, key="", salt="", column=False,
                          measured=False))

    def _let_go(self) -> None:
        assert self._former is not None
        variant = self.plan.of(self._former[0])
        self._former = None
        if variant is not None and variant.role == "standby":
            self._put(self.plan.without(variant.version))

    # Small things

    def _cut(self, why: str) -> None:
        """End work that only prepares."""
        work, ask = self._work, self._asked
        assert work is not None
        work.close()
        self._end_work(work)
        if ask is not None:
            self._mail.refuse(ask, RaymillError(f"it was {why} meanwhile"))

    def _put(self, plan: Plan) -> None:
        self.plan = replace(plan, id=self.plan.id + 1)
        self.plan.write(self._folder)

    def _running(self) -> Rollout:
        if self._rollout is None:
            raise UsageError(f"no rollout of {self._order.name} is under way",
                             cure=f"raymill rollout {self._order.name}@challenger --canary begins one.")
        return self._rollout

    def _busy(self) -> UsageError:
        version = self._status.version if self._status is not None else "another version"
        return UsageError(f"a change to {version} of {self._order.name} is under way",
                          cure=f"End it by raymill rollout abort {self._order.name}.")

    def _variant_of(self, ask: Ask) -> Variant:
        own = self._order.tracking or Home(self._home).tracking_uri
        if (ask.data.get("tracking") or own) != own:
            raise UsageError(f"{self._order.name} is served from another registry than --tracking",
                             cure="Leave it out.")
        return Variant(int(ask.data["version"]), str(ask.data["digest"]), str(ask.data["bundle"]),
                       "standby")

    def _is_column(self, key: str) -> bool:
        contract = json.loads((Path(self.plan.champion.bundle) / "contract.json").read_text())
        return key in contract["columns"] or key in contract["drop"]

    def _note(self, actor: str, action: str, **data: Any) -> None:
        """An entry of the audit log, and the status."""
        assert self._status is not None
        self._tell(**{k: v for k, v in data.items() if k in ("state", "why", "share")})
        if self._status.state in ENDED:
            self._tell(ended=time.time())
        self._audit.append(f"rollout {action}", actor, name=self._order.name,
                           version=self._status.version, champion=self.plan.champion.version, **data)

    def _tell(self, **changes: Any) -> None:
        assert self._status is not None
        self._status = self._status.but(**changes)
        write_rollout(self._home, self._status)


def _last_line(text: str) -> dict[str, Any]:
    """What `crown` says, which may be warned of something before."""
    lines = text.splitlines()
    found: dict[str, Any] = json.loads(lines[-1]) if lines else {"ok": False, "cause": "it died"}
    return found


def _seen(tally: Tally) -> dict[str, Any]:
    return {"requests": tally.requests, "failed": tally.failed,
            "p50_ms": quantile_ms(tally.slow, 0.5), "p95_ms": quantile_ms(tally.slow, 0.95),
            "copies": tally.copies, "agreed": tally.agreed, "dropped": tally.dropped}
