"""Batch scoring on Ray Data: every row of some files answered once, by a registered model."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext
from ray.exceptions import RayError

from raymill.data.chunks import merge_images, scan
from raymill.data.source import DataFile, discover
from raymill.data.spec import Format
from raymill.errors import DataError, Problem, RaymillError, UsageError
from raymill.events import Event, Notify, ignore, note
from raymill.stores import SCHEME
from raymill.training.bundle import Bundle

from .order import ModelVersionLike
from .score_book import Book, opened
from .score_units import (
    SOURCE_FILE,
    SOURCE_ROW,
    VERSION,
    Done,
    Layout,
    PartFormat,
    Unit,
    Worker,
    cut,
)

_OWN = (SOURCE_FILE, SOURCE_ROW, VERSION)


@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """What may be chosen. `keep`: columns of the input that stand beside the answers (None: the
    contract's key); `workers`: actors, each with one CPU (None: one a CPU of the cluster)."""

    format: PartFormat = "parquet"
    input_format: Format = "auto"
    keep: tuple[str, ...] | None = None
    partition: tuple[str, ...] = ()
    on_violation: Literal["fail", "quarantine"] = "fail"
    workers: int | None = None
    restart: bool = False


@dataclass(frozen=True, kw_only=True)
class ScoreResult:
    """Rows in = scored + quarantined. `seconds` is all that this call took; `rows_per_s` is the
    rate of its workers, from the first part begun to the last ended."""

    output: str
    model: str
    version: int
    scored: int
    quarantined: int
    parts: int
    resumed: int  # parts that were there before
    seconds: float
    rows_per_s: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def score(
    version: ModelVersionLike, sources: Sequence[str], out: str | Path, home: Path,
    options: ScoreOptions | None = None, base: Path | None = None, notify: Notify = ignore,
) -> ScoreResult:
    """Score the rows of `sources` into part files below `out`, a folder or an s3:// URI, with a
    manifest of their hashes.

    Needs Ray to be running, and `out` and the bundle where every node sees them. The same call
    again goes on where a killed one was: no row is scored twice into the output, and none is lost.

    Raises:
        DataError: a file or a row breaks the model's contract (unless rows are quarantined).
        UsageError: `out` holds another scoring, or a column can't be kept.
        ArtifactError: the bundle is not as it was registered.
    """
    options, began = options or ScoreOptions(), time.monotonic()
    if version.bundle_path is None:
        raise UsageError(f"{version.name}:{version.version} is not on this machine")
    model = Bundle.open(version.bundle_path, version.digest)
    out = str(out).rstrip("/") if str(out).startswith(SCHEME) else str(Path(out).absolute())
    layout = _layout(model, out, options)
    units, fingerprint = _units(sources, model, base or Path.cwd(), options, notify)
    identity = {"model": version.name, "version": version.version, "digest": version.digest,
                "input": fingerprint, "units": len(units),
                "layout": {**asdict(layout), "out": None}}
    with _opened(out, identity, restart=options.restart) as book:
        before = set(book.done)
        left = [index for index, unit in enumerate(units) if unit.part not in book.done]
        if book.resumed:
            note(notify, f"{book.resumed} of {len(units)} parts were scored before")
        made = {"bundle": str(version.bundle_path), "digest": version.digest,
                "version": version.version, "home": str(home), "units": units, "layout": layout,
                "halt": book.halt, "quarantine": options.on_violation == "quarantine"}
        _fill(book, left, made, options.workers, _total(units), notify)
        book.finish(identity)
        new = [done for part, done in book.done.items() if part not in before]
        return ScoreResult(
            output=out, model=version.name, version=version.version, scored=book.scored,
            quarantined=book.quarantined, parts=len(units), resumed=book.resumed,
            seconds=time.monotonic() - began, rows_per_s=_rate(new))


def _opened(
    out: str, identity: Mapping[str, Any], *, restart: bool
) -> AbstractContextManager[Book]:
    if out.startswith(SCHEME):
        from .score_stored import opened as opened_in_store

        return opened_in_store(out, identity, restart=restart)
    return opened(Path(out), identity, restart=restart)


def _rate(done: Sequence[Done]) -> float:
    if not done:
        return 0.0
    took = max(each.ended for each in done) - min(each.began for each in done)
    return sum(each.scored + each.quarantined for each in done) / max(took, 1e-9)


def _layout(model: Bundle, out: str, options: ScoreOptions) -> Layout:
    keep = options.keep if options.keep is not None else tuple(model.contract.key)
    keep += tuple(name for name in options.partition if name not in keep)
    answers = {"prediction", *_OWN,
               *(f"probability_{name}" for name in model.schema.classes or ())}
    if taken := sorted(answers & set(keep)):
        raise UsageError(Problem(rule="a kept column must not have the name of an answer's",
                                 got=repr(taken[0]), cure="Rename it in the input."))
    return Layout(out, options.format, keep, options.partition)


def _units(
    sources: Sequence[str], model: Bundle, base: Path, options: ScoreOptions, notify: Notify
) -> tuple[list[Unit], str]:
    """The units of the sources, and a digest of all their bytes.

    Raises:
        DataError: a file can't be read, or lacks a column of the model's.
    """
    files: list[DataFile] = discover(list(sources), base, options.input_format)
    scans = scan(files, _progress(notify, "read", None, "files"))
    problems = [problem for each in scans for problem in each.problems]
    for file, each in zip(files, scans, strict=True):
        if each.columns and file.format not in ("jsonl", "images"):
            problems += [Problem(rule=f"the column {name!r} must exist", where=file.name,
                                 got=f"columns {', '.join(each.columns[:12])}",
                                 cure="The model was trained on it; give it to every file.")
                         for name in model.contract.features if name not in each.columns]
    if problems:
        raise DataError(problems)
    said = "\n".join(f"{file.name} {each.sha256}" for file, each in zip(files, scans, strict=True))
    chunks = merge_images([chunk for each in scans for chunk in each.chunks])
    return cut(chunks), hashlib.sha256(said.encode()).hexdigest()


def _total(units: Sequence[Unit]) -> int:
    return sum(unit.chunk.rows for unit in units if unit.low == 0)


def _progress(notify: Notify, stage: str, total: int | None, unit: str) -> Any:
    def tell(done: int) -> None:
        notify(Event("progress", {"stage": stage, "done": done, "total": total, "unit": unit}))

    return tell


def _fill(
    book: Book, left: list[int], made: dict[str, Any], workers: int | None, total: int,
    notify: Notify,
) -> None:
    """Score the units that are left, taking each down as soon as its files are there.

    Raises:
        DataError: of the units with bad rows, where these are not quarantined. Those that were
            being scored beside them are finished first.
    """
    tell = _progress(notify, "score", total, "rows")
    tell(book.scored + book.quarantined)
    problems: list[Problem] = []
    for done in _scored(left, made, workers):
        if done.problems:
            problems += [Problem(**problem) for problem in done.problems]
            continue
        book.add(done)
        tell(book.scored + book.quarantined)
    if problems:
        raise DataError(problems)


def _scored(left: list[int], made: dict[str, Any], workers: int | None) -> Iterator[Done]:
    if not left:
        return
    pool = pool_sizes(workers, ray.cluster_resources().get("CPU", 1), len(left))
    context = DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    dataset = ray.data.from_items(
        [{"unit": index} for index in left], override_num_blocks=len(left)
    ).map_batches(
        Worker, batch_size=1, fn_constructor_kwargs=made, num_cpus=1,
        compute=ActorPoolStrategy(**pool, max_tasks_in_flight_per_actor=2),
    )
    try:
        for row in dataset.iter_rows():
            yield Done.from_json(row["done"])
    except RayError as error:
        raise _own(error) or error from None


def pool_sizes(workers: int | None, cpus: float, units: int) -> dict[str, int]:
    """The sizes of the pool of scorers: one a CPU, and more on the CPUs that are added later; or
    as many as were asked for."""
    least = min(workers or max(1, int(cpus)), units)
    return {"min_size": least, "max_size": least if workers else units}


def _own(error: BaseException | None) -> RaymillError | None:
    """Our own error among an error's causes."""
    while error is not None:
        if isinstance(error, RaymillError):
            return error
        error = getattr(error, "cause", None) or error.__cause__
    return None


__all__ = ["ScoreOptions", "ScoreResult", "score"]
