"""The transforms that come along: any picture to a square tensor of one size."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, final

import torch

from penstock.datasets.cuts import Cut, Need, central_cut, need, random_cut
from penstock.datasets.scaling import SUPPORT, render
from penstock.errors import OptionError

if TYPE_CHECKING:
    from penstock.datasets.decode import PILImage

LAYOUTS = ("CHW", "HWC")


@dataclass(frozen=True)
class SquareTransform(ABC):
    """A transform that says what it needs of a picture before the picture is decoded.

    `ImageDataset` and `ImageStream` then read no more than that. Called with a PIL image of the
    whole picture it gives the same result, as far as `reducing_gap` allows.
    """

    size: int
    interpolation: Literal["bilinear", "bicubic"] = field(default="bilinear", kw_only=True)
    reducing_gap: float | None = field(default=2.0, kw_only=True)
    layout: Literal["CHW", "HWC"] = field(default="CHW", kw_only=True)

    def __post_init__(self) -> None:
        try:
            size = 0 if isinstance(self.size, bool) else operator.index(self.size)
        except TypeError:
            size = 0
        if size < 1:
            raise OptionError(
                f"size={self.size!r} is not a size in pixels; expected a whole number from 1 on, "
                "such as 224"
            )
        object.__setattr__(self, "size", size)
        check_choice("interpolation", self.interpolation, SUPPORT)
        check_choice("layout", self.layout, LAYOUTS)
        gap = self.reducing_gap
        if gap is not None and not (_is_number(gap) and gap >= 1):
            raise OptionError(
                f"reducing_gap={gap!r} is not how many times as large as the result a picture may "
                "be decoded; expected a number from 1 on, such as 2.0, or None to decode it whole"
            )

    @abstractmethod
    def cut(self, width: int, height: int) -> Cut:
        """Return what becomes of a picture of so many pixels; called once for each sample."""

    def __call__(self, image: PILImage) -> torch.Tensor:
        """Return the sample of a PIL image of mode "L", "RGB" or "RGBA"."""
        cut = self.cut(*image.size)
        return self.render(image, self.need(cut, image.size, 1))

    def need(self, cut: Cut, picture: tuple[int, int], reduction: int) -> Need:
        """Return what a cut needs of a picture, given its width and height: see `cuts.need`."""
        return need(cut, picture, reduction, SUPPORT[self.interpolation])

    def render(self, picture: PILImage | torch.Tensor, needed: Need) -> torch.Tensor:
        """Return the sample, given what it needs of the decoded picture: see `scaling.render`."""
        return render(picture, needed, self.interpolation, self.layout)


@final
@dataclass(frozen=True)
class ResizeCrop(SquareTransform):
    """Scale the shorter side to `size`, cut `size`×`size` out of the middle, make it a tensor.

    As torchvision's `Resize(size)` and `CenterCrop(size)`, antialiased; where nothing is reduced,
    each value within 1 of theirs.

    Serialises under every start method. The result does not depend on anything but the image.

    Args:
        size: height and width of the result in pixels, at least 1.
        interpolation: "bilinear" or "bicubic".
        reducing_gap: a JPEG file is decoded at 1/2, 1/4 or 1/8 of its size where what is left has
            at least so many times the pixels of the result in both directions; from 1 on. None
            decodes it whole. At 2.0, which is also what `thumbnail` of Pillow takes, photographs
            differ by 0.3 of 255 on average, the worst by 0.9, single values by up to 20.
        layout: "CHW" for a tensor C×H×W, or "HWC" for H×W×C, which is quicker to make. `Normalize`
            takes batches of either.

    Raises:
        OptionError: an argument is none of these.
    """

    def cut(self, width: int, height: int) -> Cut:
        """Return the whole picture, scaled, and of that the middle."""
        return central_cut(width, height, self.size)


@final
@dataclass(frozen=True)
class RandomResizedCrop(SquareTransform):
    """Scale a random part of the picture to `size`×`size`, flip half of them, make it a tensor.

    As torchvision's `RandomResizedCrop` and `RandomHorizontalFlip`, antialiased: the part is drawn
    by the rule of `RandomResizedCrop.get_params`. It is drawn from Python's `random`, which
    Penstock's loaders seed for each sample: whatever worker makes it, it is the same.

    Serialises under every start method.

    Args:
        size: height and width of the result in pixels, at least 1.
        scale: the smallest and largest share of the picture's area.
        ratio: the smallest and largest width divided by height.
        flip: the probability that left and right are exchanged.
        interpolation: "bilinear" or "bicubic".
        reducing_gap: as for `ResizeCrop`. The part of a reduced picture begins at a whole pixel of
            it: that may be a quarter of a pixel of the result away (at 2.0).
        layout: as for `ResizeCrop`.

    Raises:
        OptionError: an argument is none of these.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "scale", _check_bounds("scale", self.scale, most=1.0))
        object.__setattr__(self, "ratio", _check_bounds("ratio", self.ratio, most=None))
        if not (_is_number(self.flip) and 0 <= self.flip <= 1):
            raise OptionError(
                f"flip={self.flip!r} is not a probability; expected a number from 0 to 1, such as "
                "0.5"
            )

    def cut(self, width: int, height: int) -> Cut:
        """Draw a part of the picture, and whether it is turned round."""
        return random_cut(width, height, self.size, self.scale, self.ratio, self.flip)


def check_choice(name: str, value: Any, choices: Any) -> None:
    """Check that an argument is one of some strings.

    Raises:
        OptionError: it is not; the message names the argument and the strings.
    """
    if not isinstance(value, str) or value not in choices:
        expected = " or ".join(repr(choice) for choice in choices)
        raise OptionError(f"{name}={value!r} is not known; expected {expected}")


def _check_bounds(name: str, value: Any, most: float | None) -> tuple[float, float]:
    try:
        low, high = value
    except (TypeError, ValueError):
        low = high = None
    if not (
        _is_number(low) and _is_number(high) and 0 < low <= high and (not most or high <= most)
    ):
        limit = f", at most {most:g}" if most else ""
        raise OptionError(
            f"{name}={value!r} is not a smallest and a largest value; expected two numbers above "
            f"0 in this order{limit}, such as {'(0.08, 1.0)' if most else '(0.75, 1.33)'}"
        )
    return float(low), float(high)


def _is_number(value: Any) -> bool:
    # Infinity and NaN are numbers to Python.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e9
