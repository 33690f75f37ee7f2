"""Encoded images to arrays of one shape."""

from __future__ import annotations

import io
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Shape = tuple[int, int, int]  # channels, height, width


def problem_of(data: bytes) -> str | None:
    """Why `data` can't be decoded as an image, or None."""
    try:
        _open(data).load()
    except Exception as error:  # noqa: BLE001 - Pillow's decoders raise whatever their format meets
        why = str(error).split(" <_io.")[0].replace("\n", " ")
        return f"{type(error).__name__}: {why}"[:80]
    return None


def shape_of(data: bytes) -> Shape:
    """`(channels, height, width)` that this image has by itself: 1 channel when grey, else 3."""
    image = _open(data)
    grey = image.mode in ("1", "L", "I", "F", "I;16", "LA")
    return (1 if grey else 3, image.height, image.width)


def decode(data: bytes, shape: Shape) -> NDArray[np.uint8]:
    """`[channels, height, width]` of uint8, resized when the image has another size."""
    channels, height, width = shape
    image = _open(data)
    mode = "L" if channels == 1 else "RGB"
    if image.mode != mode:
        image = image.convert(mode)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _open(data: bytes) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return Image.open(io.BytesIO(data))
