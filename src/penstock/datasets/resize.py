"""The one transform that comes along: any picture to a square tensor of one size."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from penstock.datasets.decode import pillow, to_tensor
from penstock.errors import OptionError

if TYPE_CHECKING:
    from penstock.datasets.decode import PILImage


@dataclass(frozen=True)
class ResizeCrop:
    """Scale the shorter side to `size`, cut `size`×`size` out of the middle, make it a tensor.

    Antialiased bilinear, by Pillow. Only the pixels that are kept are computed: the crop is taken
    as a box of the original, at the places where scaling first and cutting afterwards has them.

    Serialises under every start method. The result does not depend on anything but the image.

    Args:
        size: height and width of the result in pixels, at least 1.

    Raises:
        OptionError: `size` is not a positive whole number.
    """

    size: int

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

    def __call__(self, image: PILImage) -> torch.Tensor:
        """Return a uint8 tensor C×`size`×`size` of a PIL image of mode "L", "RGB" or "RGBA"."""
        width, height = image.size
        if width <= height:
            scaled = (self.size, max(self.size, self.size * height // width))
        else:
            scaled = (max(self.size, self.size * width // height), self.size)
        left, top = (round((side - self.size) / 2) for side in scaled)
        across, down = width / scaled[0], height / scaled[1]
        box = (
            left * across,
            top * down,
            min((left + self.size) * across, width),
            min((top + self.size) * down, height),
        )
        bilinear = pillow().Resampling.BILINEAR
        return to_tensor(image.resize((self.size, self.size), bilinear, box=box))
