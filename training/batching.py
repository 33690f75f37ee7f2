"""How many rows a global batch has."""

from __future__ import annotations

import math

from raymill.data.schema import InputSchema

from .spec import TrainingSpec

AUTO_BATCH = (32, 1024)
AUTO_HEAVY = (32, 256)  # of images and texts: activations of more leave the CPU's caches


def batch_rows(spec: TrainingSpec, rows: int, schema: InputSchema) -> int:
    """Rows of a global batch; `auto` is the power of two nearest to a 64th of the rows."""
    if spec.batch_size != "auto":
        return spec.batch_size
    low, high = AUTO_HEAVY if schema.image is not None or schema.text else AUTO_BATCH
    return 1 << round(math.log2(min(high, max(low, rows / 64))))
