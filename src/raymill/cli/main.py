"""Reads the command line, calls the verb, and turns every outcome into an exit code."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from raymill import __version__
from raymill.errors import (
    EXIT_BAD_INPUT,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    Problem,
    RaymillError,
    UsageError,
)
from raymill.signals import ENDING, interrupt

from . import cluster_verbs, rollout_verbs

Verb = Callable[[argparse.Namespace], Any]

EPILOG = """\
exit codes: 0 ok, 1 failed, 2 bad spec, data or usage, 3 refused by a gate, 130 interrupted
state lives in .raymill/ of the working folder; RAYMILL_HOME moves it
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(
            Problem(rule=message, where=self.prog, cure=f"See: {self.prog} --help")
        )


def _spec_verb(verbs: Any, name: str, help_: str, module: str) -> argparse.ArgumentParser:
    parser = _verb(verbs, name, help_, module)
    parser.add_argument("spec", metavar="SPEC", help="the spec file, like fraud/raymill.yaml")
    _add_set(parser)
    return parser


def _add_set(
    parser: argparse.ArgumentParser, help_: str = "override a key of the spec (repeatable)"
) -> None:
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="A.B=C",
                        help=help_)


def _verb(verbs: Any, name: str, help_: str, module: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=help_, description=help_)
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    parser.set_defaults(module=module, function=name)
    return parser


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = _Parser(
        prog="raymill", epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
        description="From a data set and one spec file to a tuned, tracked, gated and autoscaled "
        "PyTorch service on Ray.",
    )
    parser.add_argument("--version", action="version", version=f"raymill {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", parser_class=_Parser)
    _add_project_verbs(verbs)
    _add_model_verbs(verbs)
    _add_serving_verbs(verbs)
    rollout_verbs.add(verbs, _verb)
    cluster_verbs.add(verbs, _verb)
    return parser


def _add_project_verbs(verbs: Any) -> None:
    init = _verb(verbs, "init", "write a spec and a contract from the data", "init")
    init.add_argument("name", help="the project's name and folder")
    init.add_argument("--data", required=True, action="append", metavar="PATH",
                      help="file, glob, folder or s3:// URI (repeatable)")
    init.add_argument("--target", required=True, metavar="COLUMN", help="what is predicted")
    init.add_argument("--test", action="append", metavar="PATH",
                      help="a separate test set (repeatable)")
    init.add_argument("--time", metavar="COLUMN", help="the rows' time: splits go by it")
    init.add_argument("--group", metavar="COLUMN", help="rows of a group stay together")
    init.add_argument("--drop", action="append", default=[], metavar="COLUMN",
                      help="leave a column out (repeatable)")
    init.add_argument("--force", action="store_true", help="overwrite an existing spec and contract")
    check = _spec_verb(verbs, "check", "show every error of spec, contract and data", "check")
    check.add_argument("--train", action="store_true",
                       help="check the model too, on a sample of the data: shapes, gradients, seeds, "
                            "saving, whether it learns, two short trainings")
    run = _spec_verb(verbs, "run", "data, search, train, evaluate, gate, register, report", "run")
    run.epilog = ("A model that passes its gates becomes the champion, unless tracking.promote is "
                  "manual. A running service does not follow: raymill promote NAME VERSION.")
    train = _spec_verb(verbs, "train", "train the spec's own model, without a search", "run")
    train.add_argument("--profile", action="store_true",
                       help="time some steps first: where a step's time goes, and what to change")
    _spec_verb(verbs, "tune", "search hyperparameters, without the final training", "run")
    evaluate = _spec_verb(verbs, "evaluate", "evaluate a model on the spec's test rows", "run")
    evaluate.add_argument("--model", metavar="NAME[@ALIAS|:VERSION]",
                          help="a registered model (default: the spec's name @champion)")
    runs = _verb(verbs, "runs", "list the runs", "models")
    runs.add_argument("name", nargs="?", metavar="NAME", help="only the runs of this project")
    schema = _verb(verbs, "schema", "print the JSON Schema of the spec, for editors", "check")
    schema.set_defaults(json=True)


def _add_model_verbs(verbs: Any) -> None:
    models = _verb(verbs, "models", "list model versions: aliases, metrics, who serves", "models")
    models.add_argument("name", nargs="?", metavar="NAME", help="only this model")
    promote = _verb(verbs, "promote", "make a version the champion", "models")
    promote.epilog = ("A running service follows once it has tried and loaded the version, or "
                      "refuses it, and the champion stays. A rollout of that version ends as "
                      "completed.")
    promote.add_argument("name", metavar="NAME", help="the model's name")
    promote.add_argument("version", type=int, metavar="VERSION", help="its version, like 7")
    promote.add_argument("--reason", default="", help="why, for the audit log")
    rollback = _verb(verbs, "rollback", "make the previous champion the champion again", "models")
    rollback.epilog = ("A running service follows, before the registry does. While one of its "
                       "rollouts is under way, that is ended instead, and the champion stays.")
    rollback.add_argument("name", metavar="NAME", help="the model's name")
    promote.add_argument("--accept-contract", action="store_true",
                         help="for a running service: although it refuses rows that the champion takes")
    rollback.add_argument("--reason", default="", help="why, for the audit log")
    for verb in (models, promote, rollback):
        verb.add_argument("--tracking", metavar="URI", help="MLflow's URI (default: the home's)")
    ui = _verb(verbs, "ui", "serve MLflow's own UI on the local store, on 127.0.0.1, until Ctrl-C",
               "models")
    ui.add_argument("--port", type=int, default=5000, help="where on 127.0.0.1 (default: 5000)")


def _add_serving_verbs(verbs: Any) -> None:
    serve = _verb(verbs, "serve", "serve a model: NAME; or status, stop, keys", "serve")
    serve.usage = ("raymill serve NAME [--detach] [--address auto] [--set serving.A=B] | "
                   "status [NAME] [--watch] | stop [NAME] | keys add HOLDER | keys list | keys revoke HOLDER [ID]")
    serve.add_argument("name", metavar="NAME | status | stop | keys",
                       help="NAME, NAME@ALIAS or NAME:VERSION; or what to do with services")
    serve.add_argument("more", nargs="*", metavar="...",
                       help="NAME of status or stop (default: all services); of keys: add HOLDER, "
                       "list, or revoke HOLDER [ID] (without ID its oldest key)")
    serve.add_argument("--detach", action="store_true", help="serve in the background")
    serve.add_argument("--watch", action="store_true", help="for status: live, every second, with rates and latencies")
    serve.add_argument("--address", help="the cluster on this machine that has the replicas: auto or "
                       "host:port; local: a Ray of their own (default: the spec's cluster.address, "
                       "else RAY_ADDRESS, else local)")
    serve.add_argument("--tracking", metavar="URI", help="MLflow's URI (default: the home's)")
    _add_set(serve, "override a key of the spec's serving, like serving.port=8001 (repeatable)")
    predict = _verb(verbs, "predict", "ask a served model", "serve")
    predict.add_argument("name", help="the served model's name")
    predict.add_argument("--input", required=True, metavar="FILE",
                         help="rows as CSV, JSONL or Parquet; - for JSONL or CSV on stdin")
    predict.add_argument("--output", metavar="FILE",
                         help="where the answers go: .jsonl, .csv or .parquet (default: stdout)")
    predict.add_argument("--tracking", metavar="URI", help="MLflow's URI (default: the home's)")
    predict.add_argument("--url", help="the endpoint (default: the running service of that name)")
    _add_predictions_verb(verbs)
    _add_score_verb(verbs)
    _add_loadtest_verb(verbs)


def _add_predictions_verb(verbs: Any) -> None:
    log = _verb(verbs, "predictions", "what a model's services answered", "predictions")
    log.add_argument("name", help="the served model's name")
    log.add_argument("--since", metavar="AGE", help="only the last 90m, 24h, 7d (default: all)")
    log.add_argument("--version", type=int, metavar="N", help="only this version's")
    log.add_argument("--output", metavar="FILE", help="write the rows: .parquet, .csv or .jsonl")
    log.add_argument("--labelled", action="store_true",
                     help="for --output: only rows whose true label is known, with it")


def _add_loadtest_verb(verbs: Any) -> None:
    load = _verb(verbs, "loadtest", "the highest rate within a latency objective", "loadtest")
    load.add_argument("target", metavar="NAME | URL", help="a service of this home, or an endpoint")
    load.add_argument("--slo", default="p99=50ms", metavar="pQ=Nms",
                      help="p50, p95, p99 or p99.9 in ms (default: p99=50ms)")
    load.add_argument("--input", metavar="FILE", help="rows to send (default: the page's example)")
    load.add_argument("--rows", type=_positive, default=1, metavar="N",
                      help="rows of a request (default: 1)")
    load.add_argument("--seconds", type=_positive, default=5, metavar="N",
                      help="of each rate; the last is held twice as long (default: 5)")
    load.add_argument("--start", type=_positive, default=20, metavar="RATE",
                      help="the first rate, in requests a second (default: 20)")
    load.add_argument("--most", type=_positive, default=20_000, metavar="RATE",
                      help="the highest rate to try (default: 20000)")
    load.add_argument("--require-rate", type=float, metavar="RATE",
                      help="exit 3 when fewer requests a second hold the objective")
    load.add_argument("--key-env", metavar="VARIABLE", help="the variable that holds an API key")
    load.add_argument("--tracking", metavar="URI", help="MLflow's URI (default: the home's)")


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, but got {text!r}")
    return int(text)


def _add_score_verb(verbs: Any) -> None:
    score = _verb(verbs, "score", "score files of rows, resumable, each row once", "score")
    score.add_argument("name", help="NAME, NAME@ALIAS or NAME:VERSION of a registered model")
    score.add_argument("input", nargs="+", metavar="INPUT", help="file, glob, folder or s3:// URI")
    score.add_argument("output", metavar="OUTPUT", help="a folder or s3:// URI for the parts and their manifest")
    score.add_argument("--format", choices=("parquet", "csv", "jsonl"), default="parquet",
                       help="of the parts (default: parquet)")
    score.add_argument("--input-format", choices=("auto", "csv", "parquet", "jsonl", "images"),
                       default="auto", help="where the files' endings do not tell")
    score.add_argument("--keep", action="append", metavar="COLUMN",
                       help="a column of the input beside the answers (repeatable; default: the "
                       "contract's key)")
    score.add_argument("--partition-by", action="append", default=[], metavar="COLUMN",
                       help="a folder for each value of this column (repeatable)")
    score.add_argument("--on-violation", choices=("fail", "quarantine"), default="fail",
                       help="what a row that breaks the contract does (default: fail)")
    score.add_argument("--workers", type=int, metavar="N", help="actors (default: one a CPU)")
    score.add_argument("--restart", action="store_true", help="throw away what OUTPUT holds")
    score.add_argument("--address", default="local", help="the Ray cluster (default: local)")
    score.add_argument("--tracking", metavar="URI", help="MLflow's URI (default: the home's)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in arguments
    os.umask(0o077)
    for signum in ENDING:  # also where a shell started us with it ignored
        signal.signal(signum, interrupt)
    try:
        options = build_parser().parse_args(arguments)
        if not hasattr(options, "module"):
            build_parser().print_help()
            return EXIT_BAD_INPUT
        module = importlib.import_module(f"raymill.cli.{options.module}")
        verb: Verb = getattr(module, f"{options.function}_verb")
        outcome = verb(options)
        return outcome if isinstance(outcome, int) else EXIT_OK
    except RaymillError as error:
        return _report(error, as_json)
    except KeyboardInterrupt:
        print("raymill: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else EXIT_FAILED
    except Exception as error:  # noqa: BLE001 - the last resort: no traceback over the screen
        return _report_bug(error, as_json)


def _report(error: RaymillError, as_json: bool) -> int:
    if as_json:
        document = {"ok": False, "error": type(error).__name__,
                    "problems": [problem.to_dict() for problem in error.problems]}
        print(json.dumps(document, indent=2))
    count = len(error.problems)
    if count > 1:
        print(f"raymill: {count} problems", file=sys.stderr)
    for problem in error.problems:
        print(f"raymill: {problem}" if count == 1 else f"  {problem}", file=sys.stderr)
    return error.exit_code


def _report_bug(error: Exception, as_json: bool) -> int:
    """An error that is ours: the traceback goes to a file, not over the user's screen."""
    from raymill.tracking.home import Home
    from raymill.tracking.redact import redact

    log = Home.find().path / "crash.log"
    with log.open("a", encoding="utf-8") as file:
        file.write(redact(f"{' '.join(map(repr, sys.argv))}\n{traceback.format_exc()}\n"))
    log.chmod(0o600)
    message = f"unexpected {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    if as_json:
        print(json.dumps({"ok": False, "error": "Unexpected", "problems": [{"rule": message}]}))
    print(f"raymill: {message}\n  This is a fault of raymill's own; the details are in {log}",
          file=sys.stderr)
    if os.environ.get("RAYMILL_DEBUG"):
        traceback.print_exc()
    return EXIT_FAILED
