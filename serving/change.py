"""What a user may ask of a running service: a rollout, another champion, the one before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from raymill.errors import UsageError

from . import state
from .mailbox import ask
from .order import ModelVersionLike
from .state import ServiceStatus
from .terms import LADDER, Terms, ladder

Said = Callable[[str], None]
_PREPARE_S, _QUICK_S = 240.0, 90.0


def running(home: Path, name: str) -> ServiceStatus | None:
    """The service of this name, when it answers."""
    found = state.read(home, name)
    return found if found is not None and found.state == "ready" else None


def terms(
    *, canary: float | None, shadow: bool, ab: str | None, share: float | None, bake_s: float,
    least: int, drift: float,
) -> Terms:
    """A rollout as the words of the command line mean it.

    Raises:
        UsageError: words that contradict each other, or a share that can't be.
    """
    if sum((canary is not None, shadow, ab is not None)) != 1 and not (
        canary is not None and ab is not None and not shadow
    ):
        raise UsageError("a rollout is one of --canary, --shadow and --ab KEY (or a canary by a "
                         "key: --canary with --ab KEY)")
    if share is not None and (ab is None or canary is not None):
        raise UsageError("--share is that of --ab; a canary's first share is --canary SHARE")
    shares: Sequence[float] = ()
    if canary is not None:
        shares = ladder(canary)
    elif ab is not None:
        shares = (0.5 if share is None else share,)
    for each in shares:
        if not 0 < each <= 1 or (each == 1 and len(shares) == 1):
            raise UsageError(f"a share lies between 0 % and 100 %, but got {each:.4g}")
    if bake_s < 0 or least < 1 or drift <= 0:
        raise UsageError("--least and --drift are greater than 0, and --bake is a time like 5m")
    mode = "shadow" if shadow else "canary" if canary is not None else "ab"
    return Terms(mode, tuple(shares), bake_s, least, drift)  # type: ignore[arg-type]


def begin(
    service: ServiceStatus, version: ModelVersionLike, how: Terms, *, key: str = "",
    accept_contract: bool = False, tracking: str = "", actor: str, said: Said,
) -> None:
    """Prove a version, load it beside the champion, and give it its first share.

    Raises:
        RaymillError: it is refused; the service goes on as it was.
    """
    ask(service, "start", actor, _PREPARE_S, said, **_of(version, tracking), terms=asdict(how),
        key=key, accept_contract=accept_contract)


def pause(service: ServiceStatus, actor: str, said: Said) -> None:
    """No further step until `resume`; a worse version still goes back."""
    ask(service, "pause", actor, _QUICK_S, said)


def resume(service: ServiceStatus, actor: str, said: Said) -> None:
    ask(service, "resume", actor, _QUICK_S, said)


def abort(service: ServiceStatus, actor: str, reason: str, said: Said) -> None:
    """All requests to the champion, at once."""
    ask(service, "abort", actor, _QUICK_S, said, reason=reason)


def promote(
    service: ServiceStatus, version: ModelVersionLike, *, accept_contract: bool = False,
    tracking: str = "", actor: str, reason: str, said: Said,
) -> dict[str, Any]:
    """Prove and load a version, make it the registry's champion, and have it answer. Gives, as
    `champion`, what the registry says of it.

    Raises:
        RaymillError: it is refused; registry and service are as they were.
    """
    return ask(service, "promote", actor, _PREPARE_S, said, **_of(version, tracking), reason=reason,
               accept_contract=accept_contract)


def rollback(
    service: ServiceStatus, previous: Callable[[], ModelVersionLike], *, actor: str, reason: str,
    said: Said,
) -> dict[str, Any]:
    """End the rollout that is under way; without one, the former champion answers again, and what
    the registry says of it is given as `champion`.

    Args:
        previous: looks up the registry's previous champion; asked only where the service does not
            hold it any more.
    """
    result = ask(service, "rollback", actor, _QUICK_S, said, reason=reason)
    if result.get("needs") == "previous":
        result = ask(service, "rollback", actor, _PREPARE_S, said, **_of(previous(), ""),
                     reason=reason)
    return result


def _of(version: ModelVersionLike, tracking: str) -> dict[str, Any]:
    if version.bundle_path is None:
        raise UsageError(f"the bundle of {version.name} version {version.version} is not on this "
                         "machine", cure="Resolve the version through the registry first.")
    return {"version": version.version, "digest": version.digest, "tracking": tracking,
            "bundle": str(version.bundle_path.resolve())}


__all__ = ["LADDER", "abort", "begin", "pause", "promote", "resume", "rollback", "running", "terms"]
