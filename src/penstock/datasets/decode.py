"""From a path to pixels. The only file that imports Pillow, and only when first needed.

    path ── open ── check the header's size ── decode, convert ──> PIL image ──> uint8 C×H×W

Whatever is wrong with a file, the exception that leaves this module says which file it was and is
of a type that a program already expects: `FileNotFoundError`, `IsADirectoryError`,
`PermissionError`, `PIL.UnidentifiedImageError`, `PIL.Image.DecompressionBombError`, else `OSError`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

import numpy as np
import torch

from penstock.errors import MissingExtraError, OptionError

if TYPE_CHECKING:
    from PIL import Image

    # The name for other modules: they do not import Pillow, not even for its types.
    PILImage: TypeAlias = Image.Image

# Pillow's name of a mode: the raw modes that pack one channel each. Packing a channel by itself is
# 2 to 3 times as fast as packing the interleaved pixels and transposing them.
CHANNELS = {"L": ("L",), "RGB": ("R", "G", "B"), "RGBA": ("R", "G", "B", "A")}

# A file of several JPEGs is one to Pillow's readers.
_JPEG_FORMATS = ("JPEG", "MPO")


def pillow() -> ModuleType:
    """Import and return `PIL.Image`.

    Raises:
        MissingExtraError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as exc:
        raise MissingExtraError(
            "reading images needs Pillow, which is not installed (or cannot be loaded: "
            f'{exc}); install it with: pip install "penstock[images]"'
        ) from exc
    return Image


def prepare_pillow() -> None:
    """Import Pillow and its readers of common formats now.

    A dataset calls this when it is made: a missing Pillow is then one clear error, not an error of
    every sample, and workers that are forked later find the import done.

    Raises:
        MissingExtraError: Pillow is not installed.
    """
    pillow().preinit()


def check_mode(mode: object) -> str:
    """Return `mode` if images can be converted to it.

    Raises:
        OptionError: it is none of "L", "RGB" and "RGBA".
    """
    if not isinstance(mode, str) or mode not in CHANNELS:
        raise OptionError(
            f'mode={mode!r} is not a mode of images here; expected "RGB", "L" (grey) or "RGBA"'
        )
    return mode


def read_image(path: str, mode: str = "RGB") -> PILImage:
    """Read, decode and convert the first frame of one image file.

    The pixels are those that Pillow's `Image.open(path).convert(mode)` gives: a rotation in the
    EXIF data is not applied, and 16-bit grey is clipped to 8 bits. The file is closed when this
    returns or raises.

    Args:
        path: the file, as `str` (surrogate escapes allowed).
        mode: a key of `CHANNELS`.

    Raises:
        OSError: the file cannot be read or decoded; the subclass says how, where there is one.
        PIL.Image.DecompressionBombError: the header promises more than `PIL.Image.MAX_IMAGE_PIXELS`
            pixels. Pillow itself raises only from twice as many on and warns below.
        MemoryError: the pixels do not fit in memory.
        MissingExtraError: Pillow is not installed.
    """
    with open(path, "rb") as file:
        return decode_image(file, path, mode)[0]


def decode_image(
    file: BinaryIO,
    path: str,
    mode: str,
    choose_reduction: Callable[[tuple[int, int]], int] | None = None,
) -> tuple[PILImage, int]:
    """Decode and convert the first frame of an image file that is open.

    Args:
        file: at its beginning.
        path: of the file, for messages.
        mode: a key of `CHANNELS`.
        choose_reduction: is told width and height before the pixels are decoded; returns 1, 2, 4
            or 8, and a JPEG file is then decoded to so much less in both directions, rounded up.

    Returns:
        The image, and what its sides were divided by: 1 for anything but a JPEG file.

    Raises:
        Exception: as `read_image`.
    """
    library = pillow()
    try:
        image: PILImage = library.open(file)
        _check_size(library, image.size)
        reduction = 1 if choose_reduction is None else choose_reduction(image.size)
        if reduction > 1:
            if image.format in _JPEG_FORMATS:
                image.draft(None, (image.width // reduction, image.height // reduction))
            else:
                reduction = 1
        image.load()
        return image if image.mode == mode else image.convert(mode), reduction
    except Exception as exc:
        # KeyboardInterrupt and its like pass: they say nothing about the file.
        raise _named(library, exc, path, os.fstat(file.fileno()).st_size) from exc


def pixel_limit() -> int | None:
    """Return how many pixels an image may have: `PIL.Image.MAX_IMAGE_PIXELS`."""
    limit: int | None = pillow().MAX_IMAGE_PIXELS
    return limit


def _check_size(library: ModuleType, size: tuple[int, int]) -> None:
    # Not a filter that turns Pillow's warning into an error: filters belong to the whole process,
    # and changing them is not safe in threads.
    limit = library.MAX_IMAGE_PIXELS
    pixels = size[0] * size[1]
    if limit is not None and pixels > limit:
        raise library.DecompressionBombError(
            f"image of {size[0]}×{size[1]} = {pixels} pixels exceeds the limit of {limit} "
            "(PIL.Image.MAX_IMAGE_PIXELS): it may be a decompression bomb; raise the limit if you "
            "trust the file"
        )


def _named(library: ModuleType, exc: Exception, path: str, size_bytes: int) -> Exception:
    """Return the exception to raise for `exc`: of an expected type, its message with `path`."""
    from PIL import UnidentifiedImageError

    # Where warnings are errors, Pillow's own check of the size arrives as its warning.
    if isinstance(exc, (library.DecompressionBombError, library.DecompressionBombWarning)):
        bomb: Exception = library.DecompressionBombError(f"{path}: {exc}")
        return bomb
    if isinstance(exc, UnidentifiedImageError):
        return UnidentifiedImageError(
            f"{path}: not an image in any format that Pillow knows ({size_bytes} bytes)"
        )
    if isinstance(exc, MemoryError):
        return MemoryError(f"{path}: not enough memory to decode the image {exc}".rstrip())
    if isinstance(exc, OSError) and exc.errno is not None:
        return OSError(exc.errno, exc.strerror, path)
    if isinstance(exc, OSError):
        return OSError(f"{path}: {exc}")
    # Damaged files make Pillow's readers raise SyntaxError, ValueError, struct.error, EOFError and
    # more, as the place of the damage has it.
    return OSError(f"{path}: cannot decode the image: {type(exc).__name__}: {exc}")


def to_tensor(image: PILImage) -> torch.Tensor:
    """Return the pixels of a PIL image.

    Args:
        image: of mode "L", "RGB" or "RGBA".

    Returns:
        A new uint8 tensor C×H×W with C = 1, 3 or 4, contiguous and writable.

    Raises:
        ValueError: the image is of another mode.
    """
    channels = _channels(image)
    width, height = image.size
    pixels = np.empty((len(channels), height, width), np.uint8)
    for plane, channel in zip(pixels, channels, strict=True):
        packed = image.tobytes("raw", channel)
        plane[...] = np.frombuffer(packed, np.uint8).reshape(height, width)
    return torch.from_numpy(pixels)


def _channels(image: PILImage) -> tuple[str, ...]:
    channels = CHANNELS.get(image.mode)
    if channels is None:
        raise ValueError(
            f"image of mode {image.mode!r} cannot become a uint8 tensor; "
            f"convert it to one of {', '.join(CHANNELS)} first"
        )
    return channels


def to_pixels(image: PILImage, box: tuple[int, int, int, int] | None = None) -> torch.Tensor:
    """Return the pixels of a PIL image as they lie in it: a new uint8 tensor H×W×C.

    Args:
        image: of mode "L", "RGB" or "RGBA".
        box: left, upper, right and lower edge of the part to return; None for all.

    Raises:
        ValueError: the image is of another mode.
    """
    channels = _channels(image)
    part = image if box is None else image.crop(box)
    shape = (part.height, part.width, len(channels))
    return torch.frombuffer(bytearray(part.tobytes()), dtype=torch.uint8).view(shape)


def from_pixels(pixels: torch.Tensor) -> PILImage:
    """Return a PIL image of mode "L", "RGB" or "RGBA" with the pixels of a uint8 tensor H×W×C."""
    array = pixels.numpy()
    image: PILImage = pillow().fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
    return image


def resize_box(
    image: PILImage,
    size: tuple[int, int],
    box: tuple[float, float, float, float],
    interpolation: str,
) -> PILImage:
    """Scale a part of an image, whose edges may lie between pixels, antialiased.

    Args:
        image: of mode "L", "RGB" or "RGBA".
        size: width and height of the result.
        box: left, upper, right and lower edge of the part, within the image.
        interpolation: "bilinear" or "bicubic".
    """
    return image.resize(size, pillow().Resampling[interpolation.upper()], box=box)
