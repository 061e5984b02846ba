"""JPEG files by libjpeg-turbo. The only file that imports simplejpeg, and only when first needed.

    bytes ── frame header ── fewer lines declared, if fewer are wanted ── decode ──> uint8 H×W×C

Only what both decoders are known to read alike is read here: sequential and progressive JPEGs of
grey or of YCbCr in 8 bits. For anything else, and for whatever goes wrong, the answer is None:
then Pillow reads the file, or says what is wrong with it, as if this module were not there.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import numpy as np
import numpy.typing as npt

from penstock.errors import MissingExtraError

SIGNATURE = b"\xff\xd8\xff"
_END = b"\xff\xd9"

# Markers: ITU-T T.81, table B.1.
_SEQUENTIAL = (0xC0, 0xC1)
_PROGRESSIVE = 0xC2
_SCAN = 0xDA
# What may stand between: tables, restart interval, applications' data, comments.
_SEGMENTS = frozenset((0xC4, 0xDB, 0xDD, *range(0xE0, 0xF0), 0xFE))

# What is decoded to what. Not colours to grey: Pillow computes that from RGB, and rounds otherwise.
_COLORSPACES = {
    ("L", "Gray"): "GRAY",
    ("RGB", "Gray"): "RGB",
    ("RGBA", "Gray"): "RGBA",
    ("RGB", "YCbCr"): "RGB",
    ("RGBA", "YCbCr"): "RGBA",
}


@dataclass(frozen=True)
class Header:
    """What the header of a JPEG file says.

    Attributes:
        width: in pixels.
        height: in pixels.
        lines_at: where the number of lines stands in the file.
        one_scan: whether the lines come from the first to the last, with all their colours.
    """

    width: int
    height: int
    lines_at: int
    one_scan: bool


def turbo() -> ModuleType:
    """Import and return `simplejpeg`.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import simplejpeg
    except ImportError as exc:
        raise MissingExtraError(
            'decoder="jpeg-turbo" needs simplejpeg, which is not installed (or cannot be loaded: '
            f'{exc}); install it with: pip install "penstock[jpeg]", or say decoder="pillow"'
        ) from exc
    module: ModuleType = simplejpeg
    return module


def is_installed() -> bool:
    """Return whether libjpeg-turbo can be had here."""
    try:
        turbo()
    except MissingExtraError:
        return False
    return True


def read_header(data: bytearray) -> Header | None:
    """Return what the header says, up to the first scan; None if this is nothing for us.

    Args:
        data: the file, which begins with `SIGNATURE`.
    """
    frame = 0
    at = 2
    try:
        while True:
            if data[at] != 0xFF:
                return None
            marker = data[at + 1]
            if marker == 0xFF:  # a fill byte
                at += 1
                continue
            if marker == _SCAN:
                return _header(data, frame, data[at + 4]) if frame else None
            if marker in _SEQUENTIAL or marker == _PROGRESSIVE:
                frame = at
            elif marker not in _SEGMENTS:
                return None
            at += 2 + (data[at + 2] << 8 | data[at + 3])
    except IndexError:
        return None


def _header(data: bytearray, frame: int, in_scan: int) -> Header | None:
    # T.81, B.2.2: marker, length, precision, lines, samples a line, components of three bytes each.
    height, width = (data[frame + k] << 8 | data[frame + k + 1] for k in (5, 7))
    components = data[frame + 9]
    if data[frame + 4] != 8 or not height or not width or components not in (1, 3):
        return None
    one_scan = data[frame + 1] in _SEQUENTIAL and in_scan == components
    return Header(width, height, frame + 5, one_scan)


def decode(
    data: bytearray, header: Header, mode: str, reduction: int = 1, rows: int | None = None
) -> npt.NDArray[np.uint8] | None:
    """Decode a picture, or its upper part.

    The pixels are those of Pillow with the same version of libjpeg-turbo, bit for bit. As there,
    damage that leaves something to show is no error; a file that ends too early is one.

    Args:
        data: the file. Two bytes of it are changed meanwhile.
        header: of it.
        mode: "L", "RGB" or "RGBA".
        reduction: 1, 2, 4 or 8: decode to ⌈width / reduction⌉ × ⌈height / reduction⌉ pixels.
        rows: how many of those rows are needed, from the top; None for all.

    Returns:
        uint8 H×W×C with at least `rows` rows, of which no more may be used; None if
        this file is to be read by Pillow.

    Raises:
        MissingExtraError: simplejpeg is not installed.
    """
    # A file that was cut off has no end. One that has its end can be short of data only by
    # damage, and of damage Pillow says nothing either.
    complete = data.endswith(_END)
    lines = header.height
    if complete and header.one_scan and rows is not None:
        # The colours of a row may be taken from the row below it as well, at the end of the
        # picture from what is there. So more is decoded than is looked at: one row would do.
        lines = min(lines, (rows + 2) * reduction)
    _declare_lines(data, header, lines)
    try:
        return _decode(data, mode, -(-header.width // reduction), -(-lines // reduction), complete)
    finally:
        _declare_lines(data, header, header.height)


def _declare_lines(data: bytearray, header: Header, lines: int) -> None:
    """Have the frame header say how many lines there are; all behind them is then passed over."""
    data[header.lines_at : header.lines_at + 2] = lines.to_bytes(2, "big")


def _decode(
    data: bytearray, mode: str, width: int, height: int, complete: bool
) -> npt.NDArray[np.uint8] | None:
    library = turbo()
    try:
        _, _, stored, _ = library.decode_jpeg_header(data, strict=False)
        colorspace = _COLORSPACES.get((mode, stored))
        if colorspace is None:
            return None
        pixels: npt.NDArray[np.uint8] = library.decode_jpeg(
            data, colorspace, min_height=height, min_width=width, strict=not complete
        )
    except ValueError:
        return None
    return pixels if pixels.shape[:2] == (height, width) else None
