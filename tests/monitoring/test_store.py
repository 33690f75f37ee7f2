from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from raymill.errors import DataError
from raymill.monitoring import labels, predictions
from raymill.monitoring.labels import Label
from raymill.monitoring.predictions import Window
from raymill.monitoring.store import META, Stream, finish_left, parts, sweep
from raymill.monitoring.value import Costs, worth


def batch(ids: list[str], **columns: object) -> pa.RecordBatch:
    """Answered rows, one an id."""
    count = len(ids)
    values: dict[str, object] = {
        "id": ids, "row": [0] * count, "time": [datetime.now(UTC)] * count, "version": [1] * count,
        "variant": ["champion"] * count, "latency_ms": [1.5] * count, "trace": [None] * count,
        "sampled": [False] * count, "dropped_before": [0] * count,
        "prediction": ["no"] * count, **columns,
    }
    schema = META
    for name, value in values.items():
        if name not in META.names:
            schema = schema.append(pa.field(name, pa.array(value).type))
    return pa.RecordBatch.from_pydict(values, schema=schema)


def stream(log: Path, *batches: pa.RecordBatch) -> Stream:
    made = Stream(log, batches[0].schema)
    for each in batches:
        made.append(each)
    return made


def test_rows_are_read_from_open_streams_and_finished_files_alike(tmp_path: Path) -> None:
    first, second = stream(tmp_path, batch(["a", "b"])), stream(tmp_path, batch(["c"]))
    first.finish()
    assert {path.suffix for path in parts(tmp_path)} == {".parquet", ".arrows"}
    assert sorted(predictions.read(tmp_path)["id"].to_pylist()) == ["a", "b", "c"]
    second.finish()
    assert sorted(predictions.read(tmp_path)["id"].to_pylist()) == ["a", "b", "c"]
    (day,) = tmp_path.glob("date=*")
    assert day.name == f"date={datetime.now(UTC).date()}"
    assert all(path.stat().st_mode & 0o077 == 0 for path in [day, *day.iterdir()])


def test_a_batch_that_was_cut_off_is_not_there_and_the_others_are(tmp_path: Path) -> None:
    made = stream(tmp_path, batch(["a"]), batch(["b"]))
    os.truncate(made.path, made.bytes - 7)
    assert predictions.read(tmp_path)["id"].to_pylist() == ["a"]
    made.close()
    assert finish_left(tmp_path) == 1
    assert predictions.read(tmp_path)["id"].to_pylist() == ["a"]


def test_a_stream_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    made = stream(tmp_path, batch(["a"]))
    assert finish_left(tmp_path) == 0 and made.path.exists()
    made.close()
    assert finish_left(tmp_path) == 1 and not made.path.exists()


@pytest.mark.parametrize("point", ["predictions.before_unlink:kill@1"])
def test_a_kill_between_the_file_and_the_end_of_its_stream_doubles_no_row(
    tmp_path: Path, point: str
) -> None:
    made = stream(tmp_path, batch(["a", "b"]))
    made.close()
    code = f"from pathlib import Path; from raymill.monitoring.store import finish_left; " \
           f"finish_left(Path({str(tmp_path)!r}))"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"RAYMILL_FAIL": point},
                          check=False)
    assert done.returncode == -9 and made.path.exists()
    assert predictions.read(tmp_path)["id"].to_pylist() == ["a", "b"]
    assert finish_left(tmp_path) == 1 and not made.path.exists()
    assert predictions.read(tmp_path)["id"].to_pylist() == ["a", "b"]


def test_what_is_too_old_or_too_much_goes_oldest_first(tmp_path: Path) -> None:
    for days in (40, 2, 1):
        made = stream(tmp_path, batch([f"{days} days"]))
        made.close()
        day = datetime.now(UTC) - timedelta(days=days)
        made.path.rename(made.path.with_name(f"{day:%Y%m%d}{made.path.name[8:]}"))
    labels.append(tmp_path, [Label("x", 0, "yes", 0.0)])
    old = tmp_path / "labels" / f"{datetime.now(UTC) - timedelta(days=40):%Y-%m-%d}.jsonl"
    old.write_bytes(b"")
    assert finish_left(tmp_path) == 3
    assert sweep(tmp_path, 30 * 86400, 1e9) == 2 and not old.exists()
    assert predictions.read(tmp_path)["id"].to_pylist() == ["2 days", "1 days"]
    size = sum(path.stat().st_size for path in parts(tmp_path))
    assert sweep(tmp_path, 30 * 86400, size - 1) == 1
    assert predictions.read(tmp_path)["id"].to_pylist() == ["1 days"]


def test_a_window_chooses_by_time_version_and_variant(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    times = [now - timedelta(hours=3), now - timedelta(hours=2), now - timedelta(hours=1)]
    stream(tmp_path, batch(["a", "b", "c"], time=times, version=[1, 2, 2],
                           variant=["champion", "challenger", "champion"])).finish()

    def ids(window: Window) -> list[str]:
        found: list[str] = predictions.read(tmp_path, window, ["id"])["id"].to_pylist()
        return found

    assert ids(Window(since=times[1])) == ["b", "c"]
    assert ids(Window(until=times[1])) == ["a"]
    assert ids(Window(version=2)) == ["b", "c"] and ids(Window(variant="challenger")) == ["b"]
    naive = times[1].replace(tzinfo=None)
    assert ids(Window(since=naive, version=2, variant="champion")) == ["c"]


def test_a_row_of_just_before_midnight_may_stand_in_the_next_days_part(tmp_path: Path) -> None:
    moment = datetime(2026, 3, 1, 23, 59, 59, tzinfo=UTC)
    made = stream(tmp_path, batch(["a"], time=[moment]))
    made.close()
    made.path.rename(made.path.with_name(f"20260302{made.path.name[8:]}"))
    assert len(predictions.read(tmp_path, Window(until=moment + timedelta(microseconds=1)))) == 1
    assert len(predictions.read(tmp_path, Window(until=moment))) == 0


def test_versions_with_other_columns_are_read_together(tmp_path: Path) -> None:
    stream(tmp_path, batch(["a"], **{"input.x": [1.0]})).finish()
    stream(tmp_path, batch(["b"], **{"input.y": ["red"]})).finish()
    table = predictions.read(tmp_path).sort_by("id")
    assert table["input.x"].to_pylist() == [1.0, None]
    assert table["input.y"].to_pylist() == [None, "red"]
    stream(tmp_path, batch(["c"], **{"input.x": ["red"]})).finish()
    with pytest.raises(DataError, match="one version at a time"):
        predictions.read(tmp_path)


def test_the_last_label_of_a_row_counts_and_the_earlier_ones_stay(tmp_path: Path) -> None:
    now = time.time()
    labels.append(tmp_path, [Label("a", 0, "yes", now), Label("a", 1, "no", now)])
    labels.append(tmp_path, [Label("a", 0, "no", now + 1, "alice")])
    assert labels.latest(tmp_path).select(["row", "label", "by"]).to_pylist() == [
        {"row": 1, "label": "no", "by": ""}, {"row": 0, "label": "no", "by": "alice"}]
    assert labels.history(tmp_path)["label"].to_pylist() == ["yes", "no", "no"]


def test_a_label_that_a_killed_writer_began_was_never_there(tmp_path: Path) -> None:
    labels.append(tmp_path, [Label("a", 0, "yes", 0.0)])
    (path,) = (tmp_path / "labels").iterdir()
    with path.open("ab") as file:
        file.write(b'{"id":"b","row":0,"la')
    assert labels.latest(tmp_path)["id"].to_pylist() == ["a"]
    labels.append(tmp_path, [Label("c", 0, "yes", 0.0)])
    assert labels.latest(tmp_path)["id"].to_pylist() == ["a", "c"]


def test_sums_of_a_log_count_rows_drops_labels_and_versions(tmp_path: Path) -> None:
    stream(tmp_path, batch(["a", "b"], sampled=[True, False], dropped_before=[0, 3])).finish()
    stream(tmp_path, batch(["c"], version=[2]))
    labels.append(tmp_path, [Label("a", 0, "yes", 0.0)])
    told = predictions.summary(tmp_path)
    assert (told.rows, told.sampled, told.dropped, told.labels, told.files) == (3, 1, 3, 1, 2)
    assert told.versions == [{"version": 1, "variant": "champion", "rows": 2},
                             {"version": 2, "variant": "champion", "rows": 1}]
    assert predictions.summary(tmp_path / "none").rows == 0


def test_labels_are_counted_of_the_windows_rows_alone(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    stream(tmp_path, batch(["a", "b", "c"], version=[1, 2, 2],
                           time=[now - timedelta(hours=2), now - timedelta(hours=2), now])).finish()
    labels.append(tmp_path, [Label(id_, 0, "yes", 0.0) for id_ in ("a", "b", "c", "unlogged")])

    def count(window: Window) -> int:
        return predictions.summary(tmp_path, window).labels

    assert count(Window()) == 3 and count(Window(version=2)) == 2
    assert count(Window(since=now - timedelta(hours=1))) == 1


def test_worth_is_what_the_errors_of_a_version_cost(tmp_path: Path) -> None:
    stream(tmp_path, batch(["a", "b", "c", "d"], prediction=["yes", "no", "yes", "no"]),
           batch(["e", "f"], version=[2, 2], variant=["challenger"] * 2,
                 prediction=["yes", "yes"])).finish()
    labels.append(tmp_path, [Label(id_, 0, label, 0.0) for id_, label in
                             [("a", "yes"), ("b", "yes"), ("c", "no"), ("e", "yes"), ("x", "no")]])
    costs = Costs.of({"costs": {"false_positive": 5, "false_negative": 100}}, ["no", "yes"])
    first, second = worth(tmp_path, costs)
    assert (first.version, first.count, first.mean) == (1, 3, pytest.approx(-35))
    assert first.variance == pytest.approx(3175)
    assert (second.variant, second.count, second.mean) == ("challenger", 1, 0)
    assert worth(tmp_path)[0].mean == pytest.approx(1 / 3)
    assert Costs.of({"threshold": 0.5}, ["no", "yes"]) is None


def test_worth_of_numbers_is_minus_the_absolute_error(tmp_path: Path) -> None:
    stream(tmp_path, batch(["a", "b"], prediction=[2.0, 5.0])).finish()
    labels.append(tmp_path, [Label("a", 0, "3.0", 0.0), Label("b", 0, "5.5", 0.0)])
    (found,) = worth(tmp_path)
    assert (found.count, found.mean) == (2, pytest.approx(-0.75))
