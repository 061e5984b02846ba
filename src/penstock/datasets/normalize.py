"""The step from bytes to floats, for the device that the model is on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from penstock.datasets.resize import LAYOUTS, check_choice
from penstock.errors import OptionError


class Normalize(nn.Module):
    """Turn batches of uint8 pixels into normalised floats, on whatever device they are.

    Bytes are a quarter of the floats: batches travel that much faster to the device as they are.
    There, this module does what torchvision's `ToTensor` and `Normalize` do to each sample:
    `(pixel / 255 - mean) / std` for each channel, to within rounding.

        normalize = Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)).to(device)
        for images, labels, _ in loader:
            loss = loss_of(model(normalize(images.to(device, non_blocking=True))), labels)

    It may be the first layer of the model, and be compiled with it. Nothing of it is in a
    `state_dict`.

    Args:
        mean: of each channel, where 1.0 is white.
        std: standard deviation of each channel, above 0.
        layout: of the batches: "CHW" for N×C×H×W, "HWC" for N×H×W×C, as the transform has it. From
            "HWC" come batches in the memory format `torch.channels_last`, without a copy; that
            of a batch N×C×H×W stays.
        dtype: of the result. It is computed in float32 all the same.

    Raises:
        OptionError: an argument cannot be used.
    """

    scale: torch.Tensor
    bias: torch.Tensor

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        layout: Literal["CHW", "HWC"] = "CHW",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        check_choice("layout", layout, LAYOUTS)
        if not dtype.is_floating_point:
            raise OptionError(f"dtype={dtype} holds no fractions; expected one such as float32")
        means = _channels("mean", mean)
        deviations = _channels("std", std)
        if len(means) != len(deviations) or not (deviations > 0).all():
            raise OptionError(
                f"std={std!r} does not go with mean={mean!r}; expected as many numbers, all above 0"
            )
        self.layout = layout
        self.dtype = dtype
        self.register_buffer("scale", (1 / (255 * deviations)).float(), persistent=False)
        self.register_buffer("bias", (-means / deviations).float(), persistent=False)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return a batch N×C×H×W of floats.

        Args:
            batch: uint8, as `layout` says; one sample without the N will do.

        Raises:
            ValueError: it has another dtype, or not as many channels as `mean`.
        """
        if self.layout == "HWC":
            batch = batch.movedim(-1, -3)
        if batch.dtype is not torch.uint8 or batch.shape[-3] != len(self.scale):
            raise ValueError(
                f"Normalize got {batch.dtype} with the shape {tuple(batch.shape)} (as C×H×W); "
                f"expected uint8 with {len(self.scale)} channels and layout={self.layout!r}"
            )
        scale, bias = self.scale[:, None, None], self.bias[:, None, None]
        return torch.addcmul(bias, batch.float(), scale).to(self.dtype)

    def extra_repr(self) -> str:
        """What `repr` shows of it."""
        return f"{len(self.scale)} channels, layout={self.layout!r}, dtype={self.dtype}"


def _channels(name: str, values: Sequence[float]) -> torch.Tensor:
    try:
        numbers = torch.tensor([float(value) for value in values], dtype=torch.float64)
    except (TypeError, ValueError) as exc:
        raise OptionError(
            f"{name}={values!r} is not a number for each channel; expected some such as "
            "(0.485, 0.456, 0.406)"
        ) from exc
    if not len(numbers) or not numbers.isfinite().all():
        raise OptionError(f"{name}={values!r} must be finite numbers, one for each channel")
    return numbers
