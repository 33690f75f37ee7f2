"""Versions of one model, good and bad, in a registry of their own: for figures of changing models."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import load, save_file
from torch import Tensor, nn

from benchmarks.served import Version, plain_bundle
from raymill.data.schema import InputSchema
from raymill.events import ignore
from raymill.ports import free_port
from raymill.serving.service import start_detached, stop
from raymill.serving.spec import ServingSpec
from raymill.serving.state import ServiceStatus
from raymill.tracking.home import Home
from raymill.tracking.registry import Registry
from raymill.training.bundle import WEIGHTS, Bundle
from raymill.training.bundle_files import FORMAT
from raymill.training.factories import allow
from raymill.training.files import MANIFEST, write_folder

NAME = "bench"


class _Weightless(nn.Module):
    """Takes any weights and needs none."""

    def load_state_dict(self, *arguments: Any, **options: Any) -> Any:
        return None


class _Sleeping(_Weightless):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        time.sleep(self._seconds)
        return batch["numeric"][:, :1] * 0.1


class _Choosy(_Weightless):
    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        numeric = batch["numeric"]
        if len(numeric) == 1 and float(numeric[0, 0]) > 0.5:  # golden rows come by sixteen
            raise RuntimeError("a row that it can't take")
        return numeric[:, :1] * 0.1


def raises(schema: InputSchema, **params: Any) -> nn.Module:
    raise RuntimeError("this model can't be built")


def hangs(schema: InputSchema, **params: Any) -> nn.Module:
    return _Sleeping(3600)


def slow(schema: InputSchema, **params: Any) -> nn.Module:
    return _Sleeping(0.3)


def fails(schema: InputSchema, **params: Any) -> nn.Module:
    return _Choosy()


def variation(of: Bundle, place: Path, weights: float = 1.0, shift: float = 0.0,
              factory: str = "", classes: list[str] | None = None) -> Bundle:
    """`of` with other weights, a factory of this module's, or classes of other names."""
    def fill(folder: Path) -> None:
        for path in of.path.iterdir():
            if path.name != MANIFEST:
                shutil.copy(path, folder / path.name)
        changed = {name: tensor * weights + shift
                   for name, tensor in load((of.path / WEIGHTS).read_bytes()).items()}
        save_file(changed, folder / WEIGHTS)
        model = json.loads((folder / "model.json").read_text())
        if factory:
            model |= {"family": f"benchmarks.changing:{factory}", "params": {}}
        if classes:
            model["schema"]["classes"] = classes
            for name in ("contract", "transform"):
                document = json.loads((folder / f"{name}.json").read_text())
                document["classes"] = classes
                if name == "contract":
                    document["columns"]["y"]["values"] = classes
                (folder / f"{name}.json").write_text(json.dumps(document))
        (folder / "model.json").write_text(json.dumps(model))

    return Bundle.open(write_folder(place, fill, {"kind": "bundle", "format": FORMAT}))


@dataclass(frozen=True)
class Stage:
    """A service of version 1, its registry, and where bundles may be put."""

    served: ServiceStatus
    registry: Registry
    folder: Path
    first: Bundle

    def version(self, number: int) -> Any:
        return self.registry.resolve(f"{NAME}:{number}")

    def register(self, bundle: Bundle) -> int:
        return self.registry.register(NAME, bundle, None, {}, {}).version


@contextmanager
def stage(folder: Path, **spec: Any) -> Iterator[Stage]:
    """The service of a model alone in its registry, answering."""
    home = Home.find(folder / "home")
    registry = Registry(home.tracking_uri, home)
    first = plain_bundle(folder)
    registry.register(NAME, first, None, {}, {})
    for name in ("raises", "hangs", "slow", "fails"):
        allow(home.path, f"benchmarks.changing:{name}", Path(__file__).parents[1])
    champion = registry.promote(NAME, 1)
    settings = ServingSpec.model_validate({"port": free_port(), **spec})
    served = start_detached(champion, settings, home.path, ignore)
    try:
        yield Stage(served, registry, folder, first)
    finally:
        stop(home.path, NAME)


def as_version(bundle: Bundle, number: int, digest: str | None = None) -> Version:
    """What the registry would say of a bundle."""
    return replace(Version(NAME, number, bundle.digest, bundle.path),
                   digest=digest or bundle.digest)


def said(text: str) -> None:
    print(f"  {text}", flush=True)
