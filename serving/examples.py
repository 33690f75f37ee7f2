"""One request in the words of each protocol, for the page that people read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .protocols.tensors import OF_TYPE

if TYPE_CHECKING:
    from raymill.data.contract import Contract


def examples(
    contract: Contract, row: Mapping[str, Any], name: str, url: str
) -> list[tuple[str, str]]:
    """(title, command) for each protocol, of one example row."""
    return [
        ("Open Inference Protocol v2", _curl(f"{url}/v2/models/{name}/infer", infer(contract, row))),
        ("MLflow scoring", _curl(f"{url}/invocations", {"dataframe_records": [row]})),
        ("Arrow, for many rows", _ARROW.format(url=url)),
        ("Python", _PYTHON.format(url=url, row=dict(row))),
    ]


def infer(contract: Contract, row: Mapping[str, Any]) -> dict[str, Any]:
    """The row as an infer request of v2; what it has no value for is left out."""
    return {"inputs": [
        {"name": name, "datatype": OF_TYPE[contract.columns[name].type], "shape": [1],
         "data": [value]}
        for name, value in row.items() if value is not None
    ]}


def quoted(document: Any) -> str:
    """JSON as one argument of a shell."""
    return "'" + json.dumps(document).replace("'", "'\\''") + "'"


def _curl(url: str, document: Any) -> str:
    return f"curl {url} -H 'Content-Type: application/json' \\\n  -d {quoted(document)}"


_ARROW = """\
import httpx, pyarrow as pa
sink = pa.BufferOutputStream()
with pa.ipc.new_stream(sink, table.schema) as stream:      # table: a pyarrow.Table of the fields
    stream.write_table(table)
answer = httpx.post("{url}/predict", content=sink.getvalue().to_pybytes(),
                    headers={{"Content-Type": "application/vnd.apache.arrow.stream"}})
answers = pa.ipc.open_stream(answer.content).read_all()"""

_PYTHON = """\
import raymill
with raymill.Client("{url}") as client:
    client.predict([{row}])"""
