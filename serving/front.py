"""The HAProxy of a service in a cluster: a child of its supervisor that follows Serve's replicas.

In a Ray of its own a service leaves HAProxy to Serve. A cluster has one Serve for all its models,
whose one HAProxy would have one port, one certificate and one set of limits for them. So there the
supervisor runs the HAProxy, with Ray's own code and configuration, and asks the controller who
answers. It goes on with those it knows while the controller does not answer.
"""

from __future__ import annotations

import asyncio
import threading
import traceback
from contextlib import suppress
from typing import Any

import ray

from .order import Order

Replicas = tuple[tuple[str, str, int], ...]
"""Name, host and port of each."""
START_S = 60.0
_LOOK_S, _ANSWER_S = 0.2, 5.0
_HEALTH = "/-/routes"  # tells of which application a replica is; see haproxy.py


class Front:
    """Runs HAProxy in a thread of its own, from `start` to `stop`.

    Args:
        controller: Serve's. spare: the port of Serve's own proxy, which holds the requests that
            come while no replica answers.
    """

    def __init__(self, order: Order, controller: Any, spare: int) -> None:
        self._order, self._controller, self._spare = order, controller, spare
        self._ready, self._ended = threading.Event(), threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="front", daemon=True)

    def start(self) -> None:
        """Returns when HAProxy answers.

        Raises:
            Exception: it did not start.
        """
        self._thread.start()
        if not self._ready.wait(START_S):
            raise TimeoutError(f"HAProxy did not start within {START_S:g} s")
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(START_S)

    def _run(self) -> None:
        try:
            asyncio.run(self._follow())
        except Exception as error:  # noqa: BLE001 - who started it tells it
            self._error = error
            self._ready.set()

    async def _follow(self) -> None:
        api = self._api()
        known: Replicas | None = None
        while not self._ended.is_set():
            found = await self._replicas()
            try:
                known = await self._apply(api, found, known)
            except Exception:
                if not self._ready.is_set():
                    raise
                traceback.print_exc()  # and it is tried again
            await asyncio.sleep(_LOOK_S)
        await api.stop()

    async def _apply(
        self, api: Any, found: Replicas | None, known: Replicas | None
    ) -> Replicas | None:
        """HAProxy at `found`; what it then knows."""
        if found is not None and found != known:
            api.set_backend_configs({"http-app": self._backend(found)})
            await (api.reload() if api._is_running() else api.start())
            self._ready.set()
            return found
        if known is not None and not api._is_running():
            await api.start()
        return known

    def _api(self) -> Any:
        """Ray's own manager of a HAProxy, whose files and limits the environment names."""
        from ray.serve._private.haproxy import HAProxyApi, HAProxyConfig
        from ray.serve.config import HTTPOptions

        options = HTTPOptions(host="127.0.0.1", port=self._order.spec.port)
        return HAProxyApi(HAProxyConfig(http_options=options, is_head=True, metrics_enabled=False))

    async def _replicas(self) -> Replicas | None:
        """Those that run; None: the controller does not answer."""
        with suppress(ray.exceptions.RayError, asyncio.TimeoutError):
            groups = await asyncio.wait_for(self._controller.get_target_groups.remote(
                self._order.name, from_proxy_manager=True), _ANSWER_S)
            return tuple(sorted(
                (target.name, target.ip, target.port)
                for group in groups if group.app_name == self._order.name
                for target in group.targets if target.port != self._spare))
        return None

    def _backend(self, replicas: Replicas) -> Any:
        from ray.serve._private.haproxy import BackendConfig, HAProxyManager, ServerConfig

        servers = [ServerConfig(HAProxyManager.get_safe_name(name), host, port)
                   for name, host, port in replicas]
        return BackendConfig(
            name="http-app", path_prefix="/", app_name=self._order.name, servers=servers,
            fallback_server=ServerConfig("spare", "127.0.0.1", self._spare),
            http_health_check_path=_HEALTH)
