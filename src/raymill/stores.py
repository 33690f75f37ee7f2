"""Where files lie that every machine must reach: a folder, or a prefix of an object store.

Whoever reads a file sees all of it: a folder's is renamed into its place, and an object is there
only once its upload has ended. A store holds no keys: each process takes those of its environment.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from raymill.errors import Problem, UsageError

SCHEME = "s3://"
_COPY = 8 * 2**20


class Unreached(OSError):
    """A bucket does not answer, or not as asked; the message names it."""


class Store(ABC):
    """Files by names like `a/b.json`. Names are relative to the store; what fails is an OSError
    (of a bucket: `Unreached`), a file that is not there a FileNotFoundError."""

    @abstractmethod
    def __truediv__(self, name: str) -> Store:
        """What lies below `name`."""

    @abstractmethod
    def __str__(self) -> str:
        """The place, as the user writes it."""

    @abstractmethod
    def names(self) -> list[str]:
        """Every file below, sorted."""

    @abstractmethod
    def folders(self) -> list[str]:
        """The folders right below that hold a file, sorted."""

    @abstractmethod
    def open(self, name: str) -> Any:
        """A file as pyarrow reads it, at any place; to be closed by the caller."""

    @abstractmethod
    def write(self, name: str, content: bytes) -> None:
        """Make a file, or put another in its place, whole."""

    @abstractmethod
    def put(self, name: str, source: Path) -> None:
        """Make a file of one on this disk."""

    @abstractmethod
    def remove(self, name: str = "") -> None:
        """Remove a file, or all that lies below a folder; nothing there is no error."""

    def read(self, name: str) -> bytes:
        """All of a file."""
        with self.open(name) as file:
            return bytes(file.read())

    def get(self, name: str, target: Path) -> None:
        """Copy a file to this disk, in pieces; `target` may be half-written when this fails."""
        with self.open(name) as source, target.open("wb") as file:
            while piece := source.read(_COPY):
                file.write(piece)

    def has(self, name: str) -> bool:
        """Whether a file is there."""
        try:
            self.open(name).close()
        except (FileNotFoundError, IsADirectoryError):
            return False
        return True

    def check(self, key: str = "cluster.store") -> None:
        """Write, read and remove a small file; `key` of the spec names the store.

        Raises:
            UsageError: one of these can't be done.
        """
        name, content = f".probe-{secrets.token_hex(8)}", secrets.token_bytes(16)
        try:
            self.write(name, content)
            if self.read(name) != content:
                raise OSError("what was read is not what was written")
            self.remove(name)
        except OSError as error:
            raise UsageError(Problem(
                rule=f"{key} must be a store that can be written and read",
                got=cause(error), where=str(self),
                cure="Make the bucket, and give every machine AWS_ACCESS_KEY_ID and "
                     "AWS_SECRET_ACCESS_KEY (or a role) and, for a server other than Amazon's, "
                     "AWS_ENDPOINT_URL_S3.",
            )) from None


@dataclass(frozen=True)
class Folder(Store):
    """A folder that every machine concerned sees."""

    path: Path

    def __truediv__(self, name: str) -> Folder:
        return Folder(self.path / name)

    def __str__(self) -> str:
        return str(self.path)

    def names(self) -> list[str]:
        return sorted(path.relative_to(self.path).as_posix() for path in self.path.rglob("*")
                      if path.is_file())

    def folders(self) -> list[str]:
        if not self.path.is_dir():
            return []
        return sorted(path.name for path in self.path.iterdir() if path.is_dir())

    def open(self, name: str) -> Any:
        import pyarrow as pa

        path = self.path / name
        if path.is_dir():
            raise IsADirectoryError(path)
        return pa.OSFile(str(path))

    def write(self, name: str, content: bytes) -> None:
        path, beside = self._beside(name)
        beside.write_bytes(content)
        _renamed(beside, path)

    def put(self, name: str, source: Path) -> None:
        path, beside = self._beside(name)
        shutil.copyfile(source, beside)
        _renamed(beside, path)

    def remove(self, name: str = "") -> None:
        path = self.path / name
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    def _beside(self, name: str) -> tuple[Path, Path]:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return path, path.with_name(f".{path.name}.{secrets.token_hex(4)}")


@dataclass(frozen=True)
class Bucket(Store):
    """`s3://bucket/prefix`. `endpoint` is an S3 server other than Amazon's."""

    uri: str
    endpoint: str = ""

    @property
    def _root(self) -> str:
        return self.uri.removeprefix(SCHEME).strip("/")

    @property
    def _files(self) -> Any:
        return s3(self.endpoint)

    def __truediv__(self, name: str) -> Bucket:
        return Bucket(f"{self.uri.rstrip('/')}/{name}", self.endpoint)

    def __str__(self) -> str:
        return self.uri

    def names(self) -> list[str]:
        import pyarrow.fs as pafs

        below = pafs.FileSelector(self._root, recursive=True, allow_not_found=True)
        with self._asked():
            return sorted(found.path[len(self._root) + 1 :]
                          for found in self._files.get_file_info(below) if found.is_file)

    def folders(self) -> list[str]:
        return sorted({name.partition("/")[0] for name in self.names() if "/" in name})

    def open(self, name: str) -> Any:
        with self._asked():
            return self._files.open_input_file(f"{self._root}/{name}")

    def read(self, name: str) -> bytes:
        with self._asked():
            return super().read(name)

    def write(self, name: str, content: bytes) -> None:
        with self._asked(), self._files.open_output_stream(
            f"{self._root}/{name}", compression=None
        ) as stream:
            stream.write(content)

    def put(self, name: str, source: Path) -> None:
        try:
            with source.open("rb") as file, self._asked(), self._files.open_output_stream(
                f"{self._root}/{name}", compression=None
            ) as stream:
                while piece := file.read(_COPY):
                    stream.write(piece)
        except BaseException:
            with suppress(OSError):  # closing the stream has made an object of what was read
                self._files.delete_file(f"{self._root}/{name}")
            raise

    def remove(self, name: str = "") -> None:
        place = self._root + (f"/{name}" if name else "")
        found = (self / name if name else self).names()
        with self._asked():
            for each in reversed(found):  # manifests come first
                self._files.delete_file(f"{place}/{each}")
            if name:
                with suppress(FileNotFoundError):
                    self._files.delete_file(place)

    @contextmanager
    def _asked(self) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, IsADirectoryError):
            raise
        except OSError as error:
            raise Unreached(f"{self}: {cause(error)}") from None


def store_at(uri: str) -> Store:
    """The store that `uri` names; an S3 server is the one of the environment."""
    return Bucket(uri.rstrip("/"), endpoint()) if uri.startswith(SCHEME) else Folder(Path(uri))


def endpoint() -> str:
    """Of the S3 server that the environment names; empty: Amazon's."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


@lru_cache(maxsize=16)
def s3(endpoint: str) -> Any:
    """pyarrow's file system of an S3 server, with the keys and the region of the environment."""
    import pyarrow.fs as pafs

    options: dict[str, Any] = {}
    if endpoint:
        scheme, _, host = endpoint.partition("://")
        options = {"endpoint_override": host.rstrip("/"), "scheme": scheme}
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region or endpoint:
        options["region"] = region or "us-east-1"
    return pafs.S3FileSystem(connect_timeout=10, request_timeout=60, allow_delayed_open=True,
                             **options)


def scratch(store: Store) -> Path:
    """This machine's own folder for copies of what lies in `store`; for its owner only.

    Raises:
        UsageError: another user has made it.
    """
    base = Path(tempfile.gettempdir()) / f"raymill-store-{os.geteuid()}"
    base.mkdir(mode=0o700, exist_ok=True)
    seen = base.lstat()
    if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != os.geteuid():
        raise UsageError("the folder for copies of a store must be your own, but another user "
                         f"made {base}", cure="Remove it, or set TMPDIR to a folder of yours.")
    base.chmod(0o700)
    return base / sha256(str(store).encode()).hexdigest()[:24]


@contextmanager
def shipped(
    folder: Path, names: Callable[[], Sequence[str]], store: Store, every_s: float,
    failed: Callable[[OSError], None] = lambda error: None,
) -> Iterator[None]:
    """While the block runs, put those of the files of `folder` into `store` that have changed; and
    once more at its end, where `failed` is told of an error."""
    ended = threading.Event()
    known: dict[str, tuple[int, int]] = {}

    def ship() -> None:
        for name in names():
            with suppress(FileNotFoundError):
                seen = (folder / name).stat()
                now = seen.st_size, seen.st_mtime_ns
                if known.get(name) != now:
                    store.put(name, folder / name)
                    known[name] = now

    def work() -> None:
        while not ended.wait(every_s):
            with suppress(OSError):  # the next time it may come through
                ship()

    thread = threading.Thread(target=work, name="raymill-shipping", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        try:
            ship()
        except OSError as error:
            failed(error)


def cause(error: OSError) -> str:
    """The first line of an error."""
    return str(error).strip().split("\n")[0].partition(" (Request ID")[0][:250]


def _renamed(beside: Path, path: Path) -> None:
    beside.chmod(0o600)
    with beside.open("rb") as file:
        os.fsync(file.fileno())
    beside.rename(path)
