"""The arguments of the verbs about machines, clusters and jobs."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

AddVerb = Callable[[Any, str, str, str], argparse.ArgumentParser]


def add(verbs: Any, verb: AddVerb) -> None:
    """Add them to the command line."""
    doctor = verb(verbs, "doctor", "look for what is wrong with this machine, and say the cure",
                  "doctor")
    doctor.add_argument("spec", nargs="?", metavar="SPEC",
                        help="a spec file, whose tracking.uri is tried too")
    plan = verb(verbs, "plan", "what each stage takes, and whether it can be", "plan")
    _add_spec(plan)
    _add_set(plan)
    plan.add_argument("--dry-run", action="store_true",
                      help="measure a piece of every stage, and estimate time and memory")
    plan.add_argument("--declared", action="store_true",
                      help="plan for the machines of cluster.nodes instead of those that are there")
    plan.add_argument("--price", type=float, metavar="PER_HOUR",
                      help="what all the machines cost an hour: the estimate tells the run's cost")
    _add_cluster(_group(verbs, "cluster", "a Ray cluster on this machine, or for others"), verb)
    _add_jobs(verbs, verb)
    _add_k8s(_group(verbs, "k8s", "manifests for KubeRay, on stdout"), verb)


def _group(verbs: Any, name: str, help_: str) -> Any:
    parser = verbs.add_parser(name, help=help_, description=help_)
    return parser.add_subparsers(metavar="VERB", required=True, parser_class=type(parser))


def _add_cluster(group: Any, verb: AddVerb) -> None:
    up = verb(group, "up", "start a cluster of several raylets: loopback only, with a token",
              "cluster")
    up.add_argument("--workers", type=_count, default=2, metavar="N", help="raylets (default 2)")
    up.add_argument("--cpus", type=_count, default=1, help="of each worker (default 1)")
    up.add_argument("--gpus", type=int, default=0, help="of each worker (default 0)")
    up.add_argument("--head-cpus", type=int, default=0, help="of the head, for tasks (default 0)")
    up.add_argument("--object-store-mb", type=_count, default=200, metavar="MB",
                    help="of each node (default 200)")
    status = verb(group, "status", "tell of the cluster of this home", "cluster")
    down = verb(group, "down", "end the cluster and every process of it", "cluster")
    render = verb(group, "render", "a Slurm batch script, or Ray's cluster-launcher YAML", "k8s")
    _add_spec(render)
    render.add_argument("--for", dest="target", required=True, choices=["slurm", "launcher"],
                        help="slurm: a script for sbatch; launcher: the file for ray up, from "
                        "cluster.launcher")
    _add_set(render)
    _add_output(render)
    for name, parser in (("up", up), ("status", status), ("down", down), ("render", render)):
        parser.set_defaults(function=f"cluster_{name}")


def _add_jobs(verbs: Any, verb: AddVerb) -> None:
    submit = verb(verbs, "submit", "send a project to a cluster and run it there", "jobs")
    _add_spec(submit)
    _add_set(submit)
    submit.add_argument("--follow", "-f", action="store_true",
                        help="show its output; the exit code is the job's")
    submit.add_argument("--id", help="the job's id: twice the same is one job (default: by a hash "
                        "of what is sent, which the data is no part of)")
    submit.add_argument("--home", metavar="PATH", help="the raymill home on the cluster (default: "
                        "this one, when the cluster is `raymill cluster up`)")
    submit.add_argument("--env", action="append", default=[], metavar="NAME",
                        help="a variable that the cluster's environment must hold (repeatable)")
    listed = verb(verbs, "jobs", "list the jobs of the cluster", "jobs")
    status = verb(verbs, "status", "how a job is, or ended, and why", "jobs")
    logs = verb(verbs, "logs", "what a job said", "jobs")
    logs.add_argument("-f", "--follow", action="store_true",
                      help="until it ends; the exit code is the job's")
    stop = verb(verbs, "stop", "end a job; submitted again, it goes on", "jobs")
    for parser in (status, logs, stop):
        parser.add_argument("id", metavar="ID", help="the job's id, as raymill jobs lists it")
    for parser in (submit, listed, status, logs, stop):
        parser.add_argument("--address", metavar="URL", help="the cluster's job API (default: "
                            "RAY_API_SERVER_ADDRESS, or the cluster of this home)")


def _add_k8s(group: Any, verb: AddVerb) -> None:
    job = verb(group, "job", "a RayJob that runs a spec", "k8s")
    cluster = verb(group, "cluster", "a RayCluster to submit jobs to", "k8s")
    cron = verb(group, "cron", "a RayCronJob that runs a spec at set times", "k8s")
    cron.add_argument("--schedule", required=True, metavar="CRON", help="like '0 3 * * *'")
    cron.add_argument("--timezone", metavar="ZONE",
                      help="like Europe/Paris (default: that of KubeRay's operator)")
    for parser in (job, cluster, cron):
        _add_spec(parser)
    service = verb(group, "service", "a RayService of a registered model", "k8s")
    service.add_argument("name", metavar="NAME", help="NAME, NAME@ALIAS or NAME:VERSION")
    service.add_argument("--spec", metavar="SPEC", help="where and how it runs (default: its run's spec)")
    service.add_argument("--tracking", metavar="URI", help="MLflow's URI (default: the home's)")
    for what, parser in (("job", job), ("cluster", cluster), ("cron", cron), ("service", service)):
        parser.set_defaults(function="k8s", what=what)
        parser.add_argument("--schemas", metavar="FOLDER",
                            help="check against these CRDs (kubectl get crd ... -o yaml)")
        _add_set(parser)
        _add_output(parser)


def _add_spec(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("spec", metavar="SPEC", help="the spec file, like fraud/raymill.yaml")


def _add_set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="A.B=C",
                        help="override a key of the spec (repeatable)")


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", metavar="FILE",
                        help="write it there, also with --json (default: stdout)")


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"a number from 1 up is needed, but got {text}")
    return number
