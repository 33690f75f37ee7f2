"""Goes along with a job and starts it on the cluster: `python _raymill_job.py`.

Stands alone: it looks whether what the job needs is there before anything of it is imported.
`_raymill_job.json` beside it holds {"versions", "variables", "command", "digest"}. The project is
kept in `<home>/jobs/<digest>`, where it runs: Ray may remove its own copy once a worker that used
it has ended, and the registry's models of the user's own find their code there later.
"""

import json
import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # what Ray's driver reads of the job it is of


def has(name: str) -> str:
    if name == "python":
        return ".".join(platform.python_version_tuple()[:2])
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def missing(order: dict[str, Any]) -> list[str]:
    """What the cluster lacks, in words."""
    wrong = [f"{name} {has(name)}, but the job was sent from {name} {wanted}"
             for name, wanted in order["versions"].items() if has(name) != wanted]
    unset = [name for name in order["variables"] if not os.environ.get(name)]
    found = []
    if wrong:
        found.append(f"this cluster has {'; '.join(wrong)}. Submit from the same versions, or "
                     "build the cluster's image anew.")
    if unset:
        found.append(f"the cluster's environment must hold {', '.join(unset)}. Set them where its "
                     "nodes are started; a job never carries their values.")
    return found


def kept(order: dict[str, Any]) -> Path:
    """The project's own folder, made in one step."""
    place = Path(os.environ["RAYMILL_HOME"], "jobs", order["digest"])
    if not place.exists():
        draft = place.with_name(f".{place.name}.{os.getpid()}")
        draft.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copytree(".", draft)
        try:
            draft.rename(place)
        except OSError:  # another job of the same project was first
            shutil.rmtree(draft, ignore_errors=True)
    return place


def main() -> int:
    os.umask(0o077)
    order = json.loads(Path("_raymill_job.json").read_text(encoding="utf-8"))
    if lacks := missing(order):
        for text in lacks:
            print(f"raymill: {text}", file=sys.stderr)
        return 2
    if JOB_CONFIG in os.environ:
        config = json.loads(os.environ[JOB_CONFIG])
        config["runtime_env"].pop("working_dir", None)
        os.environ[JOB_CONFIG] = json.dumps(config)
    os.chdir(kept(order))
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", *order["command"]])


if __name__ == "__main__":
    sys.exit(main())
