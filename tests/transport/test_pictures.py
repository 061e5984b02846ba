"""Pillow's images through a slot and through a message."""

from __future__ import annotations

import gc
import random

import numpy as np
import psutil
import pytest
from PIL import Image, ImageChops

from tests.transport.test_codec import through_message, through_slot

MODES = ["1", "CMYK", "F", "HSV", "I", "I;16", "L", "LA", "LAB", "P", "PA", "RGB", "RGBA", "YCbCr"]
SIZES = [(1, 1), (7, 5), (640, 480)]


def picture(mode: str, size: tuple[int, int]) -> Image.Image:
    """An image of noise."""
    width, height = size
    noise = random.Random(0).randbytes(8 * width * height)
    image = Image.new(mode, size)
    needed = len(image.tobytes())
    if mode == "F":
        noise = np.random.default_rng(0).random(width * height, np.float32).tobytes()
    image.frombytes(noise[:needed])
    return image


@pytest.fixture(params=["as Pillow has it", "as bytes"])
def shown(request, monkeypatch):
    """What a Pillow shows of its images: their memory, or as older ones copies of it."""
    if request.param == "as bytes":
        monkeypatch.delattr(Image.Image, "__arrow_c_array__", raising=False)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("way", ["slot", "message"])
def test_an_image_arrives_as_it_is(shown, mode, size, way):
    image = picture(mode, size)
    image.info = {"dpi": (72, 72), "exif": b"\0\1"}
    arrived = through_slot([image])[0][0] if way == "slot" else through_message(image)
    assert type(arrived) is Image.Image
    assert (arrived.mode, arrived.size, arrived.info) == (mode, size, image.info)
    assert arrived.tobytes() == image.tobytes()
    assert arrived.getpalette() == image.getpalette()


def test_pixels_lie_in_the_slot_and_not_in_the_message(shown):
    _, used, message = through_slot([picture("RGB", (640, 480))])
    assert used >= 640 * 480 * 4
    assert message < 1000


def test_an_image_without_pixels_arrives_too():
    assert through_message(Image.new("RGB", (0, 3))).size == (0, 3)


def test_an_image_that_is_too_large_to_lie_in_one_piece_arrives():
    image = Image.new("RGB", (5000, 1200), (1, 2, 3))
    (arrived,), used, _ = through_slot([image])
    assert used >= 5000 * 1200 * 4
    assert ImageChops.difference(arrived, image).getbbox() is None


def over_memory(way: str) -> Image.Image:
    """An image that Pillow has made over memory that is not its own."""
    noise = random.Random(1).randbytes(4 * 100 * 90)
    if way == "an array":
        return Image.fromarray(np.frombuffer(noise[:9000], np.uint8).reshape(90, 100))
    if way == "an array with an alpha channel":
        return Image.fromarray(np.frombuffer(noise, np.uint8).reshape(90, 100, 4))
    if way == "bytes upside down":
        return Image.frombuffer("CMYK", (100, 90), noise, "raw", "CMYK", 0, -1)
    return Image.frombuffer("L", (100, 90), noise, "raw", "L", 128, 1)


@pytest.mark.parametrize(
    "way", ["an array", "an array with an alpha channel", "bytes upside down", "rows with gaps"]
)
def test_an_image_over_memory_of_the_program_arrives(shown, way):
    image = over_memory(way)
    assert through_message(image).tobytes() == image.tobytes()


def test_an_image_with_aligned_rows_arrives(shown):
    before = Image.core.get_alignment()
    Image.core.set_alignment(64)
    try:
        image = picture("RGB", (7, 5))
        assert through_message(image).tobytes() == image.tobytes()
    finally:
        Image.core.set_alignment(before)


def test_a_pillow_that_shows_memory_unseen_is_not_asked_for_it(monkeypatch):
    def crash(image):
        raise RuntimeError("such a Pillow may end the process here")

    monkeypatch.setattr(Image.Image, "__arrow_c_array__", crash, raising=False)
    image = picture("RGB", (7, 5))
    for version in ("11.2.1", "12.3.0"):
        monkeypatch.setattr("PIL.__version__", version)
        assert through_message(image).tobytes() == image.tobytes()
    monkeypatch.setattr("PIL.__version__", "13.0.0")
    with pytest.raises(RuntimeError):
        through_message(image)


class Framed(Image.Image):
    """An image of a class of the program's own."""


def test_an_image_of_another_class_stays_one():
    framed = Framed()
    framed.__setstate__(picture("RGB", (9, 9)).__getstate__())
    arrived = through_message(framed)
    assert type(arrived) is Framed
    assert arrived.tobytes() == framed.tobytes()


def test_what_arrives_is_its_own_and_may_be_drawn_on():
    image = picture("RGB", (64, 64))
    (arrived,), _, _ = through_slot([image])
    before = image.getpixel((0, 0))
    arrived.putpixel((0, 0), (1, 2, 3))
    assert arrived.getpixel((0, 0)) == (1, 2, 3)
    assert image.getpixel((0, 0)) == before


class MakesItsOwn:
    """Something that is pickled with an image that nobody else has."""

    def __reduce__(self):
        return list, ([Image.new("RGB", (400, 400), (4, 5, 6))],)


def test_an_image_that_is_there_for_the_pickle_alone_is_kept_until_it_was_read(shown):
    arrived, _, _ = through_slot([MakesItsOwn() for _ in range(20)])
    assert all(image.getpixel((399, 399)) == (4, 5, 6) for (image,) in arrived)


def test_no_memory_is_kept(shown):
    process = psutil.Process()

    def some(rounds):
        for _ in range(rounds):
            through_message([Image.new("RGB", (500, 500)) for _ in range(4)])
        gc.collect()
        return process.memory_info().rss

    some(5)
    before = some(5)
    # One image a round would be 100 MB.
    assert some(100) - before < 30 << 20
