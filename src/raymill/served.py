"""A registered model as an application of Ray Serve on a cluster that others run, like KubeRay's.

Serve imports `raymill.served:app` and calls it with arguments from its configuration.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ray import serve

from raymill.data.contract import Contract
from raymill.errors import ArtifactError
from raymill.serving.deploy import Replica, application
from raymill.serving.loading import Load, load_bundle
from raymill.serving.order import Order
from raymill.serving.scorer import PredictorLike
from raymill.serving.spec import ServingSpec
from raymill.tracking.home import Home
from raymill.tracking.registry import Registry
from raymill.training.factories import allow

IMPORT_PATH = "raymill.served:app"


class PodReplica(Replica):
    """A replica whose private folder is made where it runs."""

    def __init__(self, order: Order, load: Load) -> None:
        os.umask(0o077)
        folder = Path(tempfile.mkdtemp(prefix="rm-", dir="/tmp"))
        (folder / "metrics").mkdir()
        super().__init__(replace(order, folder=str(folder), home=str(Home.find().path)), load)


def app(arguments: dict[str, Any]) -> serve.Application:
    """The application.

    Args:
        arguments: `name`, `version` and `digest` of the model; `serving`, the spec's part;
            `tracking_uri` (None: the home's store); `factories`, the project's own models that it
            may name, from the folder `project`.
    """
    spec = ServingSpec.model_validate(arguments["serving"])
    order = Order(name=arguments["name"], version=int(arguments["version"]),
                  digest=arguments["digest"], bundle="", spec=spec, home="", folder="", parent=0)
    load = partial(_load, tracking_uri=arguments.get("tracking_uri"),
                   factories=list(arguments.get("factories") or ()),
                   project=arguments.get("project"))
    return application(spec, order, load, PodReplica)


def _load(
    order: Order, *, tracking_uri: str | None, factories: list[str], project: str | None
) -> tuple[Contract, PredictorLike]:
    """Fetch the bundle, and open it if it is the one that was asked for."""
    home = Home(Path(order.home))
    found = Registry(tracking_uri or home.tracking_uri, home).resolve(
        f"{order.name}:{order.version}")
    if found.digest != order.digest or found.bundle_path is None:
        raise ArtifactError(f"{order.name}:{order.version} has the digest {found.digest}, but "
                            f"{order.digest} is to be served")
    for name in factories:
        allow(home.path, name, Path(project or "."), model=order.name)
    return load_bundle(replace(order, bundle=str(found.bundle_path)))
