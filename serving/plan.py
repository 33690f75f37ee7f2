"""What a service's replicas are to do: which versions they hold, and which answers what.

The supervisor writes the plan into the service's private folder; every replica follows it there
and says in a file of its own how far it is. So models change without a replica's restart.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from .order import Order, write_private

Role = Literal["champion", "challenger", "shadow", "standby"]
"""`challenger` answers its share, `shadow` copies alone, `standby` is loaded and answers nothing."""
PLAN, ACKS, STATS, GOLDEN, WANTED = "plan.json", "acks", "stats", "golden", "wanted"


@dataclass(frozen=True)
class Variant:
    """A version, and what it is for now."""

    version: int
    digest: str
    bundle: str  # path
    role: Role


@dataclass(frozen=True)
class Plan:
    """A numbered state of the service.

    Attributes:
        share: of the requests that go to the challenger. key: the column or header by whose value
            they are told apart, so that equal values go one way; "" : by chance.
        column: whether `key` is a column. salt: parts the keys of one rollout from another's.
        measured: whether replicas keep sums for the rollout's comparison.
    """

    id: int
    variants: tuple[Variant, ...]
    share: float = 0.0
    key: str = ""
    column: bool = False
    salt: str = ""
    measured: bool = False

    @property
    def champion(self) -> Variant:
        return next(v for v in self.variants if v.role == "champion")

    def of(self, version: int) -> Variant | None:
        """The variant of this version."""
        return next((v for v in self.variants if v.version == version), None)

    def with_role(self, variant: Variant, role: Role) -> Plan:
        """The plan in which `variant` has `role`; it may be new in it."""
        others = tuple(v for v in self.variants if v.version != variant.version)
        return replace(self, variants=(*others, replace(variant, role=role)))

    def without(self, version: int) -> Plan:
        return replace(self, variants=tuple(v for v in self.variants if v.version != version))

    @classmethod
    def first(cls, order: Order) -> Plan:
        """The order's version alone."""
        return cls(1, (Variant(order.version, order.digest, order.bundle, "champion"),))

    def write(self, folder: Path) -> None:
        write_private(folder / PLAN, json.dumps(asdict(self)))

    @classmethod
    def read(cls, folder: Path) -> Plan | None:
        """The plan of a service; None where its replicas stand alone, as in a pod."""
        try:
            data: dict[str, Any] = json.loads((folder / PLAN).read_text())
        except FileNotFoundError:
            return None
        return cls(**data | {"variants": tuple(Variant(**v) for v in data["variants"])})


def bucket(salt: str, key: str) -> float:
    """Where in [0, 1) a key falls. The challenger has those below its share: when the share
    grows, a key that it had stays with it."""
    digest = hashlib.blake2b(key.encode(), digest_size=8, key=salt.encode()[:64]).digest()
    return int.from_bytes(digest) / 2**64


@dataclass(frozen=True)
class Ack:
    """How far a replica is: the plan it follows, the versions it holds, why it refuses others."""

    plan: int
    loaded: tuple[int, ...]
    refused: dict[int, str]

    def write(self, folder: Path) -> None:
        write_private(folder / ACKS / f"{os.getpid()}.json", json.dumps(asdict(self)))


def tell_wanted(folder: Path, replicas: int) -> None:
    """Let the replicas know how many of them there should be."""
    write_private(folder / WANTED, str(replicas))


def missing_share(folder: Path) -> float:
    """Replicas that there should be, for each that has loaded its plan and lives; 1 at least."""
    try:
        wanted = int((folder / WANTED).read_text())
    except FileNotFoundError:
        return 1.0
    ready = sum(Path(f"/proc/{path.stem}").exists() for path in (folder / ACKS).glob("[0-9]*.json"))
    return max(1.0, wanted / max(1, ready))


def acks(folder: Path) -> list[Ack]:
    """Those of the replicas that live."""
    found = []
    for path in (folder / ACKS).glob("[0-9]*.json"):
        if not Path(f"/proc/{path.stem}").exists():
            path.unlink(missing_ok=True)
            continue
        data = json.loads(path.read_text())
        refused = {int(version): str(cause) for version, cause in data["refused"].items()}
        found.append(Ack(data["plan"], tuple(data["loaded"]), refused))
    return found
