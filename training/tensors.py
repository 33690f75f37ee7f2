"""Writes safetensors files piece by piece, so that no second copy of a model is in memory.

The library's own writer holds the whole file in memory, and the interpreter while it works; a
checkpoint is written beside the training, which would wait for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from raymill.failpoints import failpoint

_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "BOOL",
}
_PIECE = 1 << 24


def to_host(tensor: Tensor) -> Tensor:
    """A copy in main memory that later steps don't change."""
    copy = torch.empty(tensor.shape, dtype=tensor.dtype)
    return copy.copy_(tensor.detach())


def bytes_of(tensors: Mapping[str, Tensor]) -> int:
    """What the tensors take, in bytes."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors of main memory in the safetensors format.

    Raises:
        TypeError: names a tensor of a type that the format (or this writer) has no name for.
        OSError: the file can't be written.
    """
    header: dict[str, object] = {}
    offset = 0
    # The format asks for aligned tensors: the widest types come first.
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    for name in order:
        tensor = tensors[name]
        if tensor.dtype not in _NAMES:
            raise TypeError(f"a checkpoint can't hold {name}, a tensor of {tensor.dtype}")
        end = offset + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape),
                        "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("xb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            raw = tensors[name].reshape(-1).view(torch.uint8).numpy()
            for low in range(0, len(raw), _PIECE):
                file.write(raw[low : low + _PIECE].data)
            file.flush()
            failpoint("checkpoint.mid_file")
