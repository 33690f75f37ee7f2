"""Every row of the input is answered once, or set aside with its reasons; a kill changes nothing."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from raymill.data.chunks import Chunk
from raymill.data.source import discover
from raymill.errors import DataError, UsageError
from raymill.serving.score import ScoreOptions, pool_sizes, score
from raymill.serving.score_book import opened
from raymill.serving.score_units import QUARANTINE, Done, Layout, Unit, Worker, cut
from raymill.training.bundle import Bundle
from raymill.training.predictor import Predictor

from .models import small_bundle, version_of


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return small_bundle(tmp_path_factory.mktemp("model") / "bundle", key=["id"])


def frame(rows: int, first: int = 0) -> pd.DataFrame:
    numbers = np.arange(first, first + rows)
    return pd.DataFrame({"id": numbers, "x": (numbers % 11).astype(float),
                         "colour": np.array(["red", "blue", "green"])[numbers % 3]})


def csv(path: Path, rows: pd.DataFrame, *more: str) -> Chunk:
    """The rows as a CSV file, `more` lines after them, and the one chunk that it is."""
    text = rows.to_csv(index=False) + "".join(line + "\n" for line in more)
    path.write_text(text)
    (file,) = discover(str(path), path.parent)
    return Chunk((file,), 0, 1, len(rows) + len(more), len("id,x,colour\n"), len(text),
                 columns=("id", "x", "colour"))


def worker(bundle: Bundle, units: list[Unit], layout: Layout, *, quarantine: bool = True) -> Worker:
    return Worker(str(bundle.path), bundle.digest, 7, str(bundle.path), units, layout, quarantine,
                  layout.out + ".halt")


def test_units_hold_every_row_once(tmp_path: Path) -> None:
    chunk = csv(tmp_path / "a.csv", frame(10))
    units = cut([chunk], rows=4)
    assert [(unit.low, unit.high) for unit in units] == [(0, 4), (4, 8), (8, None)]
    assert len({unit.part for unit in units}) == 3


def test_the_pool_may_grow_onto_added_machines_but_not_beyond_what_was_asked_for() -> None:
    assert pool_sizes(None, 4.0, 30) == {"min_size": 4, "max_size": 30}
    assert pool_sizes(None, 4.0, 3) == {"min_size": 3, "max_size": 3}
    assert pool_sizes(2, 4.0, 30) == {"min_size": 2, "max_size": 2}
    assert pool_sizes(None, 0.0, 1) == {"min_size": 1, "max_size": 1}


@pytest.mark.parametrize("format", ["parquet", "csv", "jsonl"])
def test_parts_hold_the_predictors_own_answers(
    bundle: Bundle, tmp_path: Path, format: Any
) -> None:
    rows = frame(50)
    units = cut([csv(tmp_path / "a.csv", rows)], rows=20)
    out = tmp_path / "out"
    scorer = worker(bundle, units, Layout(str(out), format, keep=("id",)))
    done = [scorer.score(unit) for unit in units]
    assert sum(each.scored for each in done) == 50 and not any(each.quarantined for each in done)
    answers = pd.concat([_read(out / file["name"], format) for each in done for file in each.files])
    expected = Predictor(bundle).predict_frame(rows)
    assert answers["id"].astype(int).tolist() == rows["id"].tolist()
    assert answers["source_row"].tolist() == list(range(1, 51))
    assert answers["prediction"].tolist() == expected["prediction"].tolist()
    assert np.allclose(answers["probability_yes"], expected["probability_yes"], atol=1e-9)
    assert set(answers["model_version"]) == {7} and set(answers["source_file"]) == {"a.csv"}


def _read(path: Path, format: str) -> pd.DataFrame:
    if format == "jsonl":
        return pd.read_json(path, lines=True)
    table = pq.read_table(path) if format == "parquet" else pacsv.read_csv(path)
    return table.to_pandas()


def test_partitions_are_folders_of_their_values(bundle: Bundle, tmp_path: Path) -> None:
    units = cut([csv(tmp_path / "a.csv", frame(9), "9,1,")])
    layout = Layout(str(tmp_path / "out"), keep=("id", "colour"), partition=("colour",))
    (done,) = [worker(bundle, units, layout).score(unit) for unit in units]
    folders = {file["folder"]: file["rows"] for file in done.files}
    assert folders == {"colour=red": 3, "colour=blue": 3, "colour=green": 3,
                       "colour=__HIVE_DEFAULT_PARTITION__": 1}
    assert sum(folders.values()) == done.scored == 10


BROKEN = ("10,99,red", "11,some,red", "12,1")


def test_bad_rows_end_the_scoring_or_are_set_aside(bundle: Bundle, tmp_path: Path) -> None:
    units = cut([csv(tmp_path / "a.csv", frame(10), *BROKEN)])
    layout = Layout(str(tmp_path / "out"))
    (refused,) = [worker(bundle, units, layout, quarantine=False).score(u) for u in units]
    places = {problem["where"] for problem in refused.problems}
    assert places == {"a.csv row 11", "a.csv row 12", "a.csv row 13"}
    assert not refused.files and not (tmp_path / "out").exists()
    scorer = worker(bundle, units, layout)
    batch = {"unit": np.arange(1)}
    assert not len(scorer(batch)["done"])  # none is begun after one was refused
    Path(layout.out + ".halt").unlink()
    (done,) = [Done.from_json(text) for text in scorer(batch)["done"]]
    assert (done.scored, done.quarantined) == (10, 3)
    assert [file["folder"] for file in done.files] == ["", QUARANTINE]
    aside = pq.read_table(tmp_path / "out" / QUARANTINE / f"{done.part}.parquet").to_pylist()
    assert sorted(row["row"] for row in aside) == [11, 12, 13]
    assert all(json.loads(row["reasons"])[0]["rule"] for row in aside)


def test_half_a_line_and_a_changed_file_are_done_again(bundle: Bundle, tmp_path: Path) -> None:
    units = cut([csv(tmp_path / "a.csv", frame(30))], rows=10)
    out = tmp_path / "out"
    with opened(out, {"digest": "d"}, restart=False) as book:
        for unit in units:
            book.add(worker(bundle, units, Layout(str(out))).score(unit))
    lines = out / "_raymill" / "done.jsonl"
    whole = lines.read_bytes()
    lines.write_bytes(whole[:-20])
    (out / f"{units[0].part}.parquet").write_bytes(b"other")
    with opened(out, {"digest": "d"}, restart=False) as book:
        assert set(book.done) == {units[1].part}
    with opened(out, {"digest": "d"}, restart=True) as book:
        assert not book.done and not list(out.glob("part-*"))


def test_a_folder_holds_one_scoring_only(bundle: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with opened(out, {"digest": "d", "version": 1}, restart=False):
        with pytest.raises(UsageError, match="another process"), opened(out, {}, restart=False):
            pass
    with pytest.raises(UsageError, match="another scoring: its version is 1"):
        with opened(out, {"digest": "d", "version": 2}, restart=False):
            pass
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "own.txt").touch()
    with pytest.raises(UsageError, match="a folder of its own"):
        with opened(tmp_path / "full", {}, restart=False):
            pass


def test_done_comes_back_from_its_line() -> None:
    done = Done("part-0", 3, 1, 1.5, 2.5, ({"name": "a", "rows": 3},), ({"rule": "r"},))
    assert Done.from_json(done.to_json()) == done


@pytest.mark.usefixtures("ray_local")
def test_a_scoring_goes_on_where_it_ended(bundle: Bundle, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    pq.write_table(pa.Table.from_pandas(frame(200), preserve_index=False), data / "a.parquet")
    csv(data / "b.csv", frame(100, 200), "300,99,red")
    out, version = tmp_path / "out", version_of(bundle)
    with pytest.raises(DataError, match=r"b\.csv row 101"):
        score(version, [str(data)], out, tmp_path, ScoreOptions(workers=1))
    assert not (out / "_raymill" / "manifest.json").exists()
    lines = out / "_raymill" / "done.jsonl"  # the other file's part, if it was begun before
    finished = len(lines.read_text().splitlines()) if lines.exists() else 0
    options = ScoreOptions(workers=2, on_violation="quarantine")
    result = score(version, [str(data)], out, tmp_path, options)
    assert (result.scored, result.quarantined, result.parts) == (300, 1, 2)
    assert result.resumed == finished
    again = score(version, [str(data)], out, tmp_path, options)
    assert again.resumed == 2 and again.scored == 300
    ids = [i for path in out.glob("part-*") for i in pq.read_table(path)["id"].to_pylist()]
    assert sorted(map(int, ids)) == list(range(300))
    manifest = json.loads((out / "_raymill" / "manifest.json").read_text())
    assert sum(file["rows"] for file in manifest["files"]) == 300
    (aside,) = manifest["quarantine"]
    path = out / aside["name"]
    assert path.parent.name == QUARANTINE and aside["rows"] == len(pq.read_table(path)) == 1
    assert aside["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    path.unlink()  # it is part of the scoring, and made again
    assert score(version, [str(data)], out, tmp_path, options).resumed == 1 and path.exists()
    with pytest.raises(UsageError, match="another scoring: its layout"):
        score(version, [str(data)], out, tmp_path, ScoreOptions(format="csv"))
