"""From files to prepared splits: in = kept + quarantined + in gaps, and nothing done twice."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
import ray

from raymill.data.contract import Contract
from raymill.data.prepare import Prepared, check, prepare
from raymill.data.spec import DataSpec
from raymill.errors import DataError, Problem
from raymill.events import Event

pytestmark = [
    pytest.mark.usefixtures("ray_local"),
    # Ray's DataContext sets deprecated fields of its own when it is first made.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),
]


def spec(**more: Any) -> DataSpec:
    return DataSpec(**{"source": "people.csv", "target": "bought"} | more)


def ids(data: Prepared) -> dict[str, list[int]]:
    return {split: data.table(split)["id"].to_pylist() for split in data.rows}


def edit(path: Path, row: int, text: str) -> None:
    """Replace data row `row` (from 1)."""
    lines = path.read_text().split("\n")
    lines[row] = text
    path.write_text("\n".join(lines))


def test_every_row_is_in_one_split(people: Path, tmp_path: Path) -> None:
    data = prepare(spec(), tmp_path, tmp_path / "cache")
    assert data.total_rows == 400 == sum(data.rows.values())
    assert (data.quarantined, data.in_gap) == (0, 0)
    found = ids(data)
    assert sorted(i for rows in found.values() for i in rows) == list(range(400))
    assert all(rows == sorted(rows) for rows in found.values())
    assert data.contract.task == "binary"
    assert data.profile["rows"] == data.rows["train"]


def test_tensors_are_the_transformed_rows_in_order(people: Path, tmp_path: Path) -> None:
    data = prepare(spec(), tmp_path, tmp_path / "cache")
    table = data.table("train")
    blocks = ray.get(data.tensors("train"))
    expected = data.transform.apply(table) | {"target": data.transform.targets(table)}
    for name, array in expected.items():
        assert np.array_equal(np.concatenate([block[name] for block in blocks]), array)
    whole = next(iter(data.tensor_dataset("train").iter_batches(batch_size=None)))
    assert np.array_equal(whole["numeric"], expected["numeric"])
    assert whole["numeric"].dtype == np.float32
    assert data.dataset("train").count() == data.rows["train"]


def test_the_transform_learns_of_training_rows_only(people: Path, tmp_path: Path) -> None:
    data = prepare(spec(), tmp_path, tmp_path / "cache")
    from raymill.data.transform import fit

    assert fit(data.dataset("train"), data.contract) == data.transform
    assert fit(data.dataset("test"), data.contract) != data.transform


def test_unchanged_data_is_not_prepared_again(people: Path, tmp_path: Path) -> None:
    first = prepare(spec(), tmp_path, tmp_path / "cache")
    events: list[Event] = []
    second = prepare(spec(), tmp_path, tmp_path / "cache", events.append)
    assert second == first
    assert any(event.data.get("status") == "skipped" for event in events)
    third = prepare(spec(split={"seed": 1}), tmp_path, tmp_path / "cache")
    assert third.path != first.path
    assert ids(third) != ids(first)


def test_the_fingerprint_is_of_the_content_not_of_the_place(
    people: Path, tmp_path: Path
) -> None:
    first = prepare(spec(), tmp_path, tmp_path / "cache")
    other = tmp_path / "elsewhere"
    other.mkdir()
    shutil.copy(people, other)
    moved = prepare(spec(), other, tmp_path / "cache2")
    assert moved.fingerprint == first.fingerprint
    assert moved.path.name == first.path.name
    edit(people, 200, people.read_text().split("\n")[200].replace("2026", "2025"))
    assert prepare(spec(), tmp_path, tmp_path / "cache").fingerprint != first.fingerprint


def test_bad_rows_are_quarantined_with_reasons(people: Path, tmp_path: Path) -> None:
    prepared = prepare(spec(), tmp_path, tmp_path / "cache")
    (tmp_path / "contract.yaml").write_text(prepared.contract.to_yaml())
    edit(people, 3, "2,old,1.5,Oslo,2026-01-03,no")
    edit(people, 5, "4,30,1.5,Oslo")
    edit(people, 9, "8,30,1.5,Oslo,2026-01-03,perhaps")
    bad = spec(contract="contract.yaml", key=["id"], on_violation="quarantine")
    edit(people, 12, "10" + people.read_text().split("\n")[12][2:])
    data = prepare(bad, tmp_path, tmp_path / "cache")
    assert data.total_rows == 400
    assert data.quarantined == 4
    assert sum(data.rows.values()) == 396
    tables = [pq.read_table(part) for part in sorted((data.path / "quarantine").glob("*.parquet"))]
    rows = {row["row"]: row for row in pa.concat_tables(tables).to_pylist()}
    assert sorted(rows) == [3, 5, 9, 12]
    assert {row["file"] for row in rows.values()} == {"people.csv"}
    assert "age must be a whole number" in rows[3]["reasons"]
    assert json.loads(rows[3]["raw"])["age"] == "old"
    assert "a row has 6 fields" in rows[5]["reasons"]
    assert "bought must be one of" in rows[9]["reasons"]
    assert "people.csv row 11" in rows[12]["reasons"]
    assert json.loads((data.path / "quarantine" / "reasons.json").read_text())["quarantined"] == 4


def test_bad_rows_stop_a_run_that_does_not_quarantine(people: Path, tmp_path: Path) -> None:
    contract = prepare(spec(), tmp_path, tmp_path / "cache").contract
    (tmp_path / "contract.yaml").write_text(contract.to_yaml())
    edit(people, 3, "2,old,1.5,Oslo,2026-01-03,no")
    edit(people, 7, "6,30,1.5,Oslo,2026-01-03,")
    strict = spec(contract="contract.yaml")
    with pytest.raises(DataError) as caught:
        prepare(strict, tmp_path, tmp_path / "cache")
    assert [problem.where for problem in caught.value.problems] == [
        "people.csv row 3", "people.csv row 7"]
    assert [p.where for p in check(strict, tmp_path)] == ["people.csv row 3", "people.csv row 7"]
    many = spec(contract="contract.yaml", on_violation="quarantine", max_bad_fraction=0.001)
    with pytest.raises(DataError, match="max_bad_fraction"):
        prepare(many, tmp_path, tmp_path / "cache")


@pytest.mark.parametrize(("break_it", "says", "where"), [
    (lambda p: p.write_text(""), "must not be empty", "people.csv"),
    (lambda p: p.unlink(), "must name files that exist", ""),
    (lambda p: p.write_text("id,age\n"), "must have rows", "people.csv"),
    (lambda p: p.write_bytes(b"id,\xff\n1,2\n"), "UTF-8", "people.csv header"),
    (lambda p: p.write_text("id,id,bought\n1,2,no\n"), "different names", "people.csv"),
    (lambda p: p.write_text(p.read_text().replace("bought", "sold")), "must name a column", ""),
    (lambda p: edit(p, 40, '39,30,1,"Oslo,2026-01-01,no'), "a row has 6 fields",
     "people.csv row 40"),
])
def test_broken_files_are_named(
    people: Path, tmp_path: Path, break_it: Callable[[Path], None], says: str, where: str
) -> None:
    break_it(people)
    with pytest.raises(DataError) as caught:
        prepare(spec(), tmp_path, tmp_path / "cache")
    problem = caught.value.problems[0]
    assert says in problem.rule
    assert where in problem.where


def test_wrong_bytes_are_named_by_row(people: Path, tmp_path: Path) -> None:
    contract = prepare(spec(), tmp_path, tmp_path / "cache").contract
    (tmp_path / "contract.yaml").write_text(contract.to_yaml())
    people.write_bytes(people.read_bytes().replace(b"Rome", b"R\xf6me", 1))
    row = next(i for i, line in enumerate(people.read_bytes().split(b"\n")) if b"\xf6" in line)
    (problem,) = check(spec(contract="contract.yaml"), tmp_path)
    assert problem.where == f"people.csv row {row}"
    assert "UTF-8" in problem.rule


def test_a_truncated_parquet_file_is_named(people: Path, tmp_path: Path) -> None:
    path = tmp_path / "people.parquet"
    pq.write_table(pacsv.read_csv(people), path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError) as caught:
        prepare(spec(source="people.parquet"), tmp_path, tmp_path / "cache")
    assert caught.value.problems[0].where == "people.parquet"
    assert "must be whole" in caught.value.problems[0].rule


def test_a_bad_json_line_is_named(people: Path, tmp_path: Path) -> None:
    rows = pacsv.read_csv(people).to_pylist()
    lines = [json.dumps(row, default=str) for row in rows]
    path = tmp_path / "people.jsonl"
    path.write_text("\n".join(lines) + "\n")
    data = prepare(spec(source="people.jsonl"), tmp_path, tmp_path / "cache")
    assert data.total_rows == 400
    (tmp_path / "contract.yaml").write_text(data.contract.to_yaml())
    lines[17] = lines[17][:-5]
    path.write_text("\n".join(lines))
    (problem,) = check(spec(source="people.jsonl", contract="contract.yaml"), tmp_path)
    assert problem.where == "people.jsonl row 18"


def test_csv_parquet_and_jsonl_of_the_same_rows_give_the_same_tensors(
    people: Path, tmp_path: Path
) -> None:
    csv = prepare(spec(), tmp_path, tmp_path / "cache")
    (tmp_path / "contract.yaml").write_text(csv.contract.to_yaml())
    table = pacsv.read_csv(people)
    pq.write_table(table, tmp_path / "people.parquet", row_group_size=64)
    (tmp_path / "people.jsonl").write_text(
        "\n".join(json.dumps(row, default=str) for row in table.to_pylist()))
    for name in ("people.parquet", "people.jsonl"):
        other = prepare(spec(source=name, contract="contract.yaml"), tmp_path, tmp_path / "cache")
        assert other.transform == csv.transform
        assert other.table("test").drop_columns(["__file"]).equals(
            csv.table("test").drop_columns(["__file"]))


def test_test_files_are_the_test_split(people: Path, tmp_path: Path) -> None:
    lines = people.read_text().split("\n")
    (tmp_path / "test.csv").write_text("\n".join([lines[0], *lines[301:]]))
    people.write_text("\n".join(lines[:301]))
    data = prepare(spec(test="test.csv"), tmp_path, tmp_path / "cache")
    assert data.rows["test"] == 100
    assert ids(data)["test"] == list(range(300, 400))


def test_a_split_by_time_keeps_a_gap_out(people: Path, tmp_path: Path) -> None:
    dated = spec(time="joined", split={"by": "time", "gap": "10d"})
    data = prepare(dated, tmp_path, tmp_path / "cache")
    assert data.in_gap > 0
    assert sum(data.rows.values()) + data.in_gap == 400


def test_folders_of_images_are_classes(
    png: Callable[..., bytes], tmp_path: Path
) -> None:
    for label in ("cat", "dog"):
        (tmp_path / "pets" / label).mkdir(parents=True)
        for i in range(30):
            (tmp_path / "pets" / label / f"{i}.png").write_bytes(png(i, 8, 8, 3))
    data = prepare(DataSpec(source="pets", target="label"), tmp_path, tmp_path / "cache")
    assert data.contract.classes is not None
    assert sorted(data.contract.classes) == ["cat", "dog"]
    assert data.transform.schema.image == (3, 8, 8)
    (tmp_path / "pets" / "cat" / "3.png").write_bytes(png(0)[:40])
    data_spec = DataSpec(source="pets", target="label", on_violation="quarantine",
                         max_bad_fraction=0.1)
    assert prepare(data_spec, tmp_path, tmp_path / "cache").quarantined == 1


def test_the_contract_of_prepared_data_loads_again(people: Path, tmp_path: Path) -> None:
    data = prepare(spec(), tmp_path, tmp_path / "cache")
    assert Prepared.load(data.path) == data
    assert isinstance(data.contract, Contract)


@pytest.mark.parametrize("role", ["time", "group"])
def test_a_source_without_the_column_it_is_split_by_is_named(
    people: Path, tmp_path: Path, role: str
) -> None:
    contract = prepare(spec(), tmp_path, tmp_path / "cache").contract
    rules = contract.model_dump()
    rules["columns"]["apart"] = {"type": "timestamp" if role == "time" else "string",
                                 "kind": "ignore"}
    (tmp_path / "contract.yaml").write_text(json.dumps(rules))
    more: dict[str, Any] = {role: "apart", "contract": "contract.yaml"}
    (problem,) = check(spec(**more), tmp_path)
    assert (problem.rule, problem.where) == ("the column 'apart' must exist", "people.csv")


def test_kinds_of_the_spec_that_its_contract_does_not_say_are_refused(
    people: Path, tmp_path: Path
) -> None:
    contract = prepare(spec(), tmp_path, tmp_path / "cache").contract
    (tmp_path / "contract.yaml").write_text(contract.to_yaml())
    said: dict[str, Any] = {"contract": "contract.yaml", "columns": {"age": "numeric"}}
    assert check(spec(**said), tmp_path) == []
    problems = check(spec(**said | {"columns": {"age": "categorical", "shoe": "text"}}), tmp_path)
    assert [problem.got for problem in problems] == [
        "categorical and numeric", "text and no such column"]


def test_a_split_by_time_goes_by_times_or_numbers(people: Path, tmp_path: Path) -> None:
    assert check(spec(time="id", columns={"id": "numeric"}), tmp_path) == []
    (gap,) = check(spec(time="id", split={"by": "time", "gap": "1d"}), tmp_path)
    assert gap.rule == "a split by time with a gap goes by a column of type timestamp"
    (text,) = check(spec(time="city"), tmp_path)
    assert text.got == "city of type string"


def test_what_a_killed_run_left_is_removed(people: Path, tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    start = f".{'0' * 24}"
    host = socket.gethostname()
    names = {"dead": f"{start}.{host}.{gone.pid}", "alive": f"{start}.{host}.{os.getppid()}",
             "elsewhere": f"{start}.not-{host}.{gone.pid}"}
    for name in names.values():
        (tmp_path / "cache" / name).mkdir(parents=True)
    prepare(spec(), tmp_path, tmp_path / "cache")
    left = {path.name for path in (tmp_path / "cache").glob(".*")}
    assert left == {names["alive"], names["elsewhere"]}


def test_a_positive_class_that_is_none_is_found_by_check(people: Path, tmp_path: Path) -> None:
    assert check(spec(), tmp_path) == []
    (problem,) = check(spec(), tmp_path, positive="perhaps")
    assert problem.rule == "objective.positive must be one of the target's classes"


def test_check_asks_further_of_a_contract_that_it_infers(people: Path, tmp_path: Path) -> None:
    said = [Problem(rule="a rule")]
    seen: list[Contract] = []
    assert check(spec(), tmp_path, also=lambda contract: seen.append(contract) or said) == said
    assert seen[0].classes is not None
