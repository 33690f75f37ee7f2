"""The whole spec, composed of the rooms' own, and how it is read from YAML with its places."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError, field_validator, model_validator

from raymill.cluster.spec import ClusterSpec
from raymill.data.spec import DataSpec
from raymill.errors import Problem, SpecError
from raymill.evaluation.spec import ObjectiveSpec
from raymill.serving.spec import ServingSpec
from raymill.specs import Part
from raymill.tracking.spec import TrackingSpec
from raymill.training.params import FAMILY_PARAMS, is_factory
from raymill.training.spec import ModelSpec, TrainingSpec
from raymill.tuning.spec import Dimension, TuningSpec

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
MAX_BYTES, MAX_DEPTH = 1_000_000, 32
Place = tuple[str | int, ...]


class Spec(Part):
    """A project: what to learn from which data, how, and where to serve it."""

    name: str
    data: DataSpec
    objective: ObjectiveSpec = ObjectiveSpec()
    model: ModelSpec = ModelSpec()
    training: TrainingSpec = TrainingSpec()
    tuning: TuningSpec = TuningSpec()
    serving: ServingSpec = ServingSpec()
    cluster: ClusterSpec = ClusterSpec()
    tracking: TrackingSpec = TrackingSpec()

    @field_validator("name")
    @classmethod
    def _safe_name(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError(
                f"a name is 1-64 letters, digits, '.', '_' or '-', and starts with a letter or "
                f"digit, but got {name!r}"
            )
        return name

    @model_validator(mode="after")
    def _space_names_fields(self) -> Spec:
        for path, dimension in self.tuning.space.items():
            _check_dimension(path, dimension, self.model.family)
        return self


def _check_dimension(path: str, dimension: Dimension, family: str) -> None:
    """Every searched value must be one that the field itself takes."""
    annotation = _field_type(path, family)
    if annotation is None:
        return
    low, high = dimension.low, dimension.high
    for value in dimension.choice if dimension.choice is not None else (low, high):
        try:
            TypeAdapter(annotation).validate_python(value)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise ValueError(f"tuning.space {path}: {value!r} is refused: {reason}") from None


def _field_type(path: str, family: str) -> Any:
    """The type of the field that a dotted `path` of a search space names; None: not known here."""
    room, _, field = path.partition(".")
    parts: dict[str, type[BaseModel]] = {"training": TrainingSpec}
    if family in FAMILY_PARAMS:
        parts["model"] = FAMILY_PARAMS[family]
    elif room == "model" and is_factory(family):
        return None
    elif room == "model":
        raise ValueError(f"tuning.space {path}: searching a model parameter needs model.family")
    fields = parts[room].model_fields if room in parts else {}
    if field not in fields:
        known = [f"{r}.{f}" for r, part in parts.items() for f in part.model_fields]
        raise ValueError(f"tuning.space names no field {path!r}{did_you_mean(path, known)}")
    info = fields[field]
    return Annotated[info.annotation, *info.metadata] if info.metadata else info.annotation


def did_you_mean(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


class _Loader(yaml.SafeLoader):
    """YAML 1.2's scalars (1e-3 is a number, `no` a word, a date a word); no aliases."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.get_event()
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not taken in a spec",
                                       problem_mark=event.start_mark)
        return super().compose_node(parent, index)


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9][0-9_]*", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf)|\.(nan|NaN)",
     "-+.0123456789"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"),
                                  list(_first))


def _walk(node: yaml.Node, place: Place, marks: dict[Place, tuple[int, int]], name: str) -> Any:
    """The value of `node`, its places put in `marks`; duplicate keys and deep nests are refused."""
    marks.setdefault(place, (node.start_mark.line + 1, node.start_mark.column + 1))
    if len(place) > MAX_DEPTH:
        raise SpecError(Problem(rule=f"a spec nests at most {MAX_DEPTH} levels", where=name))
    if isinstance(node, yaml.SequenceNode):
        return [_walk(child, (*place, i), marks, name) for i, child in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        for key_node, child in node.value:
            key = str(key_node.value)
            mark = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            if key in result:
                raise SpecError(Problem(rule=f"a key stands once, but {key!r} stands twice",
                                        where=f"{name}:{mark[0]}:{mark[1]}",
                                        cure="Remove one of the two."))
            marks[(*place, key)] = mark
            result[key] = _walk(child, (*place, key), marks, name)
        return result
    loader = _Loader("")
    try:
        if not node.tag.startswith("tag:yaml.org,2002:"):
            raise ValueError(f"tags like {node.tag} are not taken")
        return loader.construct_object(node, deep=True)  # type: ignore[no-untyped-call]
    except (ValueError, yaml.YAMLError) as error:
        where = f"{name}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"
        raise SpecError(Problem(rule="a value must be plain YAML", got=str(error).split("\n")[0],
                                where=where)) from None
    finally:
        loader.dispose()  # type: ignore[no-untyped-call]


def read_yaml(path: Path) -> tuple[dict[str, Any], dict[Place, tuple[int, int]]]:
    """The mapping in a YAML file and the (line, column) of each of its places, from 1.

    Raises:
        SpecError: missing, too large, not UTF-8, not YAML, not a mapping, or with a key twice.
    """
    name = str(path)
    try:
        raw = path.read_bytes()
        if len(raw) > MAX_BYTES:
            raise SpecError(Problem(rule=f"a spec has at most {MAX_BYTES:,} bytes",
                                    got=f"{len(raw):,}", where=name))
        node = yaml.compose(raw.decode("utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise SpecError(Problem(rule="the spec file must exist", got=name,
                                cure="Write one with: raymill init NAME --data FILE --target "
                                     "COLUMN")) from None
    except OSError as error:
        raise SpecError(Problem(rule="the spec must be a readable file", got=str(error),
                                where=name)) from None
    except UnicodeDecodeError as error:
        raise SpecError(Problem(rule="a spec is UTF-8 text", got=f"byte {error.start} that is not",
                                where=name, cure="Save it as UTF-8.")) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        raise SpecError(Problem(rule=f"the spec must be YAML: {error.problem}", where=place,
                                cure="Check the indentation and the colons there.")) from None
    except yaml.YAMLError as error:
        raise SpecError(Problem(rule="the spec must be YAML", got=str(error).split("\n")[0],
                                where=name)) from None
    if not isinstance(node, yaml.MappingNode):
        raise SpecError(Problem(rule="a spec is a mapping of keys to values", where=name,
                                cure="Three keys suffice: name, data.source, data.target."))
    marks: dict[Place, tuple[int, int]] = {}
    return _walk(node, (), marks, name), marks


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
            node = yaml.compose(text, Loader=_Loader)
        except yaml.YAMLError:
            node = yaml.ScalarNode("tag:yaml.org,2002:str", text, None, None)
        value = _walk(node, (), {}, f"--set {override}") if node is not None else None
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
    keys = dotted.split(".")
    if keys[:2] == ["tuning", "space"] and len(keys) >= 4:
        return ["tuning", "space", ".".join(keys[2:4]), *keys[4:]]
    return keys


def validate(
    document: Mapping[str, Any],
    marks: Mapping[Place, tuple[int, int]],
    file: str,
    overridden: set[Place] = frozenset(),  # type: ignore[assignment]
) -> Spec:
    """The spec in `document`.

    Raises:
        SpecError: with every problem at once, each at its place in `file`.
    """
    try:
        return Spec.model_validate(document)
    except ValidationError as error:
        problems = [_problem(e, marks, file, overridden) for e in _distinct(error)]
        raise SpecError(problems) from None


def _distinct(error: ValidationError) -> Iterator[Any]:
    """One error a place: a union reports one for each of its members."""
    seen: set[tuple[Any, ...]] = set()
    for item in error.errors(include_url=False):
        place = _spec_place(item["loc"])
        if place not in seen:
            seen.add(place)
            yield item


def _spec_place(loc: tuple[str | int, ...]) -> Place:
    """Pydantic's `loc` without the names of union members and validators."""
    return tuple(
        part for part in loc
        if isinstance(part, int) or not re.search(r"[\[\(]|^(str|int|float|bool|dict|list)$", part)
    )


def _problem(
    item: Any, marks: Mapping[Place, tuple[int, int]], file: str, overridden: set[Place]
) -> Problem:
    place = _spec_place(item["loc"])
    dotted = ".".join(map(str, place))
    if any(place[: len(o)] == o[: len(place)] for o in overridden) and place:
        where = f"--set {dotted}"
    else:
        spot: Place = place
        while spot and spot not in marks:
            spot = spot[:-1]
        line, column = marks.get(spot, (1, 1))
        where = f"{file}:{line}:{column}"
    kind = item["type"]
    if kind == "extra_forbidden":
        known = _known_keys(place[:-1])
        return Problem(rule=f"unknown key {dotted!r}{did_you_mean(str(place[-1]), known)}",
                       where=where, cure=f"Known here: {', '.join(known)}.")
    if kind == "missing":
        return Problem(rule=f"{dotted} is required", where=where, cure=f"Add the key {dotted}.")
    if kind == "value_error":
        rule, _, got = str(item["ctx"]["error"]).partition(", but got ")
        return Problem(rule=f"{dotted}: {rule}" if dotted else rule, got=got, where=where)
    message = item["msg"][0].lower() + item["msg"][1:]
    got = json.dumps(item["input"], default=str)
    return Problem(rule=f"{dotted}: {message}", got=got if len(got) < 80 else got[:77] + "...",
                   where=where)


def _known_keys(place: Place) -> list[str]:
    """The keys that the spec takes at `place`."""
    model: Any = Spec
    for part in place:
        info = getattr(model, "model_fields", {}).get(part)
        annotation = info.annotation if info is not None else None
        for candidate in (annotation, *get_args(annotation)):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                model = candidate
                break
        else:
            args = get_args(annotation)
            model = args[-1] if get_origin(annotation) is dict and args else model
    return list(getattr(model, "model_fields", {}))


def load_spec(path: str | Path, overrides: Sequence[str] = ()) -> Spec:
    """Read a spec file, with `a.b=c` overrides applied.

    Raises:
        SpecError: with every problem at once, each with file:line:column, rule, value and cure.
    """
    document, marks = read_yaml(Path(path))
    places = apply_overrides(document, overrides)
    return validate(document, marks, str(path), places)


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
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "raymill spec"
    families = {}
    for family, params in FAMILY_PARAMS.items():
        part = params.model_json_schema()
        families[family] = {
            "if": {"properties": {"family": {"const": family}}, "required": ["family"]},
            "then": {"properties": part.get("properties", {})},
        }
    schema["$defs"]["ModelSpec"]["allOf"] = list(families.values())
    return schema


__all__ = ["Spec", "dump_yaml", "json_schema", "load_spec", "spec_from"]
