"""Moves the champion alias for a supervisor, which itself does without MLflow."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from raymill.errors import RaymillError
from raymill.tracking.home import Home
from raymill.tracking.registry import PREVIOUS, Registry

from .order import Order


def main(arguments: list[str]) -> int:
    """`ORDER promote|rollback VERSION ACTOR REASON`; one JSON line tells how it went, and what the
    registry now says of the version.

    A rollback is one of the registry only where the version is its `previous`; else another
    champion was made past the service, and the version is promoted.
    """
    file, action, number, actor, reason = arguments
    order, version = Order.read(Path(file)), int(number)
    home, name = Home(Path(order.home)), order.name
    registry = Registry(order.tracking or home.tracking_uri, home)
    try:
        previous = [v.version for v in registry.versions(name) if PREVIOUS in v.aliases]
        if action == "rollback" and previous == [version]:
            done = registry.rollback(name, actor=actor, reason=reason)
        else:
            done = registry.promote(name, version, actor=actor, reason=reason)
    except RaymillError as error:
        print(json.dumps({"ok": False, "cause": str(error)}))
        return 1
    print(json.dumps({"ok": True, "champion": done.to_dict()}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
