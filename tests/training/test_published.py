"""Checkpoints in a store: published whole, fetched elsewhere, and never believed half-written."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from raymill.errors import ArtifactError, TrainingError, UsageError
from raymill.events import Event
from raymill.stores import Bucket, Folder, Store, store_at
from raymill.training import mirrored
from raymill.training.checkpoint import at, load_weights, numbers
from raymill.training.files import MANIFEST, write_folder
from raymill.training.loop import fit
from raymill.training.published import fetch, publish
from raymill.training.result import FitResult
from raymill.training.session import InlineSession, Interrupted

from .samples import job, shards

ROOT = Path(__file__).parents[2]


class Node(InlineSession):
    """A machine with a disk of its own, which may be asked to stop after some steps."""

    def __init__(self, folder: Path, store: Store, steps: int = 10_000) -> None:
        super().__init__(folder, store=store)
        self.left = steps

    def alive(self, typical_s: Callable[[], float]) -> None:
        self.left -= 1
        self.stopping = self.left <= 0


def run(node: Node) -> tuple[FitResult, list[str]]:
    """A run's result, and what it said."""
    said: list[str] = []

    def hear(event: Event) -> None:
        if event.kind in ("note", "warning"):
            said.append(event.data["text"])

    return fit(job(), *shards(), node, hear), said


def same(one: FitResult, other: FitResult) -> bool:
    assert one.checkpoint is not None and other.checkpoint is not None
    weights, others = load_weights(one.checkpoint), load_weights(other.checkpoint)
    return all(bool((weights[name] == others[name]).all()) for name in weights)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> FitResult:
    return fit(job(), *shards(), InlineSession(tmp_path_factory.mktemp("whole")))


@pytest.fixture
def store(s3: str, tmp_path: Path) -> Store:
    return store_at(f"s3://rows/{tmp_path.name}")


@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_both_kinds_of_store_do_the_same(kind: str, store: Store, tmp_path: Path) -> None:
    place = store if kind == "bucket" else Folder(tmp_path / "there")
    assert isinstance(place, Bucket if kind == "bucket" else Folder)
    assert place.names() == place.folders() == []
    place.check()
    (tmp_path / "big").write_bytes(bytes(range(256)) * 1000)
    place.write("a/x.json", b"one")
    (place / "a").write("x.json", b"two")
    place.put("a/b/big.gz", tmp_path / "big")  # no name decides how it is kept
    place.write("ab", b"")
    assert place.names() == ["a/b/big.gz", "a/x.json", "ab"]
    assert place.folders() == ["a"] and (place / "a").folders() == ["b"]
    assert place.read("a/x.json") == b"two" and place.read("ab") == b""
    place.get("a/b/big.gz", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == (tmp_path / "big").read_bytes()
    assert place.has("ab") and not place.has("a") and not place.has("none")
    with pytest.raises(FileNotFoundError):
        place.read("none")
    place.remove("ab")
    place.remove("none")
    place.remove("a/b")
    assert place.names() == ["a/x.json"]
    place.remove()
    assert place.names() == []


def test_a_store_that_can_t_be_written_is_refused_with_its_cure(s3: str) -> None:
    with pytest.raises(UsageError, match=r"(?s)NO_SUCH_BUCKET.*Make the bucket") as caught:
        store_at("s3://none-such/x").check()
    assert "testing" not in str(caught.value)


def test_a_folder_is_fetched_as_it_was_published_or_not_at_all(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(folder: Path) -> None:
        (folder / "x").write_bytes(b"x" * 100)
        (folder / "y").write_bytes(b"y")

    made = write_folder(tmp_path / "made", fill, {"kind": "test"})
    publish(made, store)
    fetch(store, tmp_path / "back")
    assert {path.name: path.read_bytes() for path in (tmp_path / "back").iterdir()} == {
        path.name: path.read_bytes() for path in made.iterdir()}
    with monkeypatch.context() as patch:  # nothing is written twice
        patch.delattr(Bucket, "put")
        patch.delattr(Bucket, "write")
        publish(made, store)
    [x] = [name for name in store.names() if name.endswith("/x")]
    store.write(x, b"z" * 100)
    with pytest.raises(ArtifactError, match="x must be as it was written"):
        fetch(store, tmp_path / "other")
    store.remove(x)
    with pytest.raises(ArtifactError, match="every file"):
        fetch(store, tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "made"]


@pytest.mark.parametrize("steps", [3, 16])
def test_another_machine_goes_on_as_if_there_had_been_one(
    steps: int, store: Store, tmp_path: Path, whole: FitResult
) -> None:
    with pytest.raises(Interrupted):
        run(Node(tmp_path / "one", store, steps))
    result, said = run(Node(tmp_path / "two", store))
    assert "bitwise as if never interrupted" in said[0]
    assert same(result, whole)
    assert mirrored.numbers(store) == numbers(tmp_path / "two")


KILLED = """
import sys
from pathlib import Path
import torch
from raymill.stores import store_at
from raymill.training.loop import fit
from raymill.training.session import InlineSession
from tests.training.samples import job, shards
torch.set_num_threads(int(sys.argv[3]))
fit(job(), *shards(), InlineSession(Path(sys.argv[1]), store=store_at(sys.argv[2])))
"""


def test_a_kill_within_an_upload_leaves_no_checkpoint_that_is_believed(
    store: Store, tmp_path: Path, whole: FitResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYMILL_FAIL", "store.before_manifest:kill@3")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'src'}")
    threads = str(torch.get_num_threads())
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "one", str(store), threads],
                          check=False, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    assert numbers(tmp_path / "one") == [3, 2] and mirrored.numbers(store) == [2, 1]
    assert store.folders() == [at(Path(), n).name for n in (1, 2, 3)]  # files of the third
    again = tmp_path / "one"  # the same machine: its third is not what others can fetch
    result, said = run(Node(again, store))
    assert said == ["goes on after epoch 2 (bitwise as if never interrupted)"]
    assert same(result, whole)


def test_a_damaged_checkpoint_is_not_taken(
    store: Store, tmp_path: Path, whole: FitResult
) -> None:
    with pytest.raises(Interrupted):
        run(Node(tmp_path / "one", store, 9))
    newest = store / at(Path(), mirrored.numbers(store)[0]).name
    [weights] = [name for name in newest.names() if name.endswith("model.safetensors")]
    newest.write(weights, newest.read(weights)[:-1] + b"\0")
    result, said = run(Node(tmp_path / "two", store))
    assert "a checkpoint is damaged and is not taken: s3://" in said[0]
    assert "goes on after epoch 1" in said[1]
    assert same(result, whole)


def test_a_store_that_fails_ends_the_run_with_its_place(store: Store, tmp_path: Path) -> None:
    class Broken(Bucket):
        def write(self, name: str, content: bytes) -> None:
            raise OSError("the network is down (Request ID: 1")

        def __truediv__(self, name: str) -> Bucket:
            return Broken(f"{self.uri}/{name}", self.endpoint)

    broken = Broken(str(store), store_at(str(store)).endpoint)  # type: ignore[attr-defined]
    with pytest.raises(TrainingError, match=r"published in cluster.store, .*network is down\."):
        run(Node(tmp_path, broken))
    assert not any(name.endswith(MANIFEST) for name in store.names())
