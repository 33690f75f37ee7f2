"""What MLflow calls when it loads a version that raymill registered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from raymill.errors import ArtifactError
from raymill.training.bundle import Bundle
from raymill.training.factories import allowed
from raymill.training.predictor import Predictor

from .home import Home


class RaymillModel:
    """Predicts data frames, as `mlflow.pyfunc` wants it."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    def predict(self, frame: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """The frame's predictions; `params` is MLflow's and not used.

        Raises:
            DataError: rows break the contract.
        """
        return self.predictor.predict_frame(frame)


def _load_pyfunc(path: str) -> RaymillModel:
    """MLflow's hook: the bundle in `path`, checked against the digest in the MLmodel beside it.

    Raises:
        ArtifactError: a file of the bundle is not the one that was registered.
    """
    folder = Path(path)
    try:
        described = yaml.safe_load((folder.parent / "MLmodel").read_text("utf-8"))
        digest = str(described["flavors"]["python_function"]["digest"])
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        raise ArtifactError(f"a registered model names its bundle's digest, but "
                            f"{folder.parent / 'MLmodel'} does not") from None
    bundle = Bundle.open(folder, digest)
    return RaymillModel(Predictor(bundle, factories=allowed(Home.find().path)))
