"""Validates manifests against the schemas of a cluster's own resources (CRDs).

Kubernetes drops fields that it does not know without a word; here they are errors.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from raymill.errors import Problem, UsageError

from .pods import Manifest

Schema = dict[str, Any]
KINDS = ("RayCluster", "RayJob", "RayService", "RayCronJob")


def read_schemas(folder: Path) -> dict[str, Schema]:
    """The schemas in `folder` by kind: CRDs as `kubectl get crd NAME -o yaml` prints them, or
    bare openAPIV3Schemas named like `rayjobs.v1.schema.json`; both may be gzipped.

    Raises:
        UsageError: none of Ray's kinds is among them.
    """
    found: dict[str, Schema] = {}
    for path in sorted(folder.glob("*")):
        if path.is_file() and {".json", ".yaml", ".yml"} & set(path.suffixes):
            raw = path.read_bytes()
            text = gzip.decompress(raw) if path.suffix == ".gz" else raw
            documents = [json.loads(text)] if ".json" in path.suffixes else yaml.safe_load_all(text)
            for document in documents:
                found |= dict(_schemas(path, document))
    if not found:
        raise UsageError(f"{folder} must hold the schemas of Ray's resources", cure=(
            "kubectl get crd rayclusters.ray.io rayjobs.ray.io rayservices.ray.io -o yaml "
            "> FOLDER/crds.yaml"))
    return found


def _schemas(path: Path, document: Any) -> Iterator[tuple[str, Schema]]:
    if not isinstance(document, dict):
        return
    if "items" in document and document.get("kind") == "List":
        for item in document["items"]:
            yield from _schemas(path, item)
    elif document.get("kind") == "CustomResourceDefinition":
        kind = document["spec"]["names"]["kind"]
        for version in document["spec"]["versions"]:
            if kind in KINDS and version["name"] == "v1":
                yield kind, version["schema"]["openAPIV3Schema"]
    elif "properties" in document:
        for kind in KINDS:
            if path.name.startswith(f"{kind.lower()}s."):
                yield kind, document


def check(manifests: Sequence[Manifest], schemas: dict[str, Schema]) -> list[Problem]:
    """What is wrong with the manifests of Ray's kinds.

    Raises:
        UsageError: there is no schema for a kind of theirs.
    """
    from jsonschema import Draft202012Validator

    problems = []
    for manifest in manifests:
        if manifest["kind"] not in KINDS:
            continue
        if manifest["kind"] not in schemas:
            raise UsageError(f"the schemas must hold {manifest['kind']}",
                             cure="Add its CRD, or take a KubeRay that has it.")
        validator = Draft202012Validator(closed(schemas[manifest["kind"]], top=True))
        for error in sorted(validator.iter_errors(manifest), key=lambda e: list(map(str, e.path))):
            place = ".".join(map(str, error.absolute_path)) or "the manifest"
            problems.append(Problem(rule=f"{manifest['kind']}: {place}", got=error.message[:300]))
    return problems


def closed(schema: Any, top: bool = False) -> Any:
    """The schema with fields that it does not name refused.

    `metadata` of the resource itself is Kubernetes' own and stays open.
    """
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    copy = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes-")}
    for key in ("items", "additionalProperties", "anyOf", "allOf", "oneOf", "not"):
        if key in copy:
            copy[key] = closed(copy[key])
    if "properties" in copy:
        copy["properties"] = {
            name: each if top and name == "metadata" else closed(each)
            for name, each in copy["properties"].items()
        }
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            copy.setdefault("additionalProperties", False)
    return copy
