"""Which part of a picture a sample shows, and how many pixels have to be read for that.

    picture in the file ── decoded to 1/reduction ──> pixels
        box: part of the picture      region: part of the pixels ── scaled ──> window of the result

Numbers only: no pixel is touched here.
"""

from __future__ import annotations

import math
import random
from typing import NamedTuple

# What JPEG decoders divide the sides of a picture by, cheaply.
REDUCTIONS = (8, 4, 2)
_ATTEMPTS = 10


class Box(NamedTuple):
    """A rectangle of whole pixels.

    Attributes:
        left: its first column.
        top: its first row.
        width: in columns.
        height: in rows.
    """

    left: int
    top: int
    width: int
    height: int

    @property
    def right(self) -> int:
        """The column behind its last."""
        return self.left + self.width

    @property
    def bottom(self) -> int:
        """The row behind its last."""
        return self.top + self.height


class Cut(NamedTuple):
    """What becomes of a picture: a box of it is scaled, and of that a window is kept.

    Attributes:
        box: the part of the picture, in its own pixels.
        scaled: width and height that the box is scaled to.
        window: what is kept of it.
        flip: whether left and right are exchanged then.
    """

    box: Box
    scaled: tuple[int, int]
    window: Box
    flip: bool = False

    def reduction(self, gap: float | None) -> int:
        """Return what the sides of the picture may be divided by while it is decoded: 1, 2, 4, 8.

        Args:
            gap: how many times as large as `scaled` the decoded box has to be at least; None for
                no reduction.
        """
        if gap is not None:
            for number in REDUCTIONS:
                if all(
                    side >= number * gap * scaled
                    for side, scaled in zip(
                        (self.box.width, self.box.height), self.scaled, strict=True
                    )
                ):
                    return number
        return 1


class Span(NamedTuple):
    """One axis of a cut, in decoded pixels.

    Attributes:
        start: the first pixel.
        stop: the one behind the last that the window depends on.
        step: how many decoded pixels become one of the result.
        results: how many pixels of the result are computed, from the first on.
    """

    start: int
    stop: int
    step: float
    results: int


class Need(NamedTuple):
    """What of a decoded picture a cut needs.

    Attributes:
        cut: what is wanted of the picture.
        reduction: what the sides of the picture are divided by.
        across: of the columns.
        down: of the rows.
    """

    cut: Cut
    reduction: int
    across: Span
    down: Span


def need(cut: Cut, picture: tuple[int, int], reduction: int, support: float) -> Need:
    """Return what of the decoded pixels a cut needs.

    A box that begins between two decoded pixels begins at the nearer one: by half of one at most.

    Args:
        cut: what is wanted of the picture.
        picture: its width and height in the file.
        reduction: what they are divided by, rounded up, when it is decoded.
        support: how far the filter reaches, in pixels of the result, to each side.
    """
    box, scaled, window = cut.box, cut.scaled, cut.window
    return Need(
        cut,
        reduction,
        _span(box.left, box.width, scaled[0], window.right, picture[0], reduction, support),
        _span(box.top, box.height, scaled[1], window.bottom, picture[1], reduction, support),
    )


def _span(
    first: int, length: int, scaled: int, count: int, size: int, reduction: int, support: float
) -> Span:
    step = length / reduction / scaled
    decoded = -(-size // reduction)
    start = min(round(first / reduction), decoded - 1)
    end = min(math.ceil(start + length / reduction), decoded)
    # A filter that enlarges is as wide as one that leaves the size as it is.
    reach = math.ceil(start + step * count + support * max(step, 1.0)) + 1
    return Span(start, min(end, reach), step, count)


def central_cut(width: int, height: int, size: int) -> Cut:
    """Return the cut that scales the shorter side to `size` and keeps the middle square.

    As torchvision's `Resize(size)` and `CenterCrop(size)`: the longer side is rounded down, the
    place of the square to the nearest even number.
    """
    if width <= height:
        scaled = (size, max(size, size * height // width))
    else:
        scaled = (max(size, size * width // height), size)
    left, top = (round((side - size) / 2) for side in scaled)
    return Cut(Box(0, 0, width, height), scaled, Box(left, top, size, size))


def random_cut(
    width: int,
    height: int,
    size: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    flip: float,
) -> Cut:
    """Draw a cut as torchvision's `RandomResizedCrop` and `RandomHorizontalFlip` do.

    That is, `RandomResizedCrop.get_params`: an area uniform in `scale`, a ratio of width to height
    uniform in its logarithm, sides rounded, a place uniform among those where the box fits; after
    ten boxes that did not fit, the largest one in the middle that keeps to `ratio`.

    Draws from Python's `random`: it is the cheapest to seed for each sample, and to draw from.

    Args:
        width: of the picture.
        height: of the picture.
        size: width and height of the result.
        scale: bounds of the box's share of the picture's area.
        ratio: bounds of the box's width divided by its height.
        flip: the probability of exchanging left and right.
    """
    box = _random_box(width, height, scale, ratio)
    return Cut(box, (size, size), Box(0, 0, size, size), random.random() < flip)


def _random_box(
    width: int, height: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> Box:
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(_ATTEMPTS):
        area = width * height * random.uniform(*scale)
        shape = math.exp(random.uniform(low, high))
        across, down = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
        if 0 < across <= width and 0 < down <= height:
            left, top = (int(random.random() * (n + 1)) for n in (width - across, height - down))
            return Box(left, top, across, down)
    across = min(width, max(1, round(height * ratio[1])))
    down = min(height, max(1, round(width / ratio[0])))
    return Box((width - across) // 2, (height - down) // 2, across, down)
