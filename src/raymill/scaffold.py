"""Writes a project's first spec and contract from its data."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raymill.data.contract import Contract
from raymill.data.spec import DataSpec
from raymill.errors import Problem, UsageError
from raymill.spec import spec_from
from raymill.training.objective import DEFAULT_METRIC

TEMPLATE = """\
# raymill spec of {name}. Keys left out keep their defaults: `raymill schema` lists them all.
# Next: raymill check {spec}   then: raymill run {spec}
name: {name}

data:
  source: {source}
{test}  target: {target}            # task: {task}{classes}
{time}{group}{drop}  contract: contract.yaml     # what a row must look like; edit it, it is enforced everywhere
  # on_violation: quarantine    # set bad rows aside with their reasons instead of stopping
{split}
objective:
  metric: {metric}
  gates:
    - "beats: baseline"         # a constant and a linear model, on the same test rows
    # - "{metric} {sign} {limit}"
    # - "beats: champion"
{threshold}
# model:
#   family: {family}                 # its parameters stand beside it; none given: the search picks them
# training:
#   epochs: 30
#   workers: 1                  # >1: data parallel over Ray Train workers

tuning:
  trials: 8                     # 0: train the values above, without a search
  # budget: {{wall: 30m}}

serving:
  replicas: {{min: 1, max: 4}}
"""


def quoted(text: str) -> str:
    """`text` as a YAML scalar that reads back as itself."""
    plain = re.fullmatch(r"[A-Za-z_][\w./-]*", text, flags=re.ASCII)
    word = text.lower() in ("true", "false", "null")
    return text if plain and not word else json.dumps(text)


def relative(path: str, folder: Path) -> str:
    """`path` as the spec in `folder` names it: relative below the working folder, else absolute."""
    if "://" in path:
        return path
    near = Path(path).absolute().is_relative_to(Path.cwd())
    return os.path.relpath(path, folder) if near else str(Path(path).absolute())


def _sources(paths: Sequence[str], folder: Path) -> str:
    named = [quoted(relative(path, folder)) for path in paths]
    return named[0] if len(named) == 1 else "[" + ", ".join(named) + "]"


def spec_text(
    name: str, folder: Path, contract: Contract, data: Sequence[str], test: Sequence[str],
    *, time: str | None, group: str | None, drop: Sequence[str], image: bool,
) -> str:
    """The commented spec."""
    metric = DEFAULT_METRIC[contract.task]
    rising = contract.task != "regression"
    split = "time" if time else "group" if group else "stratified" if rising else "random"
    shares = "train: 0.85, validation: 0.15, test: 0" if test else (
        "train: 0.7, validation: 0.15, test: 0.15")
    classes = f", classes: {', '.join(contract.classes)}" if contract.classes else ""
    threshold = (
        "  # threshold: {cost: {false_positive: 5, false_negative: 120}}   # the cut that costs "
        "least\n" if contract.task == "binary" else "")
    return TEMPLATE.format(
        name=name, spec=f"{folder}/raymill.yaml", source=_sources(data, folder),
        test=f"  test: {_sources(test, folder)}\n" if test else "",
        target=quoted(contract.target), task=contract.task,
        classes=classes if len(classes) < 60 else classes[:57] + "...",
        time=f"  time: {quoted(time)}\n" if time else "",
        group=f"  group: {quoted(group)}\n" if group else "",
        drop=f"  drop: [{', '.join(map(quoted, drop))}]\n" if drop else "",
        split=f"  split: {{by: {split}, {shares}}}\n",
        metric=metric, sign=">=" if rising else "<=", limit="0.9" if rising else "0.5",
        threshold=threshold, family=_family(contract, image),
    )


def _family(contract: Contract, image: bool) -> str:
    texts = any(contract.columns[name].kind == "text" for name in contract.features)
    return "cnn" if image else "text" if texts else "mlp"


def write_project(folder: Path, files: dict[str, str], *, force: bool) -> list[Path]:
    """Write the files of a new project.

    Raises:
        UsageError: one of them exists and `force` is not given.
    """
    paths = {folder / name: text for name, text in files.items()}
    if not force and (there := [str(path) for path in paths if path.exists()]):
        raise UsageError(Problem(rule="init does not overwrite", got=", ".join(there),
                                 cure="Give --force to write them anew."))
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in paths.items():
        path.write_text(text, encoding="utf-8")
    return list(paths)


def check_parts(name: str, data: dict[str, Any]) -> DataSpec:
    """The data's spec of a new project.

    Raises:
        SpecError: the name or the parts are not what a spec takes.
    """
    return spec_from({"name": name, "data": data}).data


def column_rows(contract: Contract) -> list[list[Any]]:
    """For the terminal: column, type, kind, nullable."""
    return [[name, rule.type, "target" if name == contract.target else rule.kind,
             "yes" if rule.nullable else "no"] for name, rule in contract.columns.items()]
