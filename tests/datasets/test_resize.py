from __future__ import annotations

import pickle
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from penstock.datasets import ResizeCrop
from penstock.errors import OptionError


def noise(width, height, mode="RGB"):
    rng = np.random.default_rng(width * 1000 + height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).convert(mode)


def in_two_steps(image, size):
    width, height = image.size
    short = min(width, height)
    scaled = (int(size * width / short), int(size * height / short))
    image = image.resize(scaled, Image.Resampling.BILINEAR)
    left, top = round((scaled[0] - size) / 2), round((scaled[1] - size) / 2)
    return np.asarray(image.crop((left, top, left + size, top + size)))


@pytest.mark.parametrize("width_height", [(500, 375), (375, 500), (300, 300), (20, 31), (701, 223)])
@pytest.mark.parametrize("size", [224, 64, 1])
def test_the_pixels_are_those_of_scaling_first_and_cropping_then(width_height, size):
    image = noise(*width_height)
    found = ResizeCrop(size)(image).numpy().transpose(1, 2, 0)
    difference = np.abs(found.astype(int) - in_two_steps(image, size).astype(int))
    # Pillow takes the box as 32-bit floats: now and then a value is rounded the other way.
    assert difference.max() <= 1
    assert difference.mean() < 0.05


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 80))
def test_every_size_of_picture_becomes_the_size_asked_for(width, height, size):
    tensor = ResizeCrop(size)(noise(width, height))
    assert tensor.shape == (3, size, size)
    assert tensor.dtype == torch.uint8
    assert tensor.is_contiguous()


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGBA", 4)])
def test_other_modes_keep_their_channels(mode, channels):
    assert ResizeCrop(8)(noise(30, 20, mode)).shape == (channels, 8, 8)


def test_a_very_long_picture_costs_no_more_memory_than_the_result():
    assert ResizeCrop(64)(Image.new("RGB", (2, 60000))).shape == (3, 64, 64)


@pytest.mark.parametrize("module", [pickle, cloudpickle])
def test_it_travels_to_workers(module):
    assert pickle.loads(module.dumps(ResizeCrop(32))) == ResizeCrop(32)


@pytest.mark.parametrize("size", [0, -1, 2.5, "224", None, True, (224, 224)])
def test_a_size_that_is_none_is_an_option_error(size):
    with pytest.raises(OptionError, match="is not a size in pixels"):
        ResizeCrop(size)


def test_whole_numbers_of_numpy_are_sizes():
    size: Any = np.int64(8)
    assert ResizeCrop(size) == ResizeCrop(8)
