"""LightGBM's network over torch.distributed.

LightGBM's own opens a socket on every interface of the machine, on a port that must be free on all
of them. It also takes its two collectives as functions; these run over the workers' process group.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

_Size = ctypes.c_int32
_Sizes = ctypes.POINTER(_Size)
_Bytes = NDArray[np.uint8]
_Reduce = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, _Size)
_ReduceScatter = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, _Size, ctypes.c_int, _Sizes, _Sizes, ctypes.c_int, ctypes.c_void_p,
    _Size, ctypes.c_void_p)
_AllGather = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, _Size, _Sizes, _Sizes, ctypes.c_int, ctypes.c_void_p, _Size)


class Network:
    """One rank's end. LightGBM calls it while it grows trees, in the thread that grows them.

    An error can't leave a function that C calls: it is kept, answered with zeros from then on, and
    raised by `check`.
    """

    def __init__(self, rank: int, world_size: int) -> None:
        self.rank, self.world_size = rank, world_size
        self._group = dist.new_group(backend="gloo")
        self._error: Exception | None = None
        self.functions = _ReduceScatter(self._reduce_scatter), _AllGather(self._all_gather)

    def check(self) -> None:
        """Raise what went wrong in a collective."""
        if self._error is not None:
            raise self._error

    def _guarded(self, out: _Bytes, exchange: Callable[[], None]) -> None:
        if self._error is None:
            try:
                exchange()
                return
            except Exception as error:  # noqa: BLE001 - nothing may be raised into C
                self._error = error
        out[:] = 0

    def _all_gather(
        self, given: int, size: int, starts: Any, lengths: Any, blocks: int, output: int,
        output_size: int,
    ) -> None:
        out = _bytes_at(output, output_size)

        def exchange() -> None:
            own = torch.from_numpy(_bytes_at(given, size))
            parts = self._gathered(own, lengths[: self.world_size])
            for part, start, length in zip(parts, starts[: self.world_size],
                                           lengths[: self.world_size], strict=True):
                out[start : start + length] = part[:length].numpy()

        self._guarded(out, exchange)

    def _gathered(self, own: Tensor, lengths: Sequence[int]) -> list[Tensor]:
        padded = torch.zeros(max(1, *lengths), dtype=torch.uint8)
        padded[: len(own)] = own
        parts = [torch.empty_like(padded) for _ in range(self.world_size)]
        dist.all_gather(parts, padded, group=self._group)
        return parts

    def _reduce_scatter(
        self, given: int, size: int, width: int, starts: Any, lengths: Any, blocks: int,
        output: int, output_size: int, reducer: int,
    ) -> None:
        """Every rank gets its own block of all ranks, reduced in their order."""
        out, own = _bytes_at(output, output_size), lengths[self.rank]

        def exchange() -> None:
            data = torch.from_numpy(_bytes_at(given, size))
            sent = [data[starts[rank] : starts[rank] + lengths[rank]].clone()
                    for rank in range(self.world_size)]
            parts = self._swapped(sent, own)
            out[:own] = parts[0].numpy()
            reduce = _Reduce(ctypes.cast(reducer, ctypes.POINTER(ctypes.c_void_p))[0] or 0)
            for part in parts[1:]:
                reduce(part.data_ptr(), output, width, own)

        self._guarded(out, exchange)

    def _swapped(self, sent: Sequence[Tensor], size: int) -> list[Tensor]:
        """What every rank sent to this one."""
        parts = [torch.empty(size, dtype=torch.uint8) for _ in sent]
        parts[self.rank] = sent[self.rank]
        waits = []
        for other in range(self.world_size):
            if other == self.rank:
                continue
            if len(sent[other]):  # gloo waits for ever for a message of nothing
                waits.append(dist.isend(sent[other], other, group=self._group))
            if size:
                waits.append(dist.irecv(parts[other], other, group=self._group))
        for wait in waits:
            if wait is not None:
                wait.wait()
        return parts


def _bytes_at(address: int | None, size: int) -> _Bytes:
    """The bytes that C points to; written through."""
    if not address or size <= 0:
        return np.zeros(0, np.uint8)
    pointer = ctypes.cast(address, ctypes.POINTER(ctypes.c_uint8))
    return np.ctypeslib.as_array(pointer, (size,))


@contextmanager
def connected(rank: int, world_size: int) -> Iterator[Network | None]:
    """Trees that this thread grows in the block are grown by all ranks together; None: alone."""
    if world_size == 1:
        yield None
        return
    import lightgbm

    network, library = Network(rank, world_size), lightgbm.basic._LIB
    logger = logging.getLogger("raymill.lightgbm")
    logger.setLevel(logging.ERROR)
    lightgbm.register_logger(logger)  # it tells its rank on stdout
    functions = [ctypes.cast(function, ctypes.c_void_p) for function in network.functions]
    lightgbm.basic._safe_call(library.LGBM_NetworkInitWithFunctions(world_size, rank, *functions))
    try:
        yield network
    finally:
        lightgbm.basic._safe_call(library.LGBM_NetworkFree())
