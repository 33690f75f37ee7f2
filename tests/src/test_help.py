"""Every argument of every verb says what it is, and words that belong together are all there."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import pytest

from raymill.cli.main import build_parser


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """It, and those of all its verbs."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                yield from parsers(verb)


ALL = {parser.prog: parser for parser in parsers(build_parser())}


@pytest.mark.parametrize("prog", ALL)
def test_every_argument_has_a_help_text(prog: str) -> None:
    bare = [action.dest for action in ALL[prog]._actions
            if not isinstance(action, argparse._SubParsersAction) and not action.help]
    assert not bare
    assert ALL[prog].description


@pytest.mark.parametrize(("verb", "told"), [
    ("rollout", ["one of --canary, --shadow and --ab"]),
    ("rollback", ["running service follows", "is ended"]),
    ("promote", ["running service follows", "ends as completed", "NAME VERSION"]),
    ("run", ["does not follow: raymill promote NAME VERSION", "unless tracking.promote"]),
    ("serve", ["keys add HOLDER", "keys revoke HOLDER [ID]", "serving.A=B", "default: all"]),
    ("ui", ["127.0.0.1", "until Ctrl-C"]),
    ("logs", ["exit code is the job's"]),
    ("k8s cron", ["KubeRay's operator"]),
    ("init", ["separate test set (repeatable)", "spec and contract"]),
])
def test_a_page_of_help_says_what_is_asked_most(verb: str, told: list[str]) -> None:
    text = " ".join(ALL[f"raymill {verb}"].format_help().split())
    assert all(words in text for words in told), text
