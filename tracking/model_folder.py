"""The folder that MLflow takes for a model: our bundle as it is, and MLflow's description of it."""

from __future__ import annotations

import base64
import io
import json
import platform
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import AnyType
from PIL import Image

from raymill.data.contract import ColumnRule, Contract
from raymill.training.bundle import Bundle

BUNDLE = "bundle"
REQUIRED = ("raymill", "mlflow", "torch", "numpy", "pandas", "pyarrow", "safetensors")
TYPES = {
    "int64": DataType.long, "float64": DataType.double, "bool": DataType.boolean,
    "string": DataType.string, "timestamp": DataType.datetime, "binary": DataType.binary,
}
PLAIN: dict[str, Any] = {"int64": 0, "float64": 0.0, "bool": False, "string": "text",
                         "timestamp": "2024-01-01T00:00:00"}


def write_model_folder(folder: Path, bundle: Bundle, mlflow_run: str | None) -> None:
    """Fill the empty `folder`; `bundle/` in it is the bundle, byte for byte."""
    shutil.copytree(bundle.path, folder / BUNDLE)
    model = Model(run_id=mlflow_run, signature=signature(bundle.contract),
                  metadata={"raymill.digest": bundle.digest})
    model.add_flavor("python_function", loader_module="raymill.tracking.pyfunc", data=BUNDLE,
                     python_version=platform.python_version(),
                     env={"virtualenv": "python_env.yaml"}, digest=bundle.digest)
    model.saved_input_example_info = _write_example(folder, bundle.contract)
    model.save(str(folder / "MLmodel"))
    pins = [f"{name}=={version(name).partition('+')[0]}" for name in REQUIRED]
    (folder / "requirements.txt").write_text("\n".join([*pins, ""]))
    env = {"python": platform.python_version(), "build_dependencies": ["pip"],
           "dependencies": ["-r requirements.txt"]}
    (folder / "python_env.yaml").write_text(yaml.safe_dump(env, sort_keys=False))


def signature(contract: Contract) -> ModelSignature:
    """What goes in and comes out, in MLflow's words."""
    inputs = Schema([_column(name, contract.columns[name]) for name in contract.features])
    outputs = [ColSpec(DataType.double if contract.task == "regression" else DataType.string,
                       "prediction")]
    outputs += [ColSpec(DataType.double, f"probability_{name}") for name in contract.classes or ()]
    return ModelSignature(inputs, Schema(outputs))


def example(contract: Contract) -> dict[str, Any]:
    """One made-up row that fits the contract, JSON-serialisable; no value of a real row beyond
    the contract's own bounds and categories, and nothing of sensitive columns."""
    return {name: _value(contract.columns[name]) for name in contract.features}


def _column(name: str, rule: ColumnRule) -> ColSpec:
    # pandas holds integers with gaps as floats, and MLflow refuses those for `long`.
    whole_with_gaps = rule.type == "int64" and rule.nullable
    return ColSpec(AnyType() if whole_with_gaps else TYPES[rule.type], name)


def _value(rule: ColumnRule) -> Any:
    if rule.kind == "image":
        return _gray_image()
    if rule.kind == "text":
        return "a few words of text"
    if rule.sensitive:
        return None if rule.nullable else PLAIN.get(rule.type, "")
    if rule.values:
        return rule.values[0]
    if rule.type == "timestamp":
        return rule.min or rule.max or PLAIN["timestamp"]
    if rule.type in ("int64", "float64"):
        bounds = [float(b) for b in (rule.min, rule.max) if b is not None]
        middle = sum(bounds) / len(bounds) if bounds else 0.0
        return round(middle) if rule.type == "int64" else middle
    return None if rule.nullable else PLAIN.get(rule.type, "")


def _gray_image() -> str:
    buffer = io.BytesIO()
    Image.new("L", (32, 32), 128).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _write_example(folder: Path, contract: Contract) -> dict[str, str]:
    """Write the example as MLflow keeps data frames; what MLmodel says of it."""
    row = example(contract)
    split = {"columns": list(row), "data": [list(row.values())]}
    (folder / "input_example.json").write_text(json.dumps(split))
    (folder / "serving_input_example.json").write_text(json.dumps({"dataframe_split": split}))
    return {"artifact_path": "input_example.json", "type": "dataframe", "pandas_orient": "split",
            "serving_input_path": "serving_input_example.json"}
