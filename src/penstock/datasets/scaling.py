"""From a picture to the pixels of a sample: scaled, cut, turned round, laid out.

    PIL image, or uint8 H×W×C ── box scaled, window kept ── flip ── layout ──> uint8 C×H×W or H×W×C

torch scales bytes in half of Pillow's time, antialiased by the same rule. What it makes of them is
what torchvision makes of a uint8 tensor, and Pillow's to within 1 of 255, or 2 where it is bicubic
and no mere noise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from penstock.datasets.cuts import Need
from penstock.datasets.decode import from_pixels, resize_box, to_pixels

if TYPE_CHECKING:
    from penstock.datasets.decode import PILImage

# How far each filter reaches, in pixels of the result, to each side.
SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}

# torch scales from the first row and column on, whatever is kept of that. Where a picture is so
# much longer than wide, Pillow, which can begin anywhere, has less to do.
_LONGEST = 4


def render(
    picture: PILImage | torch.Tensor, needed: Need, interpolation: str, layout: str
) -> torch.Tensor:
    """Return the pixels of a sample.

    Args:
        picture: a decoded image of mode "L", "RGB" or "RGBA", or its pixels, uint8 H×W×C, of
            which the rows behind `needed.down.stop` may be missing.
        needed: what of it is needed for what.
        interpolation: "bilinear" or "bicubic".
        layout: "CHW" or "HWC".

    Returns:
        A new, contiguous uint8 tensor.
    """
    channels = picture.shape[2] if isinstance(picture, torch.Tensor) else len(picture.getbands())
    scaled = needed.cut.scaled
    # Pillow multiplies colours by alpha before it scales, and is as fast where there is one band.
    if channels != 3 or max(scaled) > _LONGEST * min(scaled):
        pixels = _scale_by_pillow(picture, needed, interpolation)
    else:
        pixels = _scale_by_torch(picture, needed, interpolation)
    if layout == "CHW":
        return to_planes(pixels, needed.cut.flip)
    return pixels.flip(1) if needed.cut.flip else pixels


def to_planes(pixels: torch.Tensor, flip: bool = False) -> torch.Tensor:
    """Return a new, contiguous tensor C×H×W of one H×W×C.

    Args:
        pixels: uint8.
        flip: whether left and right are exchanged: on the way, which costs nothing.
    """
    source = pixels.numpy()[:, ::-1] if flip else pixels.numpy()
    height, width, channels = source.shape
    planes = np.empty((channels, height, width), np.uint8)
    for channel, plane in enumerate(planes):
        plane[...] = source[:, :, channel]
    return torch.from_numpy(planes)


def _scale_by_torch(
    picture: PILImage | torch.Tensor, needed: Need, interpolation: str
) -> torch.Tensor:
    cut, _, across, down = needed
    if isinstance(picture, torch.Tensor):
        # NumPy copies it in half of torch's time.
        rows = picture.numpy()[down.start : down.stop, across.start : across.stop]
        part = torch.from_numpy(np.ascontiguousarray(rows))
    else:
        part = to_pixels(picture, (across.start, down.start, across.stop, down.stop))
    # With the steps given, what a pixel becomes does not depend on how much of its row is there.
    scaled: torch.Tensor = _OPERATORS[interpolation](
        part[None].permute(0, 3, 1, 2),
        (down.results, across.results),
        False,
        1 / down.step,
        1 / across.step,
    )
    window = cut.window
    return scaled[0].permute(1, 2, 0)[window.top :, window.left :].contiguous()


# What `torch.nn.functional.interpolate` with `antialias=True` calls. It would take a size or steps,
# not both.
_OPERATORS: dict[str, Any] = {
    "bilinear": torch.ops.aten._upsample_bilinear2d_aa.default,
    "bicubic": torch.ops.aten._upsample_bicubic2d_aa.default,
}


def _scale_by_pillow(
    picture: PILImage | torch.Tensor, needed: Need, interpolation: str
) -> torch.Tensor:
    cut, _, across, down = needed
    # Cut out before, since the filter would reach for what lies beside the box.
    if isinstance(picture, torch.Tensor):
        part = from_pixels(picture[down.start : down.stop, across.start : across.stop])
    else:
        part = picture.crop((across.start, down.start, across.stop, down.stop))
    window = cut.window
    box = (
        window.left * across.step,
        window.top * down.step,
        min(window.right * across.step, part.width),
        min(window.bottom * down.step, part.height),
    )
    return to_pixels(resize_box(part, (window.width, window.height), box, interpolation))
