"""How busy the driver's machine is, as MLflow's own names call it; from /proc and nvidia-smi."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

EVERY_S = 10.0
_MB = 10**6
Record = Callable[[dict[str, float]], None]


class Meter:
    """Reads what has happened since it was last read."""

    def __init__(self, proc: Path = Path("/proc"), disk: Path = Path("/")) -> None:
        self._proc, self._disk = proc, disk
        self._cpu = self._times()
        self._net = self._traffic()

    def read(self) -> dict[str, float]:
        """Percentages and megabytes by MLflow's name (`system/...`)."""
        found = {**self._busy(), **self._memory(), **self._network(), **_gpus()}
        usage = shutil.disk_usage(self._disk)
        found["disk_usage_percentage"] = 100 * usage.used / usage.total
        return {f"system/{name}": round(value, 3) for name, value in found.items()}

    def _times(self) -> tuple[int, int]:
        """(idle, all) ticks of every CPU since the machine started."""
        first = (self._proc / "stat").read_text().splitlines()[0]
        ticks = [int(number) for number in first.split()[1:9]]
        return ticks[3] + ticks[4], sum(ticks)

    def _busy(self) -> dict[str, float]:
        (idle, total), before = self._times(), self._cpu
        self._cpu = idle, total
        passed = total - before[1]
        busy = 100 * (1 - (idle - before[0]) / passed) if passed else 0.0
        return {"cpu_utilization_percentage": busy}

    def _memory(self) -> dict[str, float]:
        lines = (self._proc / "meminfo").read_text().splitlines()
        kb = {line.split(":")[0]: int(line.split()[1]) for line in lines}
        used = kb["MemTotal"] - kb["MemAvailable"]
        return {"system_memory_usage_megabytes": used * 1024 / _MB,
                "system_memory_usage_percentage": 100 * used / kb["MemTotal"]}

    def _traffic(self) -> tuple[int, int]:
        """(received, sent) bytes of every interface but loopback."""
        lines = (self._proc / "net" / "dev").read_text().splitlines()[2:]
        counts = [line.split(":")[1].split() for line in lines if line.split(":")[0].strip() != "lo"]
        return sum(int(c[0]) for c in counts), sum(int(c[8]) for c in counts)

    def _network(self) -> dict[str, float]:
        now, before = self._traffic(), self._net
        self._net = now
        return {"network_receive_megabytes": (now[0] - before[0]) / _MB,
                "network_transmit_megabytes": (now[1] - before[1]) / _MB}


def _gpus() -> dict[str, float]:
    """Of each GPU that nvidia-smi lists; nothing where there is none."""
    if shutil.which("nvidia-smi") is None:
        return {}
    asked = "--query-gpu=index,utilization.gpu,memory.used,memory.total"
    try:
        said = subprocess.run(["nvidia-smi", asked, "--format=csv,noheader,nounits"],
                              capture_output=True, text=True, timeout=5, check=True).stdout
        rows = [[float(part) for part in line.split(",")] for line in said.splitlines()]
    except (OSError, subprocess.SubprocessError, ValueError):
        return {}  # a driver that does not answer says nothing of the run
    found = {}
    for index, busy, used, total in rows:
        found[f"gpu_{index:.0f}_utilization_percentage"] = busy
        found[f"gpu_{index:.0f}_memory_usage_megabytes"] = used * 2**20 / _MB
        found[f"gpu_{index:.0f}_memory_usage_percentage"] = 100 * used / total
    return found


@contextmanager
def metered(record: Record, every_s: float = EVERY_S) -> Iterator[None]:
    """Give `record` a reading now and then while the block runs."""
    ended, meter = threading.Event(), Meter()

    def work() -> None:
        while not ended.wait(every_s):
            record(meter.read())

    thread = threading.Thread(target=work, name="raymill-system", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(10)
