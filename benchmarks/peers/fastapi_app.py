"""One FastAPI + uvicorn process; the row's numbers are typed by pydantic."""

from __future__ import annotations

import sys
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel, create_model

from benchmarks.peers.network import NAMES, load, probabilities

Row: Any = create_model("Row", **dict.fromkeys(NAMES, (float, ...)))


class Rows(BaseModel):
    rows: list[Row]


def main(port: int) -> None:
    app, network = FastAPI(), load()

    @app.post("/predict")
    async def predict(request: Rows) -> dict[str, list[float]]:
        rows = [list(row.__dict__.values()) for row in request.rows]
        return {"predictions": probabilities(network, rows)}

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", access_log=False)


if __name__ == "__main__":
    main(int(sys.argv[1]))
