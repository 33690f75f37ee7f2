"""An ensemble is a bundle like any other: it answers with the mean of its members."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from raymill.data.schema import InputSchema
from raymill.errors import ArtifactError
from raymill.training.bundle import Bundle, write
from raymill.training.families.ensemble import ENSEMBLE, params_of, weights_of
from raymill.training.job import TrainJob
from raymill.training.model import build_model
from raymill.training.predictor import Predictor

from .samples import BINARY, CLASSES, VALUES, job, prepared
from .test_bundle import FACTORY, table


def together(folder: Path, members: list[TrainJob]) -> Bundle:
    made = replace(members[0], family=ENSEMBLE,
                   params=params_of([(each.family, each.params) for each in members]))
    weights = weights_of([build_model(each).state_dict() for each in members])
    return write(folder / "bundle", made, weights, prepared(folder, made.schema), {}, {"name": "x"})


@pytest.mark.parametrize("schema", [BINARY, CLASSES, VALUES])
def test_it_answers_the_mean_of_its_members(schema: InputSchema, tmp_path: Path) -> None:
    members = [job(schema, seed=1), job(schema, family="linear"), job(schema, seed=2)]
    rows = table(50, schema)
    whole = Predictor(together(tmp_path, members)).scores(rows)
    single = [
        Predictor(write(tmp_path / str(n), each, build_model(each).state_dict(),
                        prepared(tmp_path, schema), {}, {})).scores(rows)
        for n, each in enumerate(members)
    ]
    assert np.allclose(whole, np.mean(single, axis=0), atol=1e-6)
    assert not np.allclose(whole, single[0], atol=1e-3)


def test_a_changed_byte_in_any_member_is_refused(tmp_path: Path) -> None:
    bundle = together(tmp_path, [job(seed=1), job(seed=2)])
    file = bundle.path / "model.safetensors"
    written = bytearray(file.read_bytes())
    written[-1] ^= 1
    file.write_bytes(written)
    with pytest.raises(ArtifactError, match="must be as it was written"):
        Bundle.open(bundle.path, bundle.digest)


def test_a_members_factory_loads_only_where_it_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "ensemble_nets.py").write_text(FACTORY)
    own = job(VALUES, family="ensemble_nets:make", model={}, project=str(tmp_path))
    bundle = together(tmp_path, [job(VALUES), own])
    with pytest.raises(ArtifactError, match="only where its project allowed it"):
        bundle.model()
