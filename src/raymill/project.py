"""The user's own code: where it is found, and what it is."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from raymill.data.contract import Contract
from raymill.errors import Problem, UsageError
from raymill.evaluation.rules import Bound, parse_gate
from raymill.spec import Spec
from raymill.training.objective import METRICS
from raymill.training.params import is_factory
from raymill.training.rules import task_problems

MAX_FILES = 2000


def own_code(spec: Spec) -> list[str]:
    """The `package.module:attribute` names in the spec that are the user's own."""
    named = [spec.model.family, spec.training.loop or ""]
    return [name for name in named if is_factory(name)]


def code_digest(spec: Spec, base: Path) -> str:
    """Of the user's own code that the spec names: the Python files beside the spec, and the named
    modules wherever they are installed. Empty when the spec names none.

    Raises:
        UsageError: more Python files beside the spec than can be told apart quickly.
    """
    if not own_code(spec):
        return ""
    files = {str(path.relative_to(base)): path for path in sources(base)}
    if len(files) > MAX_FILES:
        raise UsageError(f"a project with code of its own has at most {MAX_FILES} Python files, "
                         f"but {base} has more", cure="Give the spec a folder of its own.")
    for name in own_code(spec):
        found = importlib.util.find_spec(name.partition(":")[0])
        if found is not None and found.origin is not None and Path(found.origin).is_file():
            files[name] = Path(found.origin)
    digest = hashlib.sha256()
    for name, path in sorted(files.items()):
        digest.update(f"{name}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def sources(base: Path) -> Iterator[Path]:
    """The Python files below `base`; hidden folders and virtual environments are left out."""
    for folder, below, names in os.walk(base):
        below[:] = [name for name in below if not name.startswith(".") and name != "__pycache__"
                    and not (Path(folder) / name / "pyvenv.cfg").exists()]
        yield from (Path(folder) / name for name in names if name.endswith(".py"))


def check_code(spec: Spec, base: Path) -> list[Problem]:
    """What is wrong with the code that the spec names: each must import and be callable."""
    problems = []
    if str(base) not in sys.path:
        sys.path.insert(0, str(base))
    for name in own_code(spec):
        module, _, attribute = name.partition(":")
        try:
            target = getattr(importlib.import_module(module), attribute, None)
        except Exception as error:  # noqa: BLE001 - the user's module may raise anything
            problems.append(Problem(rule=f"{name} must be importable", got=repr(error),
                                    where=str(base),
                                    cure="Put the module beside the spec, or install it."))
            continue
        if not callable(target):
            problems.append(Problem(rule=f"{name} must name a function", got=repr(target),
                                    where=str(base)))
    return problems


def check_nodes(spec: Spec) -> list[Problem]:
    """The user's own code that a node of the cluster can't import: what is wrong."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    modules = sorted({name.partition(":")[0] for name in own_code(spec)})
    asked = {}
    for node in ray.nodes() if modules else ():
        if node["Alive"]:
            pinned = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            task = ray.remote(num_cpus=0, scheduling_strategy=pinned)(_not_found)
            asked[node["NodeManagerAddress"]] = task.remote(modules)
    return [
        Problem(rule="every node must be able to import the code that the spec names",
                got=f"no module {missing[0]} on {address}",
                cure="Install it on the nodes (or in their image); raymill k8s job mounts it.")
        for address, answer in asked.items() if (missing := ray.get(answer))
    ]


def _not_found(modules: list[str]) -> list[str]:
    return [name for name in modules if importlib.util.find_spec(name) is None]


def check_task(spec: Spec, contract: Contract) -> list[Problem]:
    """What the spec asks for that this data's task can't give."""
    task, classes = contract.task, contract.classes
    objective = spec.objective
    fit = [metric.name for metric in METRICS.values() if task in metric.tasks]
    asked = {"objective.metric": objective.metric}
    for gate in objective.gates:
        rule = parse_gate(gate)
        if isinstance(rule, Bound) and rule.measure in METRICS:
            asked[f"the gate {gate!r}"] = rule.measure
    judged = [goal.metric for goal in spec.tuning.objectives]
    judged += [limit.name for limit in spec.tuning.limits]
    asked |= {f"tuning's {name}": name for name in judged if name in METRICS}
    problems = [
        Problem(rule=f"{place} must be a metric for a {task} task", got=metric,
                cure=f"Take one of {', '.join(fit)}.")
        for place, metric in asked.items() if metric is not None and metric not in fit
    ]
    problems += task_problems(spec.training, task, classes)
    if is_factory(spec.model.family) and spec.tuning.trials and not spec.tuning.space:
        problems.append(Problem(
            rule=f"no search space is known for the model {spec.model.family}",
            got=f"tuning.trials: {spec.tuning.trials}",
            cure="Name one in tuning.space, or set tuning.trials to 0."))
    return problems
