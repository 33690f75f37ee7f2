"""`raymill k8s` and `raymill cluster render`: manifests and scripts on stdout."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from .output import emit_json
from .progress import shown


def k8s_verb(options: argparse.Namespace) -> None:
    """Print the manifests, checked against --schemas where it is given."""
    from raymill import kube

    what: str = options.what
    if what == "service":
        spec = Path(options.spec) if options.spec else None
        with shown() as notify:
            made = kube.service(options.name, spec, options.overrides, options.tracking, notify)
    elif what == "cron":
        made = kube.cron(Path(options.spec), options.overrides, options.schedule, options.timezone)
    else:
        made = {"job": kube.job, "cluster": kube.cluster}[what](
            Path(options.spec), options.overrides)
    made = kube.validated(made, Path(options.schemas) if options.schemas else None)
    _put(kube.to_yaml(made), options, {"manifests": made})


def cluster_render_verb(options: argparse.Namespace) -> None:
    """Print a batch script of Slurm, or the YAML of Ray's cluster launcher."""
    from raymill.cluster.launcher import launcher_yaml
    from raymill.cluster.slurm import batch_script
    from raymill.package import pack

    spec, project = pack(Path(options.spec), options.overrides,
                         where="same files" if options.target == "slurm" else "elsewhere")
    if options.target == "slurm":
        text = batch_script(spec.cluster, project, _from_spec(options))
    else:
        text = launcher_yaml(spec.cluster, project)
    _put(text, options, {"text": text})


def _from_spec(options: argparse.Namespace) -> str:
    """Where the script will lie, seen from the spec's folder."""
    if options.output is None:
        return "raymill.sbatch"
    return os.path.relpath(options.output, Path(options.spec).parent)


def _put(text: str, options: argparse.Namespace, document: dict[str, Any]) -> None:
    """To --output or stdout; with --json, stdout has the document."""
    if options.output is not None:
        Path(options.output).write_text(text, encoding="utf-8")
        document |= {"output": options.output}
    if options.json:
        emit_json({"ok": True, **document})
    elif options.output is not None:
        print(f"wrote {options.output}")
    else:
        sys.stdout.write(text)
