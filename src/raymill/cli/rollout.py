"""`raymill rollout`: a new version beside the champion, under load."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from raymill.errors import EXIT_OK, EXIT_REFUSED, UsageError
from raymill.specs import seconds
from raymill.tracking.environment import user
from raymill.tracking.home import Home

from .output import emit_json, emit_table

_WORDS = ("status", "pause", "resume", "abort")
_ENDED_BADLY = ("rolled back", "aborted", "refused")


def rollout_verb(options: argparse.Namespace) -> int:
    """Begin a rollout, or see to the one that is under way."""
    most = 1 if options.what in _WORDS else 0
    if len(options.more) > most:
        raise UsageError(f"rollout takes one NAME, but got {' '.join(options.more)}")
    if options.what == "status":
        return _status(options)
    if options.what in _WORDS:
        return _tell(options)
    return _begin(options)


def _begin(options: argparse.Namespace) -> int:
    from raymill.serving import change

    how = change.terms(
        canary=_share(options.canary), shadow=options.shadow, ab=options.ab,
        share=_share(options.share), bake_s=_time(options.bake), least=options.least,
        drift=options.drift)
    name = options.what.partition("@")[0].partition(":")[0]
    home = Home.find()
    service = _service(home, name)
    from raymill.tracking.registry import Registry

    ref = options.what if options.what != name else f"{name}@challenger"
    registry = Registry(options.tracking or home.tracking_uri, home)
    change.begin(service, registry.resolve(ref), how, key=options.ab or "",
                 accept_contract=options.accept_contract, tracking=options.tracking or "",
                 actor=user(), said=_say)
    return _status(argparse.Namespace(**vars(options) | {"more": [name]}))


def _tell(options: argparse.Namespace) -> int:
    from raymill.serving import change

    if not options.more:
        raise UsageError(f"whose rollout? raymill rollout {options.what} NAME")
    home = Home.find()
    service = _service(home, options.more[0])
    if options.what == "pause":
        change.pause(service, user(), _say)
    elif options.what == "resume":
        change.resume(service, user(), _say)
    else:
        change.abort(service, user(), options.reason, _say)
    return _status(options)


def _status(options: argparse.Namespace) -> int:
    """With `--watch` until the rollout has ended; then 3, unless it completed."""
    from raymill.serving.rollout_state import ENDED, read_rollout, rollouts

    home, told = Home.find().path, ""
    name = options.more[0] if options.more else None
    while True:
        found = rollouts(home) if name is None else [
            status for status in [read_rollout(home, name)] if status is not None]
        ended = all(status.state in ENDED for status in found)
        now = str([(s.state, s.share, s.why if s.state in ENDED else "") for s in found])
        if not options.watch or (now != told and not options.json) or (ended and options.json):
            _show(options, found)
            told = now
        if not options.watch or ended:
            badly = options.watch and any(status.state in _ENDED_BADLY for status in found)
            return EXIT_REFUSED if badly else EXIT_OK
        time.sleep(1)


def _show(options: argparse.Namespace, found: list[Any]) -> None:
    if options.json:
        emit_json({"ok": True, "rollouts": [status.to_dict() for status in found]})
        return
    if not found:
        print("there is no rollout; begin one: raymill rollout NAME@challenger --canary 1%")
        return
    emit_table("rollouts", ["name", "version", "champion", "how", "state", "share", "why"], [
        [s.name, s.version, s.champion, s.mode + (f" by {s.key}" if s.key else ""), s.state,
         f"{s.share:.0%}", s.why] for s in found])
    for status in found:
        for version, seen in sorted(status.counts.items()):
            copies = (f", {seen['agreed']} of {seen['copies']} copies as the champion, "
                      f"{seen['dropped']} dropped" if seen["copies"] or seen["dropped"] else "")
            print(f"  version {version}: {seen['requests']} requests, {seen['failed']} failed, p50 "
                  f"{seen['p50_ms']:.3g} ms, p95 {seen['p95_ms']:.3g} ms{copies}")
        for each in status.findings:
            print(f"  {each['name']}{' (worse)' if each['worse'] else ''}: {each['text']}")
        if status.findings and not status.labels:
            print("  value: no labels have come back")


def _service(home: Home, name: str) -> Any:
    from raymill.serving import change

    service = change.running(home.path, name)
    if service is None:
        raise UsageError(f"no service called {name!r} is ready",
                         cure=f"Start it: raymill serve {name} --detach.")
    return service


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _share(text: str | None) -> float | None:
    """`10%` or `0.1`."""
    if text is None:
        return None
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        raise UsageError(f"a share is like 10%, but got {text!r}") from None
    return value / 100 if text.endswith("%") else value


def _time(text: str) -> float:
    try:
        return seconds(text)
    except ValueError as error:
        raise UsageError(f"--bake: {error}") from None
