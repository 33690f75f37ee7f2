"""Torch's process group on loopback only, where the workers are on it.

Rank 0 of a group keeps a store that the others find each other by. Torch lets it listen on every
interface of the machine, and whoever reaches it can take part; here it gets a socket of ours.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import ray
from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend


@dataclass
class LoopbackTorch(TorchConfig):  # type: ignore[misc]
    """Ray Train's configuration of torch, whose store listens where the workers are."""

    @property
    def backend_cls(self) -> Any:
        return _Backend


class _Backend(_TorchBackend):  # type: ignore[misc]
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        worker_group.execute(_closed)
        super().on_start(worker_group, backend_config)


def _closed() -> None:
    """In a worker: what carries its collectives listens where the worker itself does."""
    closed_store()
    if _is_loopback(ray.util.get_node_ip_address()):
        for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            os.environ.setdefault(name, "lo")


def closed_store() -> None:
    """Have this process's stores listen on the address of their master, where that is loopback."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    module: Any = import_module("torch.distributed.rendezvous")  # its own name is a function's

    def store(host_name: str, port: int, is_master: bool = False, **options: Any) -> TCPStore:
        if is_master and _is_loopback(host_name):
            options["master_listen_fd"] = _listening(host_name, port)
        return TCPStore(host_name=host_name, port=port, is_master=is_master, **options)

    module.TCPStore = store


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listening(host: str, port: int) -> int:
    """The descriptor of a listening socket, which the store closes."""
    return socket.create_server((host, port)).detach()
