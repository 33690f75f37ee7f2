"""What `mlflow models serve` runs: MLflow's own scoring app, one uvicorn process."""

from __future__ import annotations

import sys
import tempfile
from typing import Any

import mlflow
import pandas as pd
import uvicorn
from mlflow.pyfunc.scoring_server import init

from benchmarks.peers.network import NAMES, load, probabilities


class Model(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    def load_context(self, context: Any) -> None:
        self.network = load()

    def predict(self, context: Any, model_input: pd.DataFrame) -> list[float]:
        rows = model_input[NAMES].to_numpy(dtype="float32")
        return probabilities(self.network, rows)


def main(port: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        path = f"{place}/pyfunc"
        mlflow.pyfunc.save_model(path, python_model=Model())
        app = init(mlflow.pyfunc.load_model(path))
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", access_log=False)


if __name__ == "__main__":
    main(int(sys.argv[1]))
