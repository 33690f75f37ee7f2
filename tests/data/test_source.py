"""Where files are found: folders, globs, s3://; and what can't be found."""

from __future__ import annotations

from pathlib import Path

import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from raymill.data.prepare import prepare
from raymill.data.source import discover, discover_all
from raymill.data.spec import DataSpec
from raymill.errors import DataError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b.csv", "a.csv", "deep/c.csv", "deep/d.parquet", "_SUCCESS", ".hidden.csv",
                 "notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x\n1\n")
    return tmp_path


def names(source: str | list[str], base: Path) -> list[str]:
    return [file.name for file in discover(source, base)]


def test_globs_stay_in_their_folder_unless_they_have_two_stars(tree: Path) -> None:
    assert names("*.csv", tree) == ["a.csv", "b.csv"]
    assert names("*/*.csv", tree) == ["deep/c.csv"]
    assert names("**/*.csv", tree) == ["a.csv", "b.csv", "deep/c.csv"]
    assert names(".*.csv", tree) == [".hidden.csv"]


def test_a_list_keeps_its_order_and_a_folder_is_sorted(tree: Path) -> None:
    assert names(["b.csv", "a.csv"], tree) == ["b.csv", "a.csv"]
    assert names("deep", tree) == ["c.csv", "d.parquet"]


def test_an_unknown_ending_needs_a_format(tree: Path) -> None:
    with pytest.raises(DataError, match=r"data\.format"):
        discover("notes.md", tree)
    assert discover("notes.md", tree, "csv")[0].format == "csv"


def test_all_missing_files_are_named_at_once(tree: Path) -> None:
    with pytest.raises(DataError) as caught:
        discover_all("no.csv", "a.csv", ["neither.csv", "*.orc"], tree, "auto")
    assert [problem.got for problem in caught.value.problems] == [
        "'no.csv'", "'neither.csv'", "'*.orc'"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context")
def test_csv_and_parquet_on_s3_are_as_local_ones(
    s3: str, ray_local: None, people: Path, tmp_path: Path
) -> None:
    import boto3

    client = boto3.client("s3", endpoint_url=s3)
    pq.write_table(pacsv.read_csv(people), tmp_path / "people.parquet")
    for name in ("people.csv", "people.parquet"):
        client.upload_file(str(tmp_path / name), "rows", f"in/{name}")
        local = prepare(DataSpec(source=name, target="bought"), tmp_path, tmp_path / "one")
        there = DataSpec(source=f"s3://rows/in/{name}", target="bought")
        away = prepare(there, tmp_path, tmp_path / "two")
        assert away.fingerprint == local.fingerprint
        assert away.table("train").equals(local.table("train"))
    listed = discover("s3://rows/in", tmp_path)
    assert [file.name for file in listed] == ["people.csv", "people.parquet"]
    assert [file.uri for file in discover("s3://rows/*/*.csv", tmp_path)] == [
        "s3://rows/in/people.csv"]
    with pytest.raises(DataError, match="must name files that exist"):
        discover("s3://rows/none.csv", tmp_path)
    with pytest.raises(DataError):
        discover("s3://nobucket/none.csv", tmp_path)
