"""The arguments of `raymill rollout`."""

from __future__ import annotations

from typing import Any

from .cluster_verbs import AddVerb


def add(verbs: Any, verb: AddVerb) -> None:
    """Add the verb to the command line."""
    rollout = verb(verbs, "rollout", "let a new version answer step by step: NAME@challenger; or "
                   "status, pause, resume, abort", "rollout")
    rollout.add_argument("what", metavar="NAME | status | pause | resume | abort",
                         help="NAME (its challenger), NAME@ALIAS or NAME:VERSION; or what to do")
    rollout.add_argument("more", nargs="*", metavar="...",
                         help="whose: of pause, resume and abort; of status (default: all)")
    rollout.epilog = ("A rollout needs one of --canary, --shadow and --ab; --canary and --ab "
                      "together are a canary by a key.")
    rollout.add_argument("--canary", nargs="?", const="1%", metavar="SHARE",
                         help="first share; then up by 1-5-10-25-50-100 %% (1%% where SHARE is "
                         "left out)")
    rollout.add_argument("--shadow", action="store_true",
                         help="score copies; the champion answers all")
    rollout.add_argument("--ab", metavar="KEY",
                         help="by the value of a column or header: equal values go one way")
    rollout.add_argument("--share", metavar="SHARE", help="of --ab without --canary (default: 50%%)")
    rollout.add_argument("--bake", default="5m", metavar="TIME",
                         help="of each step, at least (default: 5m)")
    rollout.add_argument("--least", type=int, default=100, metavar="N",
                         help="requests that the new version answers in a step (default: 100)")
    rollout.add_argument("--drift", type=float, default=0.25, metavar="SD",
                         help="how far the mean prediction may move, in the champion's standard "
                         "deviations (default: 0.25)")
    rollout.add_argument("--accept-contract", action="store_true",
                         help="although it refuses rows that the champion takes")
    rollout.add_argument("--reason", default="", help="why, for the audit log; of abort")
    rollout.add_argument("--watch", action="store_true", help="tell each change until it ends; exits 3 if it was rolled "
                         "back, aborted or refused")
    rollout.add_argument("--tracking", metavar="URI", help="MLflow's URI (default: the home's)")
