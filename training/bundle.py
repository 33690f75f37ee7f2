"""The bundle: the only model artifact. Weights as safetensors, the rest as JSON, no code."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor, nn

from raymill.data.contract import Contract
from raymill.data.schema import InputSchema
from raymill.data.transform import Transform
from raymill.errors import ArtifactError, Problem, TrainingError

from .balance import Shifted
from .bundle_files import FORMAT, read_bundle
from .factories import Allowed
from .families import FAMILIES, build, families_in
from .files import write_folder
from .job import TrainJob

if TYPE_CHECKING:
    from raymill.data.prepare import Prepared

WEIGHTS = "model.safetensors"
Factories = Mapping[str, Callable[..., nn.Module]]


@dataclass(frozen=True)
class Bundle:
    """A verified bundle: what was read is what was written.

    Attributes:
        path: its folder. digest: sha256 of its manifest, which names every file's sha256.
    """

    path: Path
    digest: str
    parts: Mapping[str, Any]

    @classmethod
    def open(cls, path: str | Path, digest: str | None = None) -> Bundle:
        """Read the bundle in `path`, every file checked against the manifest.

        Raises:
            ArtifactError: a file is missing, extra or changed (named), the manifest is not the one
                that `digest` names, or the bundle is of another format.
        """
        folder = Path(path)
        found, parts = read_bundle(folder, digest)
        return cls(folder, found, parts)

    @cached_property
    def schema(self) -> InputSchema:
        return InputSchema.from_dict(self.parts["model"]["schema"])

    @cached_property
    def contract(self) -> Contract:
        return Contract.model_validate(self.parts["contract"])

    @cached_property
    def transform(self) -> Transform:
        return Transform.from_dict(self.parts["transform"])

    @property
    def objective(self) -> dict[str, Any]:
        """The metric and, for a binary task, the threshold and its costs."""
        return dict(self.parts["objective"])

    @property
    def profile(self) -> dict[str, Any]:
        """Reference statistics of the training rows."""
        return dict(self.parts["profile"])

    @property
    def info(self) -> dict[str, Any]:
        """Where the model comes from: run, data, epochs, validation metrics."""
        return dict(self.parts["info"])

    @property
    def family(self) -> str:
        return str(self.parts["model"]["family"])

    @property
    def params(self) -> dict[str, Any]:
        return dict(self.parts["model"]["params"])

    def model(self, factories: Factories | None = None) -> nn.Module:
        """The model with its weights, in eval mode on the CPU.

        Args:
            factories: the user's own that may be called; see `factories.allowed`.

        Raises:
            ArtifactError: a factory that is not among them, or weights that do not fit the model.
        """
        if isinstance(factories, Allowed):
            factories = factories.of(self.info.get("name"))
        known = (*FAMILIES, *(factories or {}))
        if unknown := [f for f in families_in(self.family, self.params) if f not in known]:
            raise ArtifactError(Problem(
                rule="a model of the user's own factory loads only where its project allowed it",
                got=repr(unknown[0]), where=str(self.path),
                cure="Run raymill run or train once with the spec of that project on this machine.",
            ))
        model = build(self.family, self.params, self.schema, factories)
        try:
            model.load_state_dict(load((self.path / WEIGHTS).read_bytes()))
        except RuntimeError as error:
            raise ArtifactError(Problem(rule=f"{WEIGHTS} must fit the model {self.family}",
                                        got=str(error).split("\n")[0], where=str(self.path),
                                        cure="Was the factory changed since?")) from error
        offset = self.parts["model"].get("offset")
        return (Shifted(model, tuple(offset)) if offset else model).eval()


def write(
    dest: Path,
    job: TrainJob,
    weights: Mapping[str, Tensor],
    prepared: Prepared,
    objective: Mapping[str, Any],
    info: Mapping[str, Any],
    offset: Sequence[float] = (),
) -> Bundle:
    """Write the bundle `dest`; a bundle that stood there is replaced. `offset` is what corrects
    the model's output (see `balance`).

    Equal inputs give an equal digest: nothing in a bundle depends on the time or the place.

    Raises:
        TrainingError: the disk is full, or can't be written.
    """
    model = {"format": FORMAT, "family": job.family, "params": job.params,
             "schema": job.schema.to_dict(), "training": job.training.model_dump(mode="json")}
    if offset:
        model["offset"] = list(offset)
    parts = {
        "model": model,
        "transform": prepared.transform.to_dict(),
        "contract": prepared.contract.model_dump(mode="json"),
        "profile": prepared.profile,
        "objective": dict(objective),
        "info": dict(info),
    }

    def fill(folder: Path) -> None:
        # save_file's own file order follows the tensors': names sorted give equal bytes.
        save_file({name: weights[name].contiguous() for name in sorted(weights)}, folder / WEIGHTS)
        for name, part in parts.items():
            text = json.dumps(part, indent=1, sort_keys=True, ensure_ascii=False)
            (folder / f"{name}.json").write_text(text, encoding="utf-8")

    try:
        written = write_folder(dest, fill, {"kind": "bundle", "format": FORMAT})
    except (OSError, SafetensorError) as error:
        raise TrainingError(Problem(
            rule="a bundle must fit on the disk, and be written", got=str(error),
            where=str(dest.parent),
            cure="Free some space and run the same command: it goes on.")) from error
    return Bundle.open(written)
