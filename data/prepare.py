"""From a spec's data to prepared splits: each row is kept, quarantined with reasons, or in a gap."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from raymill.errors import DataError, Problem, RaymillError, SpecError
from raymill.events import Event, Notify, ignore, note
from raymill.stores import Folder, Store

from . import keys, profile, stats, transform
from .chunks import Chunk, Scan, merge_images, scan
from .contract import Contract
from .fingerprint import Fingerprint, fingerprint
from .infer import infer, two_classes
from .ingest import read
from .prepared import Block, Prepared
from .remote import gather
from .source import DataFile, discover_all
from .spec import DataSpec
from .split import SPLITS, Counts, Plan, check_sizes, plan
from .tally import Tally, tally_block
from .write import Written, write_block, write_json

VERSION = 3  # of this room's code: raise it where results change
LISTED = 50
CURRENT = "current.json"


@dataclass(frozen=True)
class _Data:
    """What is known before the rows are read."""

    files: list[DataFile]
    scans: list[Scan]
    digest: Fingerprint
    contract: Contract
    notes: list[str]

    @property
    def chunks(self) -> list[Chunk]:
        return merge_images([chunk for found in self.scans for chunk in found.chunks])

    @property
    def names(self) -> list[str]:
        return [file.name for file in self.files]


def prepare(
    spec: DataSpec, base: Path, cache: Path, notify: Notify = ignore, positive: str | None = None,
    store: Store | None = None,
) -> Prepared:
    """The data of `spec`, checked, split, described, and written under `cache`, or into `store`.

    Needs a running Ray. Nothing is done twice: the folder's name is a hash of all that the result
    depends on. `positive` names the class that a binary model finds.

    Raises:
        DataError: files or rows are bad, each named (file and row); a split is empty.
        SpecError: the contract file is.
    """
    with _stage(notify, "read data") as said:
        data = _look(spec, base, positive, notify)
        said["detail"] = f"{len(data.files)} files, fingerprint {data.digest.root[:12]}"
    _sweep(cache)
    key = _key(spec, data)
    if (done := _done(cache / key, store)) is not None:
        notify(Event("stage", {"name": "prepare data", "status": "skipped", "seconds": 0.0,
                               "detail": f"unchanged, in {done.store or done.path}"}))
        return done
    with _stage(notify, "prepare data") as said:
        rows = (_build_here(spec, data, cache / key, notify) if store is None
                else _build_there(spec, data, store / key, notify))
        said["detail"] = ", ".join(f"{count:,} {split}" for split, count in rows.items())
    made = _done(cache / key, store)
    assert made is not None, "it was written just now"
    return made


def _done(place: Path, store: Store | None) -> Prepared | None:
    """What was prepared before, if all of it is there."""
    if store is None:
        return Prepared.load(place) if (place / "prepared.json").exists() else None
    there = store / place.name
    if not there.has(CURRENT):
        return None
    return Prepared.load(place, there / json.loads(there.read(CURRENT))["at"])


def _build_here(spec: DataSpec, data: _Data, place: Path, notify: Notify) -> dict[str, int]:
    building = place.with_name(f".{place.name}.{socket.gethostname()}.{os.getpid()}")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True, mode=0o700)
    try:
        rows = _build(spec, data, Folder(building), notify)
        _publish(building, place)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return rows


def _build_there(spec: DataSpec, data: _Data, place: Store, notify: Notify) -> dict[str, int]:
    """In a folder of this attempt's own; the file that names it is written last."""
    attempt = secrets.token_hex(8)
    try:
        rows = _build(spec, data, place / attempt, notify)
    except BaseException:
        with contextlib.suppress(OSError):
            place.remove(attempt)
        raise
    write_json(place, CURRENT, {"at": attempt})
    return rows


def check(
    spec: DataSpec, base: Path, notify: Notify = ignore, positive: str | None = None,
    also: Callable[[Contract], list[Problem]] = lambda contract: [],
) -> list[Problem]:
    """Every problem of contract and data, at most 50 and a count of the others, and what `also`
    finds when it knows the contract, read or inferred."""
    try:
        data = _look(spec, base, positive, notify)
        _, found = _read(spec, data, notify)
        return found.problems(data.names, LISTED) + also(data.contract)
    except RaymillError as error:
        more = len(error.problems) - LISTED
        extra = [Problem(rule=f"{more} more problems")] if more > 0 else []
        return error.problems[:LISTED] + extra


def _look(spec: DataSpec, base: Path, positive: str | None, notify: Notify) -> _Data:
    """Find and hash the files, and read or infer the contract.

    Raises:
        DataError, SpecError: with all that is wrong by now.
    """
    problems: list[Problem] = []
    contract, notes = None, list[str]()
    if spec.contract is not None:
        try:
            contract = Contract.read(base / spec.contract)
        except SpecError as error:
            problems += error.problems
    try:
        files = discover_all(spec.source, spec.validation, spec.test, base, spec.format)
        scans = scan(files)
        problems += [problem for found in scans for problem in found.problems]
    except DataError as error:
        problems += error.problems
    if problems:
        raise DataError(problems)
    if contract is not None:
        contract = _agreed(contract, spec, positive)
    else:
        inferred = infer(files, spec, scans, positive)
        contract, notes = inferred.contract, inferred.notes
    _check_time(spec, contract)
    notes += _check_columns(files, scans, contract, {spec.time, spec.group} - {None})
    for line in notes:
        note(notify, line)
    return _Data(files, scans, fingerprint(files, scans), contract, notes)


def _agreed(contract: Contract, spec: DataSpec, positive: str | None) -> Contract:
    """The contract file under the spec; the spec's drop, key and time are added to it.

    Raises:
        DataError: the two contradict each other.
    """
    problems = []
    if contract.target != spec.target:
        problems.append(Problem(rule=f"data.target and the contract's target {contract.target!r} "
                                "must be the same", got=repr(spec.target)))
    if spec.task is not None and contract.task != spec.task:
        problems.append(Problem(rule=f"data.task and the contract's task {contract.task} must be "
                                "the same", got=spec.task))
    for column, kind in spec.columns.items():
        said = contract.columns[column].kind if column in contract.columns else None
        if said != kind:
            problems.append(Problem(
                rule=f"data.columns and the contract must say the same of {column!r}",
                got=f"{kind} and {said or 'no such column'}",
                cure="With a contract its kinds count: change kind there, and take the column out "
                     "of data.columns."))
    for role, name in (("time", spec.time), ("group", spec.group),
                       *(("key", key) for key in spec.key)):
        if name is not None and name not in contract.columns:
            problems.append(Problem(rule=f"data.{role} must name a column of the contract",
                                    got=repr(name)))
    for name in (spec.time, spec.group):
        if name in contract.columns and contract.columns[name].nullable:
            problems.append(Problem(rule=f"{name} must not be nullable in the contract: rows are "
                                    "split by it"))
    if problems:
        raise DataError(problems)
    state = contract.model_dump()
    state["drop"] = sorted({*contract.drop, *spec.drop})
    state["columns"] = {name: rule for name, rule in state["columns"].items()
                        if name not in spec.drop}
    state |= {"key": spec.key or contract.key, "time": spec.time or contract.time}
    if positive is not None and contract.classes is not None and contract.task == "binary":
        state["classes"] = two_classes(contract.classes, {}, positive, [])
    return Contract.model_validate(state)


def _check_time(spec: DataSpec, contract: Contract) -> None:
    """Rows are ordered by a time or a number; only a time has a gap in days.

    Raises:
        DataError: the column that a split goes by is neither.
    """
    layout = plan(spec, contract)
    if layout.by != "time" or layout.column is None:
        return
    found = contract.columns[layout.column].type
    if found in ("timestamp", *(() if layout.gap_us else ("int64", "float64"))):
        return
    gap = " with a gap" if layout.gap_us else ""
    raise DataError(Problem(
        rule=f"a split by time{gap} goes by a column of type timestamp"
             + ("" if layout.gap_us else ", int64 or float64"),
        got=f"{layout.column} of type {found}",
        cure="Write it as ISO times like 2026-01-31T12:00:00, "
             + ("or leave the gap out." if layout.gap_us else "or name another column.")))


def _check_columns(
    files: list[DataFile], scans: list[Scan], contract: Contract, split_by: set[str | None]
) -> list[str]:
    """A note on the columns that are left out. The source, which is split, needs `split_by` too.

    Raises:
        DataError: naming each file that lacks a column.
    """
    needed = {*contract.features, contract.target, *contract.key}
    problems, extra = [], dict[str, None]()
    for file, found in zip(files, scans, strict=True):
        if not found.columns or file.format == "images":
            continue
        wanted = needed | split_by if file.role == "source" else needed
        problems += [Problem(rule=f"the column {name!r} must exist", where=file.name,
                             got=f"columns {', '.join(found.columns[:12])}")
                     for name in contract.columns if name in wanted - set(found.columns)]
        extra |= dict.fromkeys(name for name in found.columns
                               if name not in contract.columns and name not in contract.drop)
    if problems:
        raise DataError(problems)
    left = ", ".join(repr(name) for name in extra)
    return [f"columns that the contract doesn't name are left out: {left}"] if extra else []


def _key(spec: DataSpec, data: _Data) -> str:
    said = spec.model_dump(mode="json", exclude={"source", "validation", "test", "contract"})
    text = json.dumps([VERSION, said, data.digest.root, data.contract.version], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _read(spec: DataSpec, data: _Data, notify: Notify) -> tuple[list[Any], Tally]:
    """References to the blocks of conformed rows, and the tally of them.

    Raises:
        DataError: a file can't be read to its end.
    """
    layout = plan(spec, data.contract)
    handed = ray.put((layout, [file.role for file in data.files]))
    tally = Tally(Counts(layout))
    total = sum(found.rows for found in data.scans)
    with _quiet():
        refs = list(_unwrapped(read(data.chunks, data.contract)))
    for found in gather(tally_block, ((ref, handed) for ref in refs)):
        tally.merge(found)
        notify(Event("progress", {"stage": "prepare data", "done": tally.rows, "total": total,
                                  "unit": "rows"}))
    for columns in keys.rules(data.contract):
        tally.add_duplicates(keys.duplicates(refs, columns, tally.rows), columns)
    return refs, tally


def _unwrapped(ds: ray.data.Dataset) -> Iterator[Any]:
    """The blocks' references; a DataError of a read task is raised as itself."""
    try:
        yield from stats.blocks(ds)
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, RaymillError):
            cause = getattr(cause, "cause", None) or cause.__cause__
        if cause is None:
            raise
        raise cause from None


def _build(spec: DataSpec, data: _Data, place: Store, notify: Notify) -> dict[str, int]:
    """Read, check, split, fit and write into `place`; the rows by split."""
    refs, tally = _read(spec, data, notify)
    tally.judge(spec.on_violation, spec.max_bad_fraction, data.names)
    layout: Plan = tally.counts.plan
    written = Written()
    handed = ray.put((layout, tally.counts.cuts(), [file.role for file in data.files],
                      tally.duplicates, data.names, place, data.contract))
    for part in gather(write_block, ((ref, handed) for ref in refs)):
        written.merge(part)
    rows = {split: written.rows.get(split, 0) for split in SPLITS}
    check_sizes(rows, layout)
    _check_classes(written, data.contract)
    if written.quarantined:
        write_json(place, "quarantine/reasons.json", tally.summary(data.names))
    write_json(place, "contract.json", data.contract.model_dump(mode="json"))
    fitted = transform.from_summaries(written.train, data.contract, spec.image)
    write_json(place, "transform.json", fitted.to_dict())
    write_json(place, "profile.json", profile.from_summaries(written.train, data.contract))
    write_json(place, "prepared.json", {
        "fingerprint": data.digest.root, "rows": rows, "total_rows": tally.rows,
        "quarantined": written.quarantined, "in_gap": written.in_gap, "notes": data.notes,
        "files": data.digest.files})
    return rows


def _check_classes(written: Written, contract: Contract) -> None:
    if contract.classes is None:
        return
    seen = {name for name, _ in written.train[contract.target].items.top(len(contract.classes))}
    if len(seen) < 2:
        raise DataError(Problem(rule="the training split must hold at least two classes",
                                got=", ".join(sorted(seen)) or "none",
                                cure="Change data.split, or give more data."))


def _sweep(cache: Path) -> None:
    """Remove what killed processes of this host left half-built."""
    ours = re.compile(rf"\.[0-9a-f]{{24}}\.{re.escape(socket.gethostname())}\.(\d+)")
    for path in cache.glob(".*"):
        if found := ours.fullmatch(path.name):
            try:
                os.kill(int(found[1]), 0)
            except ProcessLookupError:
                shutil.rmtree(path, ignore_errors=True)
            except OSError:
                continue  # it lives, as another user's


def _publish(building: Path, place: Path) -> None:
    """Rename into place; another process may have been first with the same result."""
    with contextlib.suppress(OSError):
        building.rename(place)
    if not (place / "prepared.json").exists():
        shutil.rmtree(place, ignore_errors=True)
        building.rename(place)


@contextlib.contextmanager
def _stage(notify: Notify, name: str) -> Iterator[dict[str, str]]:
    started = time.monotonic()
    said: dict[str, str] = {}
    notify(Event("stage", {"name": name, "status": "started"}))
    try:
        yield said
    except BaseException:
        notify(Event("stage", {"name": name, "status": "failed",
                               "seconds": time.monotonic() - started}))
        raise
    notify(Event("stage", {"name": name, "status": "finished",
                           "seconds": time.monotonic() - started, **said}))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Ray Data without its progress bars and banners; rows in the files' order."""
    context = ray.data.DataContext.get_current()
    options = context.execution_options
    before = (context.enable_progress_bars, context.print_on_execution_start,
              options.preserve_order)
    logger = logging.getLogger("ray.data")
    level = logger.level
    logger.setLevel(logging.ERROR)
    context.enable_progress_bars = context.print_on_execution_start = False
    options.preserve_order = True
    try:
        yield
    finally:
        context.enable_progress_bars, context.print_on_execution_start = before[:2]
        options.preserve_order = before[2]
        logger.setLevel(level)


__all__ = ["Block", "Prepared", "check", "prepare"]
