"""A flipped bit in any file of a bundle is found, and the file named, before anything is loaded.

Every file of a bundle in turn, at its first and last byte and at seeded places; and between the
flips the whole bundle opens, so that no alarm is false. Files cut short and taken away count too.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness import Survival, sized
from benchmarks.prepared import fraud, small_bundle
from raymill.cluster.local import ray_session
from raymill.cluster.spec import ClusterSpec
from raymill.errors import ArtifactError
from raymill.training.bundle import Bundle


def refused(bundle: Path, digest: str, file: Path, change: Callable[[bytes], bytes | None]) -> bool:
    """Whether the bundle is refused, by the file's name, after `change`; then it is put right."""
    whole = file.read_bytes()
    changed = change(whole)
    if changed is None:
        file.unlink()
    else:
        file.write_bytes(changed)
    try:
        Bundle.open(bundle, digest)
    except ArtifactError as error:
        # A changed manifest is known by the digest, which names the bundle as a whole.
        return file.name in str(error) or file.name == "manifest.json"
    else:
        return False
    finally:
        file.write_bytes(whole)


def flip(place: int, bit: int) -> Callable[[bytes], bytes]:
    def change(whole: bytes) -> bytes:
        changed = bytearray(whole)
        changed[place] ^= 1 << bit
        return bytes(changed)

    return change


def run() -> Survival:
    rng = random.Random(0)
    missed = list[str]()
    injected = false_alarms = 0
    with tempfile.TemporaryDirectory() as folder:
        with ray_session(ClusterSpec()):
            bundle = small_bundle(Path(folder), fraud(Path(folder), 3000))
        for file in sorted(path for path in bundle.path.rglob("*") if path.is_file()):
            size = file.stat().st_size
            places = [0, size - 1, *(rng.randrange(size) for _ in range(sized(48, 2)))]
            changes: list[tuple[str, Callable[[bytes], bytes | None]]] = [
                (f"bit of byte {place}", flip(place, rng.randrange(8))) for place in places
            ]
            changes += [("cut short", lambda whole: whole[:-1]), ("taken away", lambda _: None)]
            for what, change in changes:
                injected += 1
                if not refused(bundle.path, bundle.digest, file, change):
                    missed.append(f"{file.name}: {what}")
            try:
                Bundle.open(bundle.path, bundle.digest)
            except ArtifactError:
                false_alarms += 1
    return Survival(
        name="bundle-flip", fault="a bit flipped, a file cut or removed", injected=injected,
        survived=injected - len(missed), lost=len(missed) + false_alarms,
        goal="found by name, n of n; no false alarm",
        details={"missed": missed, "false_alarms": false_alarms},
    )
