"""Places in the code where a test build may die or fail, to prove that nothing is lost there.

`RAYMILL_FAIL="search.after_trial:kill@3"` kills the process (SIGKILL) the third time it passes
`failpoint("search.after_trial")`; `raise` in the place of `kill` raises `FailpointError`. Several
are parted by commas. Without the variable a failpoint does nothing.
"""

from __future__ import annotations

import os
import re
import signal
import threading
from collections import Counter

VARIABLE = "RAYMILL_FAIL"
_RULE = re.compile(r"(?P<name>[a-z][a-z0-9_.]*):(?P<action>kill|raise)@(?P<nth>[1-9][0-9]*)")


class FailpointError(RuntimeError):
    """Raised by a failpoint whose action is `raise`."""


def parse(text: str) -> dict[str, tuple[str, int]]:
    """`name:action@n, ...` as {name: (action, n)}.

    Raises:
        ValueError: a rule is malformed, so that no chaos test passes because of a typing error.
    """
    rules: dict[str, tuple[str, int]] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = _RULE.fullmatch(part)
        if match is None:
            raise ValueError(f"{VARIABLE} holds name:kill@n or name:raise@n, but got {part!r}")
        rules[match["name"]] = (match["action"], int(match["nth"]))
    return rules


_rules = parse(os.environ.get(VARIABLE, ""))
_passed: Counter[str] = Counter()
_lock = threading.Lock()


def failpoint(name: str) -> None:
    """Die or fail here if the environment says so."""
    if not _rules or name not in _rules:
        return
    with _lock:
        _passed[name] += 1
        count = _passed[name]
    action, nth = _rules[name]
    if count != nth:
        return
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    raise FailpointError(f"failpoint {name} reached the {nth}. time")
