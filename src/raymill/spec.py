"""The whole spec, composed of the rooms' own, and how it is read from YAML with its places."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import (
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from raymill.cluster.spec import ClusterSpec
from raymill.data.spec import DataSpec
from raymill.errors import Problem, SpecError
from raymill.evaluation.spec import ObjectiveSpec
from raymill.serving.spec import ServingSpec
from raymill.specs import Part, PlacedError
from raymill.tracking.spec import TrackingSpec
from raymill.training.params import FAMILY_PARAMS, follows
from raymill.training.spec import ModelSpec, TrainingSpec
from raymill.tuning.conflicts import check_conflicts, check_refit, check_sampler
from raymill.tuning.fields import check_points, check_space
from raymill.tuning.spec import TuningSpec
from raymill.yamls import Loader, Marks, Place, problems, read_yaml, walk

from .descriptions import below, describe

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
VERBS = ("status", "stop", "keys", "pause", "resume", "abort")  # stand where a name may
CURE = "Three keys suffice: name, data.source, data.target; raymill init writes them for you."


class Spec(Part):
    """A project: what to learn from which data, how, and where to serve it."""

    name: str
    """Of the project and its model: letters, digits, '.', '_' and '-'."""
    data: DataSpec
    """Where the rows are."""
    objective: ObjectiveSpec = ObjectiveSpec()
    """What a good model is."""
    model: ModelSpec = ModelSpec()
    """What is trained."""
    training: TrainingSpec = TrainingSpec()
    """How it is trained."""
    tuning: TuningSpec = TuningSpec()
    """How its parameters are searched."""
    serving: ServingSpec = ServingSpec()
    """How it answers."""
    cluster: ClusterSpec = ClusterSpec()
    """Where all of it runs."""
    tracking: TrackingSpec = TrackingSpec()
    """Where runs and models are recorded."""
    _base: Path | None = PrivateAttr(default=None)

    @property
    def base(self) -> Path | None:
        """The folder that the spec was read from: relative paths start there."""
        return self._base

    @field_validator("name")
    @classmethod
    def _safe_name(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError(
                f"a name is 1-64 letters, digits, '.', '_' or '-', and starts with a letter or "
                f"digit, but got {name!r}"
            )
        if name in VERBS:
            raise ValueError(f"a name can't be what serve or rollout does ({', '.join(VERBS)}), "
                             f"but got {name!r}")
        return name

    @model_validator(mode="after")
    def _space_names_fields(self) -> Spec:
        check_space(self.tuning.space, self.model.family)
        check_conflicts(self.tuning.space, self.model, self.training)
        check_points(self.tuning, self.model.family)
        check_sampler(self.tuning, self.model.family)
        check_refit(self.tuning, self.training, [self.model.family])
        return self

    @model_validator(mode="after")
    def _one_metric(self) -> Spec:
        goals, metric = self.tuning.objectives, self.objective.metric
        if goals and metric is not None and goals[0].metric != metric:
            raise PlacedError(f"the first objective is objective.metric ({metric}), but got "
                              f"{goals[0].metric}", "tuning", "objectives", 0)
        return self

    @model_validator(mode="after")
    def _training_is_followed(self) -> Spec:
        family = self.model.family
        for name in sorted(self.training.changed):
            if not follows(family, name):
                raise PlacedError(f"model.family {family} does not use training.{name}; its own "
                                  "parameters stand under model", "training", name)
        return self

    @model_validator(mode="after")
    def _store_takes_it(self) -> Spec:
        if self.cluster.store is None:
            return self
        if self.tuning.storage == "sqlite":
            raise PlacedError("cluster.store takes a search's journal, not a database that is "
                              "written in place: set storage to journal, or to Postgres", "tuning",
                              "storage")
        several = max(self.training.most_workers, self.tuning.resources.workers) > 1
        if several and self.training.strategy == "fsdp":
            raise PlacedError("cluster.store takes whole checkpoints, not fsdp's in parts: set "
                              "strategy to ddp, or leave cluster.store out, with a home that every "
                              "node sees", "training", "strategy")
        return self

    @model_validator(mode="after")
    def _several_workers_for_it(self) -> Spec:
        several = max(self.training.most_workers, self.tuning.resources.workers) > 1
        for name in () if several else ("strategy", "guard_every"):
            if name in self.training.changed:
                raise PlacedError(f"{name} does nothing with one worker: set training.workers to "
                                  f"more, or take {name} out", "training", name)
        return self


def apply_overrides(document: dict[str, Any], overrides: Sequence[str]) -> set[Place]:
    """Set `a.b=c` in `document`, c read as YAML; the places set.

    Dotted keys of `tuning.space` are written with their dots:
    `tuning.space.training.lr.choice=[1e-3]`.
    """
    places: set[Place] = set()
    for override in overrides:
        dotted, equals, text = override.partition("=")
        if not equals or not dotted.strip("."):
            raise SpecError(Problem(rule="--set takes a.b=value", got=repr(override)))
        keys = _keys(dotted)
        try:
            node = yaml.compose(text, Loader=Loader)
        except yaml.YAMLError:
            node = yaml.ScalarNode("tag:yaml.org,2002:str", text, None, None)
        value = walk(node, (), {}, f"--set {override}") if node is not None else None
        spot = document
        for key in keys[:-1]:
            below = spot.setdefault(key, {})
            if not isinstance(below, dict):
                raise SpecError(Problem(rule=f"--set {dotted} needs {key!r} to be a mapping",
                                        got=repr(below)))
            spot = below
        spot[keys[-1]] = value
        places.add(tuple(keys))
    return places


def _keys(dotted: str) -> list[str]:
    """The keys of a dotted path; a searched field, also one of a branch, keeps its dot."""
    keys = dotted.split(".")
    start = 2 if keys[:2] == ["tuning", "space"] else len(keys)
    while len(keys) >= start + 2:
        keys[start : start + 2] = [".".join(keys[start : start + 2])]
        branch = keys[start + 1 : start + 2] == ["choice"]
        start = start + 3 if branch else len(keys)  # choice and the option's name
    return keys


def validate(
    document: Mapping[str, Any],
    marks: Marks,
    file: str,
    overridden: Collection[Place] = (),
) -> Spec:
    """The spec in `document`.

    Raises:
        SpecError: with every problem at once, each at its place in `file`.
    """
    try:
        return Spec.model_validate(document)
    except ValidationError as error:
        raise SpecError(problems(error, marks, file, Spec, overridden)) from None


def load_spec(path: str | Path, overrides: Sequence[str] = ()) -> Spec:
    """Read a spec file, with `a.b=c` overrides applied.

    Raises:
        SpecError: with every problem at once, each with file:line:column, rule, value and cure.
    """
    document, marks = read_yaml(Path(path), cure=CURE)
    places = apply_overrides(document, overrides)
    spec = validate(document, marks, str(path), places)
    spec._base = Path(path).resolve().parent
    return spec


def spec_from(document: Mapping[str, Any], overrides: Sequence[str] = ()) -> Spec:
    """A spec from a mapping, for the Python API."""
    copy = json.loads(json.dumps(document))
    return validate(copy, {}, "<spec>", apply_overrides(copy, overrides))


def dump_yaml(spec: Spec) -> str:
    """The resolved spec: every key with its value."""
    return yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def json_schema() -> dict[str, Any]:
    """JSON Schema of the spec, for editors; each family's parameters are listed under `model`."""
    schema = Spec.model_json_schema()
    for name, part in below(Spec).items():
        describe((schema if part is Spec else schema["$defs"][name])["properties"], part)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "raymill spec"
    families = {}
    for family, params in FAMILY_PARAMS.items():
        properties = params.model_json_schema().get("properties", {})
        describe(properties, params)
        families[family] = {
            "if": {"properties": {"family": {"const": family}}, "required": ["family"]},
            "then": {"properties": properties},
        }
    schema["$defs"]["ModelSpec"]["allOf"] = list(families.values())
    return schema


__all__ = ["Spec", "dump_yaml", "json_schema", "load_spec", "spec_from"]
