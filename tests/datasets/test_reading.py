"""Samples by either decoder: the same, with the same errors, and no more decoded than is used."""

from __future__ import annotations

import pickle
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import penstock
from penstock.datasets import ImageDataset, ImageStream, RandomResizedCrop, ResizeCrop, jpeg
from penstock.errors import MissingExtraError, OptionError

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"
BROKEN = ("17_truncated.jpg", "34_not_a_picture.jpg")
WHOLE = sorted(path for path in PHOTOS.glob("*.jpg") if path.name not in BROKEN)

needs_turbo = pytest.mark.skipif(
    not jpeg.is_installed(), reason="the extra penstock[jpeg] is not installed"
)


def samples(paths, transform, decoder, mode="RGB"):
    dataset = ImageDataset(paths, transform, mode=mode, decoder=decoder)
    found = []
    for number in range(len(dataset)):
        random.seed(number)
        found.append(dataset[number][0])
    return found


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@needs_turbo
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize(
    "transform",
    [
        None,
        ResizeCrop(64),
        ResizeCrop(300, interpolation="bicubic"),
        RandomResizedCrop(64),
        RandomResizedCrop(200, layout="HWC"),
        RandomResizedCrop(16, reducing_gap=1.0),
        RandomResizedCrop(16, reducing_gap=None),
    ],
)
def test_both_decoders_make_the_same_samples(mode, transform):
    paths = WHOLE[::4]
    turbo = samples(paths, transform, "jpeg-turbo", mode)
    assert same(turbo, samples(paths, transform, "pillow", mode))
    assert all(sample.is_contiguous() for sample in turbo)


@needs_turbo
@pytest.mark.parametrize("transform", [None, ResizeCrop(8), RandomResizedCrop(8)])
@pytest.mark.parametrize("stored", ["L", "RGB", "CMYK", "progressive", "png", "gif", "rotated"])
@pytest.mark.parametrize("size", [(60, 40), (1, 1), (1, 90), (90, 1)])
def test_they_do_so_for_every_kind_of_file(tmp_path, transform, stored, size):
    with Image.open(WHOLE[3]) as photo:
        image = photo.convert("RGB").resize(size)
    path = tmp_path / "a.jpg"
    if stored in ("png", "gif"):
        image.save(path, stored)
    elif stored == "progressive":
        image.save(path, progressive=True)
    elif stored == "rotated":
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(path, exif=exif)
    else:
        image.convert(stored).save(path)
    turbo = samples([path], transform, "jpeg-turbo")
    assert same(turbo, samples([path], transform, "pillow"))
    assert turbo[0].shape == ((3, size[1], size[0]) if transform is None else (3, 8, 8))


@needs_turbo
@pytest.mark.parametrize("transform", [None, ResizeCrop(32), RandomResizedCrop(32)])
@pytest.mark.parametrize("spoil", ["empty", "text", "header", "half", "missing", "folder", "bomb"])
def test_bad_files_raise_the_same_with_both(tmp_path, transform, spoil, monkeypatch):
    whole = WHOLE[3].read_bytes()
    content = {"empty": b"", "text": b"no picture", "header": whole[:3], "half": whole[:9000]}
    path = tmp_path / "bad.jpg"
    if spoil == "folder":
        path.mkdir()
    elif spoil != "missing":
        path.write_bytes(content.get(spoil, whole))
    if spoil == "bomb":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    raised = []
    for decoder in ("jpeg-turbo", "pillow"):
        with pytest.raises((OSError, Image.DecompressionBombError)) as caught:
            samples([path], transform, decoder)
        raised.append((type(caught.value), str(caught.value)))
    assert raised[0] == raised[1]
    assert str(path) in raised[0][1]


@needs_turbo
def test_a_file_that_cannot_be_read_is_told_by_pillow(tmp_path, monkeypatch):
    def fail(file):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("penstock.datasets.reading._read", fail)
    assert same(samples(WHOLE[:1], None, "jpeg-turbo"), samples(WHOLE[:1], None, "pillow"))


@needs_turbo
def test_the_random_numbers_of_a_sample_are_drawn_once(tmp_path, monkeypatch):
    monkeypatch.setattr(jpeg, "decode", lambda *_: None)  # it fails, at the last moment
    found = samples(WHOLE[:5], RandomResizedCrop(32), "jpeg-turbo")
    assert same(found, samples(WHOLE[:5], RandomResizedCrop(32), "pillow"))


@needs_turbo
def test_no_more_is_decoded_than_a_sample_needs(tmp_path, monkeypatch):
    decoded = []
    decode = jpeg.decode

    def watch(*arguments):
        decoded.append(decode(*arguments))
        return decoded[-1]

    monkeypatch.setattr(jpeg, "decode", watch)
    path = tmp_path / "tall.jpg"
    with Image.open(WHOLE[3]) as photo:
        photo.resize((400, 800)).save(path)
    samples([path], ResizeCrop(300), "jpeg-turbo")
    samples([path], ResizeCrop(100), "jpeg-turbo")
    samples([path], ResizeCrop(100, reducing_gap=None), "jpeg-turbo")
    # The square is in the rows 200 to 600.
    assert [pixels.shape[1] for pixels in decoded] == [400, 200, 400]
    assert all(
        rows < pixels.shape[0] < rows + 10
        for rows, pixels in zip((600, 300, 600), decoded, strict=True)
    )


@pytest.mark.parametrize("make", [ResizeCrop, RandomResizedCrop])
def test_a_reduced_picture_is_nearly_the_same(make):
    """The bound that the documentation gives, on photographs of 250 to 500 pixels."""
    whole = samples(WHOLE, make(64, reducing_gap=None), "pillow")
    reduced = samples(WHOLE, make(64), "pillow")
    differences = [(a.int() - b.int()).abs().double() for a, b in zip(whole, reduced, strict=True)]
    assert sum(bool(each.any()) for each in differences) > 10
    if make is ResizeCrop:
        assert max(each.mean() for each in differences) < 1.5
        assert max(each.max() for each in differences) <= 30
    # A random part may begin a quarter of a pixel elsewhere.
    assert sum(each.mean() for each in differences) / len(differences) < 1.5


def test_a_transform_of_ones_own_gets_pillows_image():
    found = samples(WHOLE[:1], lambda image: image, "auto")
    assert isinstance(found[0], Image.Image)


@needs_turbo
def test_what_auto_means_is_decided_once_and_travels(monkeypatch):
    dataset = ImageDataset(WHOLE[:2], ResizeCrop(8))
    assert dataset.decoder == ImageStream(WHOLE[:2]).decoder == "jpeg-turbo"
    assert "decoder='jpeg-turbo'" in repr(dataset)
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    assert ImageDataset(WHOLE[:2]).decoder == "pillow"
    with pytest.raises(MissingExtraError, match=r"penstock\[jpeg\]"):
        ImageDataset(WHOLE[:2], decoder="jpeg-turbo")
    with pytest.raises(MissingExtraError, match=r"penstock\[jpeg\]"):
        pickle.loads(pickle.dumps(dataset))[0]


@pytest.mark.parametrize("make", [ImageDataset, ImageStream])
def test_an_unknown_decoder_is_an_option_error(make):
    with pytest.raises(OptionError, match="expected 'auto' or 'jpeg-turbo' or 'pillow'"):
        make(WHOLE[:1], decoder="opencv")


@pytest.mark.parametrize("decoder", ["auto", "pillow"])
@pytest.mark.usefixtures("no_leaks")
def test_crops_are_the_same_whatever_makes_them(start_method, decoder):
    def epochs(workers):
        loader = penstock.DataLoader(
            ImageDataset(WHOLE, RandomResizedCrop(48, layout="HWC"), decoder=decoder),
            batch_size=8,
            shuffle=True,
            num_workers=workers,
            multiprocessing_context=start_method if workers else None,
            seed=3,
        )
        return [[(images.clone(), numbers.tolist()) for images, numbers in loader] for _ in "ab"]

    inline, with_workers = epochs(0), epochs(2)
    for first, second in zip(inline, with_workers, strict=True):
        for (images, numbers), (others, their_numbers) in zip(first, second, strict=True):
            assert numbers == their_numbers
            assert torch.equal(images, others)
    assert images.shape[1:] == (48, 48, 3)
    by_number = [
        {n: image for images, numbers in epoch for n, image in zip(numbers, images, strict=True)}
        for epoch in inline
    ]
    assert any(not torch.equal(by_number[0][n], by_number[1][n]) for n in by_number[0])


@needs_turbo
def test_a_stream_reads_by_the_same_decoders():
    for decoder in ("jpeg-turbo", "pillow"):
        stream = ImageStream(WHOLE[:4], ResizeCrop(32), decoder=decoder)
        assert same([image for image, _ in stream], samples(WHOLE[:4], ResizeCrop(32), "pillow"))


def test_pixels_may_be_written_to():
    for sample in samples(WHOLE[:1] * 2, RandomResizedCrop(32), "auto"):
        sample += 1
    assert np.asarray(samples(WHOLE[:1], None, "auto")[0]).flags.writeable
