"""What a run ran on: versions, machine, commit and command."""

from __future__ import annotations

import getpass
import os
import platform
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from raymill import __version__

from .redact import redact

GIT_TIMEOUT_S = 5.0


def environment(base: Path) -> dict[str, Any]:
    """Of this process, for a project in `base`.

    Keys: raymill, python, platform, cpus, command, git_commit and git_dirty (None: not in a
    repository), packages (sorted `name==version`). Secrets in the command are hidden.
    """
    status = _git(base, "status", "--porcelain", "--untracked-files=no")
    return {
        "raymill": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "command": redact(" ".join(sys.argv)),
        "git_commit": _git(base, "rev-parse", "HEAD"),
        "git_dirty": None if status is None else bool(status),
        "packages": packages(),
    }


def user() -> str:
    """Who runs this: the name, or the uid where there is none, as in some containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid-{os.getuid()}"


def packages() -> list[str]:
    """What is installed, as `pip freeze` names it."""
    found = {(d.metadata["Name"] or "").lower(): d.version for d in distributions()}
    return [f"{name}=={version}" for name, version in sorted(found.items()) if name]


def _git(base: Path, *arguments: str) -> str | None:
    """The output of a git command; None where there is no git, no repository, or no answer."""
    try:
        done = subprocess.run(["git", "-C", str(base), *arguments], capture_output=True, text=True,
                              timeout=GIT_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
