"""`raymill k8s` and `raymill cluster render`: manifests and scripts on stdout."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .output import emit_json


def k8s_verb(options: argparse.Namespace) -> None:
    """Print the manifests, checked against --schemas where it is given."""
    from raymill import kube

    what: str = options.what
    if what == "service":
        spec = Path(options.spec) if options.spec else None
        made = kube.service(options.name, spec, options.overrides, options.tracking)
    elif what == "cron":
        made = kube.cron(Path(options.spec), options.overrides, options.schedule, options.timezone)
    else:
        made = {"job": kube.job, "cluster": kube.cluster}[what](
            Path(options.spec), options.overrides)
    made = kube.validated(made, Path(options.schemas) if options.schemas else None)
    if options.json:
        emit_json({"ok": True, "manifests": made})
    else:
        _put(kube.to_yaml(made), options.output)


def cluster_render_verb(options: argparse.Namespace) -> None:
    """Print a batch script of Slurm, or the YAML of Ray's cluster launcher."""
    from raymill.cluster.launcher import launcher_yaml
    from raymill.cluster.slurm import batch_script
    from raymill.package import pack

    spec, project = pack(Path(options.spec), options.overrides,
                         where="same files" if options.target == "slurm" else "elsewhere")
    if options.target == "slurm":
        text = batch_script(spec.cluster, project, options.output or "raymill.sbatch")
    else:
        text = launcher_yaml(spec.cluster, project)
    if options.json:
        emit_json({"ok": True, "text": text})
    else:
        _put(text, options.output)


def _put(text: str, output: str | None) -> None:
    if output is None:
        sys.stdout.write(text)
    else:
        Path(output).write_text(text, encoding="utf-8")
        print(f"wrote {output}")
