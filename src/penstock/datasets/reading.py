"""From a path to a sample, by whichever decoder the dataset has.

    path ── open ──┬─ JPEG for libjpeg-turbo ── header ── cut ── as much as it needs ──┬── render
                   └─ anything else: Pillow ─── header ── cut ── all of it ────────────┘

Which decoder made a sample does not show: both give the same pixels, and a cut is drawn once.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from io import BufferedReader
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch

from penstock.datasets import jpeg
from penstock.datasets.cuts import Cut, Need
from penstock.datasets.decode import decode_image, pixel_limit, read_image, to_tensor
from penstock.datasets.resize import SquareTransform, check_choice
from penstock.datasets.scaling import to_planes

if TYPE_CHECKING:
    from penstock.datasets.decode import PILImage

Decoder: TypeAlias = Literal["jpeg-turbo", "pillow"]
DECODERS = ("auto", "jpeg-turbo", "pillow")


def choose_decoder(name: str) -> Decoder:
    """Return the decoder that is meant by an argument `decoder=`, and import it.

    What "auto" means is decided once, when a dataset is made, and travels with it. A worker on a
    machine without that decoder fails, then, and does not quietly take another.

    Raises:
        OptionError: there is no such decoder.
        MissingExtraError: it is not installed.
    """
    check_choice("decoder", name, DECODERS)
    if name == "pillow" or (name == "auto" and not jpeg.is_installed()):
        return "pillow"
    jpeg.turbo()
    return "jpeg-turbo"


def load(
    path: str, mode: str, transform: Callable[[Any], Any] | None, decoder: Decoder = "pillow"
) -> Any:
    """Read one image and transform it, or make it a uint8 tensor C×H×W without a transform.

    Args:
        path: of the file.
        mode: "L", "RGB" or "RGBA".
        transform: of the dataset. One that is not of this package gets a PIL image, by Pillow.
        decoder: for JPEG files, where it can read them.

    Raises:
        Exception: as `ImageDataset.__getitem__`.
    """
    if transform is not None and not isinstance(transform, SquareTransform):
        return transform(read_image(path, mode))
    plan = _Plan(transform)
    with open(path, "rb") as file:
        if decoder == "jpeg-turbo":
            sample = _load_jpeg(file, mode, transform, plan)
            if sample is not None:
                return sample
            file.seek(0)
        image, reduction = decode_image(file, path, mode, plan.reduction)
    return _finish(image, transform, plan.needed(reduction))


class _Plan:
    """What one sample needs of its picture: drawn once, whoever decodes that in the end."""

    def __init__(self, transform: SquareTransform | None) -> None:
        self._transform = transform
        self._drawn: tuple[tuple[int, int], Cut] | None = None

    def reduction(self, size: tuple[int, int]) -> int:
        """Return what the sides of a JPEG picture of this size are to be divided by."""
        if self._transform is None:
            return 1
        if self._drawn is None or self._drawn[0] != size:
            self._drawn = size, self._transform.cut(*size)
        return self._drawn[1].reduction(self._transform.reducing_gap)

    def needed(self, reduction: int) -> Need | None:
        """Return what is needed of the picture when it is so reduced; None means all of it."""
        if self._transform is None or self._drawn is None:
            return None
        size, cut = self._drawn
        return self._transform.need(cut, size, reduction)


def _load_jpeg(
    file: BufferedReader, mode: str, transform: SquareTransform | None, plan: _Plan
) -> torch.Tensor | None:
    """Return the sample, or None if that is not to be had by libjpeg-turbo alone."""
    try:
        data = _read(file)
    except OSError:
        return None  # Pillow will meet it again, and it is told there.
    header = jpeg.read_header(data)
    limit = pixel_limit()
    if header is None or (limit is not None and header.width * header.height > limit):
        return None
    reduction = plan.reduction((header.width, header.height))
    needed = plan.needed(reduction)
    decoded = jpeg.decode(data, header, mode, reduction, needed and needed.down.stop)
    if decoded is None:
        return None
    return _finish(torch.from_numpy(decoded), transform, needed)


def _finish(
    picture: PILImage | torch.Tensor, transform: SquareTransform | None, needed: Need | None
) -> torch.Tensor:
    if transform is not None and needed is not None:
        return transform.render(picture, needed)
    return to_planes(picture) if isinstance(picture, torch.Tensor) else to_tensor(picture)


def _read(file: BufferedReader) -> bytearray:
    """Return the content of a JPEG file; of another one nothing."""
    if not file.peek(len(jpeg.SIGNATURE)).startswith(jpeg.SIGNATURE):
        return bytearray()
    data = bytearray(os.fstat(file.fileno()).st_size)
    del data[file.readinto(data) :]
    return data
