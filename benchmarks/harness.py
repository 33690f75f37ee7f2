"""What every figure has in common: the scale, the record, and RESULTS.md made from the records.

A figure is a module of `benchmarks/` (a fault one of `benchmarks/chaos/`) with `run() -> Figure`
(`-> Survival`) and a docstring that says what is measured, against what, and how.
`RAYMILL_BENCH_SCALE=0.01` makes every size small, to see that it runs; such a result is printed
and not kept.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from raymill.errors import UsageError

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("raymill", "ray", "torch", "optuna", "mlflow", "pyarrow", "numpy", "fastapi", "uvicorn")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Ours beside a reference. `ratio` is ours / reference; `holds` says whether `goal` does."""

    name: str
    unit: str
    ours: float
    reference: float
    reference_is: str
    goal: str
    holds: bool
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        return self.ours / self.reference if self.reference else float("nan")


@dataclass(frozen=True, kw_only=True)
class Survival:
    """Faults injected, survived as promised, and what was lost in all."""

    name: str
    fault: str
    injected: int
    survived: int
    lost: int
    goal: str
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        return self.injected > 0 and self.survived == self.injected and self.lost == 0

    @property
    def upper_bound(self) -> float:
        """95 % upper bound of the failure rate: 3 / n when none of n failed."""
        return 3 / self.injected if self.injected and self.holds else float("nan")


def scale() -> float:
    """The factor on every size."""
    return float(os.environ.get("RAYMILL_BENCH_SCALE", "1"))


def sized(full: int, least: int = 1) -> int:
    """`full` at full scale, never under `least`."""
    return max(least, round(full * scale()))


def best_of(runs: int, measure: Callable[[], float]) -> float:
    """The largest of several measurements of a rate: noise on a shared machine only takes away."""
    return max(measure() for _ in range(runs))


def spread(values: Sequence[float]) -> dict[str, float]:
    """Least, median and greatest of several measurements."""
    ordered = sorted(values)
    return {"min": ordered[0], "median": ordered[len(ordered) // 2], "max": ordered[-1]}


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"cpu": model, "cpus": os.cpu_count(), "memory_gb": round(memory, 1),
            "system": platform.platform(), "load_1m": round(os.getloadavg()[0], 2)}


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The commit that was measured, a `+` after it where tracked files differ; "" outside git."""
    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(RESULTS.parent), *words], capture_output=True,
                              text=True, check=False).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ":(top,exclude)benchmarks/results",
                  ":(top,exclude)benchmarks/RESULTS.md")
    return git("rev-parse", "--short=7", "HEAD") + ("+" if changed else "")


def record(result: Figure | Survival, command: str, load: dict[str, Any]) -> dict[str, Any]:
    """The result as JSON, kept in `benchmarks/results/` at full scale."""
    own: dict[str, Any] = asdict(result) | {"holds": result.holds}
    if isinstance(result, Figure):
        own["ratio"] = result.ratio
    document = {
        "kind": "figure" if isinstance(result, Figure) else "chaos",
        **own, "commit": commit(), "versions": versions(), "command": command, "machine": load,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "scale": scale(),
    }
    if scale() == 1:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{result.name}.json"
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return document


def line(document: dict[str, Any]) -> str:
    """One result as a row of RESULTS.md."""
    holds = "yes" if document["holds"] else "**no**"
    made = " ".join((document["date"][:10], document.get("commit", ""))).strip()
    if document["kind"] == "chaos":
        return (f"| {document['name']} | {document['fault']} | {document['injected']} | "
                f"{document['survived']} | {document['lost']} | {document['goal']} | {holds} | "
                f"{made} |")
    return (f"| {document['name']} | {document['ours']:,.4g} | {document['reference']:,.4g} "
            f"({document['reference_is']}) | {document['unit']} | {document['ratio']:.3f} | "
            f"{document['goal']} | {holds} | {made} |")


def render() -> Path:
    """RESULTS.md from the records."""
    found = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    text = ["# Results", "", "Made by `python -m benchmarks --render` from `benchmarks/results/`;",
            "each file there has the command, versions, machine, date and details. `made on` names",
            "the day and, since December 2026, the commit (`+`: with changes).", ""]
    heads = {
        "figure": "| figure | ours | reference | unit | ratio | goal | holds | made on |",
        "chaos": "| fault | injected how | injected | survived | lost | goal | holds | made on |",
    }
    for kind, head in heads.items():
        rows = [document for document in found if document["kind"] == kind]
        if rows:
            text += [head, "|" + "---|" * head.count(" | ") + "---|", *map(line, rows), ""]
    places = sorted({f"{d['machine']['cpus']} CPUs, {d['machine']['cpu']}, "
                     f"{d['machine']['memory_gb']} GB" for d in found})
    text += [f"Measured on: {'; '.join(places)}." if places else "Nothing is measured yet."]
    path = RESULTS.parent / "RESULTS.md"
    path.write_text("\n".join(text) + "\n", encoding="utf-8")
    return path


def names_in(package: str) -> list[str]:
    """The figures of a package: every module with a `run` of its own."""
    folder = Path(__file__).parent / Path(*package.split(".")[1:])
    return sorted(
        path.stem.replace("_", "-") for path in folder.glob("*.py")
        if "\ndef run() -> " in path.read_text(encoding="utf-8")
    )


def main(package: str, arguments: Sequence[str]) -> int:
    """Run the named figures of a package (all without a name); 1 when a goal does not hold."""
    if list(arguments) == ["--render"]:
        print(render())
        return 0
    known = names_in(package)
    if unknown := [name for name in arguments if name not in known]:
        print(f"no figure is called {', '.join(unknown)}; there are: {', '.join(known)}",
              file=sys.stderr)
        return 2
    ok = True
    for name in arguments or known:
        load = machine()
        try:
            result = importlib.import_module(f"{package}.{name.replace('-', '_')}").run()
        except UsageError as error:  # a figure that can't be had here; the others can
            print(f"{name}: {error}", file=sys.stderr, flush=True)
            ok = False
            continue
        document = record(result, f"python -m {package} {name}", load)
        print(json.dumps(document["details"], indent=1))
        print(line(document), flush=True)
        ok &= bool(document["holds"])
    if scale() == 1:
        render()
    return 0 if ok else 1
