"""What a service process is told to serve, and where it keeps its files."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from .spec import ServingSpec


class ModelVersionLike(Protocol):
    """A registered version; `bundle_path`: its bundle on this machine, None when not fetched."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def digest(self) -> str: ...
    @property
    def bundle_path(self) -> Path | None: ...


class VariantLike(Protocol):
    """A version in a service's plan; `bundle`: its path."""

    @property
    def version(self) -> int: ...
    @property
    def digest(self) -> str: ...
    @property
    def bundle(self) -> str: ...


@dataclass(frozen=True)
class Order:
    """One service: the model version, the endpoint's limits, and its private folder."""

    name: str
    version: int
    digest: str
    bundle: str  # path of the bundle
    spec: ServingSpec
    home: str
    folder: str  # private (0700), short, and gone when the service has ended
    parent: int  # the service ends with this process; 0: it goes on alone
    tracking: str = ""  # URI of the registry; "": the home's own
    cluster: str = ""  # host:port of its GCS; "": a Ray of the service's own

    @property
    def log(self) -> Path:
        return log_path(Path(self.home), self.name)

    @property
    def url(self) -> str:
        return self.spec.url

    def write(self) -> Path:
        path = Path(self.folder) / "order.json"
        write_private(path, self.text())
        return path

    def text(self) -> str:
        return json.dumps(asdict(self) | {"spec": self.spec.model_dump(mode="json")})

    def of(self, variant: VariantLike) -> Order:
        """The order of another version, served in the same way."""
        return replace(self, version=variant.version, digest=variant.digest, bundle=variant.bundle)

    @classmethod
    def read(cls, path: Path) -> Order:
        data: dict[str, Any] = json.loads(path.read_text())
        return cls(**data | {"spec": ServingSpec.model_validate(data["spec"])})


def prefix_of(name: str) -> str:
    """The path below which a cluster's Serve knows a model; its clients do not see it."""
    return f"/{name}"


def log_path(home: Path, name: str) -> Path:
    """What the processes of a service said."""
    return home / "services" / f"{name}.log"


def write_private(path: Path, text: str) -> None:
    """Replace `path` by a file of mode 0600 in one step."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    new.replace(path)
