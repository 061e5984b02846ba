from __future__ import annotations

import pickle

import pytest
import torch

from penstock.datasets import Normalize
from penstock.errors import OptionError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def batch(*shape):
    return torch.randint(
        0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def by_hand(images):
    mean, std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (MEAN, STD))
    return (images.double() / 255 - mean) / std


def test_a_batch_becomes_what_totensor_and_normalize_make_of_it():
    images = batch(4, 3, 9, 7)
    found = Normalize(MEAN, STD)(images)
    assert found.dtype is torch.float32
    assert found.is_contiguous()
    torch.testing.assert_close(found.double(), by_hand(images), rtol=0, atol=1e-6)


def test_pixels_with_their_channels_last_stay_where_they_are():
    images = batch(4, 9, 7, 3)
    found = Normalize(MEAN, STD, layout="HWC")(images)
    assert found.shape == (4, 3, 9, 7)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(found, Normalize(MEAN, STD)(images.permute(0, 3, 1, 2)))


def test_the_memory_format_of_a_batch_is_kept():
    images = batch(4, 3, 9, 7).contiguous(memory_format=torch.channels_last)
    assert Normalize(MEAN, STD)(images).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("layout", "shape"), [("CHW", (3, 5, 6)), ("HWC", (5, 6, 3))])
def test_one_sample_will_do(layout, shape):
    assert Normalize(MEAN, STD, layout)(batch(*shape)).shape == (3, 5, 6)


def test_grey_and_other_numbers_of_channels():
    assert Normalize([0.5], [0.5])(batch(2, 1, 4, 4)).shape == (2, 1, 4, 4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_result_has_the_dtype_that_was_asked_for(dtype):
    images = batch(2, 3, 8, 8)
    module = Normalize(MEAN, STD, dtype=dtype)
    assert torch.equal(module(images), Normalize(MEAN, STD)(images).to(dtype))


def test_a_model_that_is_halved_still_computes_it_in_full():
    images = batch(2, 3, 8, 8)
    halved = torch.nn.Sequential(Normalize(MEAN, STD)).half()
    assert halved(images).dtype is torch.float32
    torch.testing.assert_close(halved(images).double(), by_hand(images), rtol=0, atol=5e-3)


def test_it_leaves_nothing_in_a_state_dict_and_moves_with_the_model():
    module = Normalize(MEAN, STD)
    assert module.state_dict() == {}
    assert module.to("meta").scale.device.type == "meta"


def test_it_is_compiled_without_a_break():
    module = torch.compile(Normalize(MEAN, STD, layout="HWC"), fullgraph=True, backend="aot_eager")
    images = batch(2, 8, 8, 3)
    torch.testing.assert_close(module(images), Normalize(MEAN, STD, layout="HWC")(images))


def test_it_can_be_saved_and_shown():
    module = pickle.loads(pickle.dumps(Normalize(MEAN, STD, layout="HWC")))
    assert repr(module) == "Normalize(3 channels, layout='HWC', dtype=torch.float32)"


@pytest.mark.parametrize(
    ("images", "layout"),
    [
        (batch(2, 8, 8, 3), "CHW"),
        (batch(2, 3, 8, 8), "HWC"),
        (batch(2, 3, 8, 8).float(), "CHW"),
        (batch(2, 1, 8, 8), "CHW"),
    ],
)
def test_a_batch_that_is_none_is_told_what_was_expected(images, layout):
    with pytest.raises(ValueError, match="expected uint8 with 3 channels"):
        Normalize(MEAN, STD, layout)(images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": 0.5}, "mean=0.5 is not a number for each channel"),
        ({"mean": ()}, "must be finite"),
        ({"mean": (0.1, float("nan"), 0.1)}, "must be finite"),
        ({"std": (0.1, 0.1)}, "does not go with mean"),
        ({"std": (0.1, 0.0, 0.1)}, "all above 0"),
        ({"layout": "NHWC"}, "layout='NHWC' is not known; expected 'CHW' or 'HWC'"),
        ({"dtype": torch.uint8}, "holds no fractions"),
    ],
)
def test_bad_arguments_are_refused_when_it_is_made(options, message):
    with pytest.raises(OptionError, match=message):
        Normalize(**{"mean": MEAN, "std": STD, **options})
