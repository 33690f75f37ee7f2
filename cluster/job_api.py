"""Ray's job API over HTTP: what a cluster is asked, always with its token."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Self
from urllib.parse import quote, urlsplit

import httpx

from raymill.errors import Problem, RaymillError, UsageError

from .environment import token
from .probe import require_guard

ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
TIMEOUT_S = 30.0
_TRIES = 5


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job as the cluster tells it; times in epoch seconds, None: not yet.

    `exit_code` is that of raymill's own verb: 3 says that a gate refused the model.
    """

    id: str
    status: str  # PENDING, RUNNING, or one of ENDED
    message: str
    exit_code: int | None
    began: float | None
    ended: float | None
    metadata: dict[str, str]

    @property
    def over(self) -> bool:
        return self.status in ENDED

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class JobApi:
    """The jobs of the cluster whose dashboard is at `url`.

    Raises:
        UsageError: nothing answers at `url`, it answers without a token, or the token would
            travel in the clear.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        _check(self.url)
        require_guard(self.url)
        self._client = httpx.Client(base_url=self.url, headers=_headers(), timeout=TIMEOUT_S,
                                    trust_env=False)

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ray_version(self) -> str:
        return str(self._ask("GET", "/api/version")["ray_version"])

    def has_package(self, name: str) -> bool:
        return self._send("GET", f"/api/packages/gcs/{name}").status_code == 200

    def upload(self, name: str, content: bytes) -> None:
        self._checked(self._send("PUT", f"/api/packages/gcs/{name}", content=content))

    def submit(self, body: dict[str, Any]) -> bool:
        """Start a job; False: one of that id is there already."""
        answer = self._send("POST", "/api/jobs/", json=body)
        if answer.status_code >= 400 and "already exists" in answer.text:
            return False
        self._checked(answer)
        return True

    def get(self, id: str) -> Job | None:
        answer = self._send("GET", f"/api/jobs/{quote(id, safe='')}")
        if answer.status_code == 404:
            return None
        return _job(self._checked(answer).json())

    def list(self) -> list[Job]:
        """Submitted jobs, oldest first; drivers that came by themselves are left out."""
        found = [_job(data) for data in self._ask("GET", "/api/jobs/") if data["submission_id"]]
        return sorted(found, key=lambda job: (job.began or 0.0, job.id))

    def logs(self, id: str) -> str:
        return str(self._ask("GET", f"/api/jobs/{quote(id, safe='')}/logs")["logs"] or "")

    def stop(self, id: str) -> None:
        self._ask("POST", f"/api/jobs/{quote(id, safe='')}/stop")

    def follow(self, id: str) -> Iterator[str]:
        """The job's output as it comes, from its beginning, until it ends; a lost connection is
        made again without a gap or a repetition."""
        loop = asyncio.new_event_loop()
        pieces = self._tail(id)
        try:
            while True:
                try:
                    yield loop.run_until_complete(anext(pieces))
                except StopAsyncIteration:
                    return
        finally:
            loop.run_until_complete(pieces.aclose())
            loop.close()

    async def _tail(self, id: str) -> Any:
        told, tries = 0, 0
        while tries < _TRIES:
            seen = 0
            try:
                async for piece in self._pieces(id):
                    fresh = piece[max(0, told - seen):]
                    seen += len(piece)
                    if fresh:
                        told, tries = told + len(fresh), 0
                        yield fresh
            except OSError:
                pass
            job = await asyncio.to_thread(self.get, id)
            if job is None or job.over:
                return
            tries += 1
            await asyncio.sleep(1)
        raise RaymillError(f"the output of {id} could not be followed to its end",
                           cure=f"The job goes on: raymill logs {id} -f")

    async def _pieces(self, id: str) -> AsyncIterator[str]:
        import aiohttp

        url = f"{self.url}/api/jobs/{quote(id, safe='')}/logs/tail"
        async with aiohttp.ClientSession(headers=_headers(), trust_env=False) as session:
            async with session.ws_connect(url, heartbeat=20) as socket:
                async for message in socket:
                    if message.type == aiohttp.WSMsgType.TEXT:
                        yield message.data

    def _ask(self, method: str, path: str) -> Any:
        return self._checked(self._send(method, path)).json()

    def _send(self, method: str, path: str, **content: Any) -> httpx.Response:
        try:
            return self._client.request(method, path, **content)
        except httpx.HTTPError as error:
            raise RaymillError(Problem(
                rule=f"the cluster at {self.url} must answer", got=str(error) or repr(error),
                cure="Is it up? raymill cluster status.")) from None

    def _checked(self, answer: httpx.Response) -> httpx.Response:
        if answer.status_code in (401, 403):
            raise UsageError(f"the cluster at {self.url} must know this token, but refuses it",
                             cure="Set RAY_AUTH_TOKEN_PATH to the file with the cluster's token.")
        if answer.status_code >= 400:
            told = answer.text.strip().splitlines() or [""]
            raise RaymillError(f"the cluster answered {answer.status_code}: {told[-1][:300]}")
        return answer


def _headers() -> dict[str, str]:
    return {"Authorization": f"Bearer {token()}", "User-Agent": "raymill"}


def _check(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError("a cluster's job API is an http(s) URL, but got "
                         f"{url!r}", cure="Like http://127.0.0.1:8265.")
    if parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        raise UsageError(f"the token must not travel in the clear to {parts.hostname}", cure=(
            "Use https, or a tunnel: kubectl port-forward, or ssh -L 8265:127.0.0.1:8265."))


def _job(data: dict[str, Any]) -> Job:
    return Job(
        id=data["submission_id"] or "", status=data["status"], message=data["message"] or "",
        exit_code=data["driver_exit_code"], began=_seconds(data["start_time"]),
        ended=_seconds(data["end_time"]), metadata=data["metadata"] or {},
    )


def _seconds(milliseconds: int | None) -> float | None:
    return milliseconds / 1000 if milliseconds else None


