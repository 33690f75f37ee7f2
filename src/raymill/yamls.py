"""YAML files of the user's, read with the place of every value, and checked with cures."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from raymill.errors import Problem, SpecError

MAX_BYTES, MAX_DEPTH = 1_000_000, 32
Place = tuple[str | int, ...]
Marks = Mapping[Place, tuple[int, int]]
_MEMBER = re.compile(r"[\[\(]|^(str|int|float|bool|dict|list|constrained-\w+)$")  # of a union


def did_you_mean(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


class Loader(yaml.SafeLoader):
    """YAML 1.2's scalars (1e-3 is a number, `no` a word, a date or 0123 a word); no aliases (they can blow up)."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.get_event()  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not taken",
                                       problem_mark=event.start_mark)
        return super().compose_node(parent, index)


Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf)|\.(nan|NaN)",
     "-+.0123456789"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
):
    Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"),
                                  list(_first))


def walk(node: yaml.Node, place: Place, marks: dict[Place, tuple[int, int]], name: str) -> Any:
    """The value of `node`, its places put in `marks`; duplicate keys and deep nests are refused."""
    marks.setdefault(place, (node.start_mark.line + 1, node.start_mark.column + 1))
    if len(place) > MAX_DEPTH:
        raise SpecError(Problem(rule=f"a file nests at most {MAX_DEPTH} levels", where=name))
    if isinstance(node, yaml.SequenceNode):
        return [walk(child, (*place, i), marks, name) for i, child in enumerate(node.value)]
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
            result[key] = walk(child, (*place, key), marks, name)
        return result
    loader = Loader("")
    try:
        if not node.tag.startswith("tag:yaml.org,2002:"):
            raise ValueError(f"tags like {node.tag} are not taken")
        return loader.construct_object(node, deep=True)
    except (ValueError, yaml.YAMLError) as error:
        where = f"{name}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"
        raise SpecError(Problem(rule="a value must be plain YAML", got=str(error).split("\n")[0],
                                where=where)) from None
    finally:
        loader.dispose()


def read_yaml(path: Path, what: str = "a spec", cure: str = "") -> tuple[dict[str, Any], dict[Place, tuple[int, int]]]:
    """The mapping in a YAML file and the (line, column) of each of its places, from 1.

    Raises:
        SpecError: missing, too large, not UTF-8, not YAML, not a mapping, or with a key twice.
    """
    name = str(path)
    try:
        raw = path.read_bytes()
        if len(raw) > MAX_BYTES:
            raise SpecError(Problem(rule=f"{what} has at most {MAX_BYTES:,} bytes",
                                    got=f"{len(raw):,}", where=name))
        node = yaml.compose(raw.decode("utf-8"), Loader=Loader)
    except FileNotFoundError:
        raise SpecError(Problem(rule=f"{what} must exist", got=name, cure=cure)) from None
    except OSError as error:
        raise SpecError(Problem(rule=f"{what} must be a readable file", got=str(error),
                                where=name)) from None
    except UnicodeDecodeError as error:
        raise SpecError(Problem(rule=f"{what} is UTF-8 text", got=f"byte {error.start} that is not",
                                where=name, cure="Save it as UTF-8.")) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        raise SpecError(Problem(rule=f"{what} must be YAML: {error.problem}", where=place,
                                cure="Check the indentation and the colons there.")) from None
    except yaml.YAMLError as error:
        raise SpecError(Problem(rule=f"{what} must be YAML", got=str(error).split("\n")[0],
                                where=name)) from None
    if not isinstance(node, yaml.MappingNode):
        raise SpecError(Problem(rule=f"{what} is a mapping of keys to values", where=name, cure=cure))
    marks: dict[Place, tuple[int, int]] = {}
    return walk(node, (), marks, name), marks


def _distinct(error: ValidationError) -> Iterator[Any]:
    """One error a place: a union reports one for each of its members. Where a member that is meant
    has one further within, those of the others say nothing; one of words that would do is the last
    choice, but for forms that the value does not have."""
    items = [(_place(item), item) for item in error.errors(include_url=False)]
    around = {place[:depth] for place, _ in items for depth in range(len(place))}
    told: dict[Place, Any] = {}
    for place, item in items:
        before = told.get(place)
        if place not in around and (before is None or (
                before["type"] == "literal_error"
                and not item["type"].endswith(("_type", "_parsing", "literal_error")))):
            told[place] = item
    yield from told.values()


def _place(item: Any) -> Place:
    return (*_plain_place(item["loc"]), *getattr(item.get("ctx", {}).get("error"), "place", ()))


def _plain_place(loc: tuple[str | int, ...]) -> Place:
    """Pydantic's `loc` without the names of union members and validators."""
    return tuple(part for part in loc if isinstance(part, int) or not _MEMBER.search(part))



def problems(
    error: ValidationError,
    marks: Marks,
    file: str,
    model: type[BaseModel],
    overridden: Collection[Place] = (),
) -> list[Problem]:
    """Every problem of `error`, at its place in `file` (or at the --set that made it)."""
    return [_problem(item, marks, file, model, overridden) for item in _distinct(error)]


def _problem(
    item: Any, marks: Marks, file: str, model: type[BaseModel], overridden: Collection[Place]
) -> Problem:
    error = item.get("ctx", {}).get("error")
    place = _place(item)
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
        known = _known_keys(place[:-1], model)
        return Problem(rule=f"unknown key {dotted!r}{did_you_mean(str(place[-1]), known)}",
                       where=where, cure=f"Known here: {', '.join(known)}.")
    if kind == "missing":
        return Problem(rule=f"{dotted} is required", where=where, cure=f"Add the key {dotted}.")
    if kind == "value_error":
        rule, _, got = str(error).partition(", but got ")
        return Problem(rule=f"{dotted}: {rule}" if dotted else rule, got=got, where=where,
                       cure=getattr(error, "cure", ""))
    message = item["msg"][0].lower() + item["msg"][1:]
    got = json.dumps(item["input"], default=str)
    return Problem(rule=f"{dotted}: {message}", got=got if len(got) < 80 else got[:77] + "...",
                   where=where)


def _known_keys(place: Place, root: type[BaseModel]) -> list[str]:
    """The keys that `root` takes at `place`."""
    model: Any = root
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


