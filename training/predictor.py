"""A bundle that answers: the same object behind evaluation, batch scoring and the endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from raymill.data.contract import conform
from raymill.errors import DataError, Problem

from .batching import rows_at_once
from .bundle import Bundle, Factories
from .losses import scores_of
from .shard import as_tensor

if TYPE_CHECKING:
    import pandas as pd

LISTED = 20  # violations that an error lists


class Predictor:
    """Predictions of one bundle on one device. Calls are pure, and safe from several threads.

    Args:
        factories: the user's own that the bundle may name; see `training.factories.allowed`.
        threads: torch's threads in this process (None: left as they are).

    Raises:
        ArtifactError: the bundle names a factory that is not allowed here, or does not fit it.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: str = "cpu",
        factories: Factories | None = None,
        threads: int | None = None,
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self.bundle = bundle
        self.schema = bundle.schema
        self.device = torch.device(device)
        self._transform = bundle.transform
        self._rows = rows_at_once(self.schema)  # memory stays flat
        self._model = bundle.model(factories).to(self.device)
        self._threshold = float(bundle.objective.get("threshold", 0.5))
        self._classes = np.asarray(self.schema.classes or (), dtype=object)

    def scores(self, table: pa.Table) -> NDArray[np.float64]:
        """`[B]` probabilities of the positive class, `[B, K]` of the classes, or `[B]` values.

        `table` is conformed to the bundle's contract; a target column is not needed.
        """
        parts = [self._score(table.slice(low, self._rows))
                 for low in range(0, len(table), self._rows)]
        if len(parts) == 1:
            return parts[0]
        wide = (0,) if self.schema.task != "multiclass" else (0, self.schema.outputs)
        return np.concatenate(parts) if parts else np.zeros(wide)

    @torch.inference_mode()
    def _score(self, table: pa.Table) -> NDArray[np.float64]:
        arrays = self._transform.apply(table)
        batch = {name: as_tensor(array).to(self.device) for name, array in arrays.items()}
        scores = scores_of(self._model(batch), self.schema)
        return scores.cpu().numpy().astype(np.float64)

    def predict(self, table: pa.Table) -> pa.Table:
        """`prediction` and, for class tasks, `probability_<class>` of every class, float64.

        A binary `prediction` is the positive class from the bundle's threshold on; a regression's
        is in the target's unit.
        """
        return self.answer(self.scores(table))

    def answer(self, scores: NDArray[np.float64]) -> pa.Table:
        """The table that `predict` gives, of `scores` that are there already."""
        if self.schema.task == "regression":
            return pa.table({"prediction": scores})
        if self.schema.task == "binary":
            index = (scores >= self._threshold).astype(np.int64)
            columns = [1 - scores, scores]
        else:
            index = scores.argmax(axis=1)
            columns = [np.ascontiguousarray(column) for column in scores.T]
        chosen = pa.array(self._classes[index], type=pa.string())
        names = [f"probability_{name}" for name in self._classes]
        return pa.table([chosen, *map(pa.array, columns)], names=["prediction", *names])

    def predict_frame(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Predictions of the frame's rows, in its order and with its index.

        Raises:
            DataError: rows break the contract; names each row (from 0), column and rule.
        """
        table = pa.Table.from_pandas(frame, preserve_index=False)
        conformed = conform(table, self.bundle.contract)
        if conformed.bad:
            problems = [
                Problem(rule=v.rule, got=v.got, where=f"rows[{v.index}].{v.column}" if v.index >= 0 else v.column)
                for v in conformed.bad[:LISTED]
            ]
            if len(conformed.bad) > LISTED:
                problems.append(Problem(rule=f"{len(conformed.bad) - LISTED} more like these"))
            raise DataError(problems)
        answers: pd.DataFrame = self.predict(conformed.table).to_pandas()
        answers.index = frame.index
        return answers
