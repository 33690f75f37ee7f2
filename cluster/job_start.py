"""Goes along with a job and starts it on the cluster: `python _raymill_job.py`.

Stands alone: it looks whether what the job needs is there before anything of it is imported.
`_raymill_job.json` beside it holds {"versions": {...}, "variables": [...], "command": [...]}.
"""

import json
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def has(name: str) -> str:
    if name == "python":
        return ".".join(platform.python_version_tuple()[:2])
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def main() -> int:
    order = json.loads(Path("_raymill_job.json").read_text(encoding="utf-8"))
    wrong = [f"{name} {has(name)}, but the job was sent from {name} {wanted}"
             for name, wanted in order["versions"].items() if has(name) != wanted]
    missing = [name for name in order["variables"] if not os.environ.get(name)]
    if wrong:
        print(f"raymill: this cluster has {'; '.join(wrong)}. Submit from the same versions, or "
              "build the cluster's image anew.", file=sys.stderr)
    if missing:
        print(f"raymill: the cluster's environment must hold {', '.join(missing)}. Set them where "
              "its nodes are started; a job never carries their values.", file=sys.stderr)
    if wrong or missing:
        return 2
    command = [sys.executable, "-m", *order["command"]]
    os.execv(sys.executable, command)


if __name__ == "__main__":
    sys.exit(main())
