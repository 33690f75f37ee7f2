"""What README and docs say to type is there to be typed; test_road.py types the README's."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from raymill.cli.main import build_parser

from .conftest import README, ROOT, commands

DOCS = [README, ROOT / "docs" / "cluster.md",
        *sorted((ROOT / "examples").glob("*/README.md"))]


@pytest.mark.parametrize("page", DOCS, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_raymill_command_of_the_docs_parses(page: Path) -> None:
    found = [line for line in commands(page) if line.startswith("raymill ")]
    assert found
    for line in found:
        build_parser().parse_args(shlex.split(line)[1:])


def test_make_targets_of_the_readme_exist() -> None:
    made = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = {line.split()[1] for line in commands(README) if line.startswith("make ")}
    assert named and named <= made
