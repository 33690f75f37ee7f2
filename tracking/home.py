"""Where state lives on this machine, readable by its owner only."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from raymill.errors import UsageError


@dataclass(frozen=True)
class Home:
    """The folder of runs, models, caches and MLflow's store: `$RAYMILL_HOME` or `.raymill`."""

    path: Path

    @classmethod
    def find(cls, path: Path | None = None) -> Home:
        """The home at `path`, else at `$RAYMILL_HOME`, else `.raymill` in the working folder.

        Its folders are made if missing and closed to others (mode 0700).

        Raises:
            UsageError: the folder is another user's, or can't be made.
        """
        place = Path(path or os.environ.get("RAYMILL_HOME") or ".raymill").absolute()
        home = cls(place)
        for folder in (home.path, home.runs, home.cache, home.artifacts, home.services):
            _private_folder(folder)
        return home

    @property
    def runs(self) -> Path:
        return self.path / "runs"

    @property
    def cache(self) -> Path:
        return self.path / "cache"

    @property
    def artifacts(self) -> Path:
        return self.path / "artifacts"

    @property
    def services(self) -> Path:
        return self.path / "services"

    @property
    def db(self) -> Path:
        return self.path / "mlflow.db"

    @property
    def audit(self) -> Path:
        return self.path / "audit.jsonl"

    @property
    def tracking_uri(self) -> str:
        """Of MLflow's SQLite store in this home."""
        return f"sqlite:///{self.db}"


def _private_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        owner = folder.stat().st_uid
        if os.geteuid() not in (0, owner):
            raise UsageError(f"the home must be your own folder, but {folder} is user {owner}'s",
                             cure="Set RAYMILL_HOME to a folder of yours.")
        folder.chmod(0o700)
    except OSError as error:
        raise UsageError(f"the home must be writable, but {folder}: {error.strerror}",
                         cure="Set RAYMILL_HOME to a folder of yours.") from None
