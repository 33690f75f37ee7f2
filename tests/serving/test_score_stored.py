"""Batch scoring into a store: as into a folder, each row once."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raymill.errors import DataError, UsageError
from raymill.serving.score import ScoreOptions, score
from raymill.serving.score_units import QUARANTINE
from raymill.stores import store_at
from raymill.training.bundle import Bundle

from .models import small_bundle, version_of
from .test_score import csv, frame

OUT = "s3://rows/scored"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return small_bundle(tmp_path_factory.mktemp("model") / "bundle", key=["id"])


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context")
def test_a_scoring_into_a_store_goes_on_where_it_ended(
    s3: str, ray_local: None, bundle: Bundle, tmp_path: Path
) -> None:
    data, place = tmp_path / "data", store_at(OUT)
    data.mkdir()
    pq.write_table(pa.Table.from_pandas(frame(200), preserve_index=False), data / "a.parquet")
    csv(data / "b.csv", frame(100, 200), "300,99,red")
    version = version_of(bundle)
    with pytest.raises(DataError, match=r"b\.csv row 101"):
        score(version, [str(data)], OUT, tmp_path, ScoreOptions(workers=1))
    assert not place.has("_raymill/manifest.json")
    finished = len((place / "_raymill/done").names())
    options = ScoreOptions(workers=2, on_violation="quarantine")
    result = score(version, [str(data)], OUT, tmp_path, options)
    assert (result.scored, result.quarantined, result.parts) == (300, 1, 2)
    assert (result.resumed, result.output) == (finished, OUT)
    manifest = json.loads(place.read("_raymill/manifest.json"))
    ids = []
    for file in manifest["files"]:
        assert hashlib.sha256(place.read(file["name"])).hexdigest() == file["sha256"]
        with place.open(file["name"]) as part:
            ids += pq.read_table(part)["id"].to_pylist()
    assert sorted(map(int, ids)) == list(range(300))
    (aside,) = manifest["quarantine"]
    assert aside["name"].startswith(f"{QUARANTINE}/") and aside["rows"] == 1
    place.write(aside["name"], b"changed")  # it is made again
    assert score(version, [str(data)], OUT, tmp_path, options).resumed == 1
    assert hashlib.sha256(place.read(aside["name"])).hexdigest() == aside["sha256"]
    with pytest.raises(UsageError, match="another scoring: its layout"):
        score(version, [str(data)], OUT, tmp_path, ScoreOptions(format="csv"))
    anew = ScoreOptions(format="csv", on_violation="quarantine", restart=True)
    assert score(version, [str(data)], OUT, tmp_path, anew).resumed == 0
    assert not [name for name in place.names() if name.endswith(".parquet")
                and not name.startswith(QUARANTINE)]


def test_a_prefix_that_holds_something_else_is_refused(
    s3: str, ray_local: None, bundle: Bundle, tmp_path: Path
) -> None:
    store_at("s3://rows/other").write("notes.txt", b"mine")
    csv(tmp_path / "b.csv", frame(10))
    for out, told in (("s3://rows/other", "a place of its own"), ("s3://none-such/x", "the output")):
        with pytest.raises(UsageError, match=told):
            score(version_of(bundle), [str(tmp_path / "b.csv")], out, tmp_path)
    assert store_at("s3://rows/other").names() == ["notes.txt"]
