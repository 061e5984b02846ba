from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, UnidentifiedImageError
from torch.utils.data import DataLoader

from penstock.datasets import DescribesSamples, ImageDataset, ResizeCrop
from penstock.errors import MissingExtraError, OptionError

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3), ("RGBA", 4)])
def test_without_a_transform_images_are_uint8_tensors(draw, mode, channels):
    path = draw("a.png", (20, 12), "RGB")
    image, index = ImageDataset([path], mode=mode)[0]
    assert (image.shape, image.dtype, index) == ((channels, 12, 20), torch.uint8, 0)
    assert image.is_contiguous()
    expected = np.asarray(Image.open(path).convert(mode)).reshape(12, 20, channels)
    np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), expected)


def test_a_transform_gets_the_pil_image(draw):
    dataset = ImageDataset([draw("a.png", mode="L")], transform=lambda image: image)
    image, index = dataset[0]
    assert index == 0
    assert isinstance(image, Image.Image)
    assert (image.mode, image.size) == ("RGB", (20, 12))


def test_what_a_transform_raises_passes_unchanged(draw):
    error = KeyError("mine")

    def fail(image):
        raise error

    with pytest.raises(KeyError) as caught:
        ImageDataset([draw("a.png")], fail)[0]
    assert caught.value is error


def test_a_folder_of_classes_gives_labels_as_torchvision_does(draw, tmp_path):
    for name in ("p/dog/b.jpg", "p/cat/a.jpg", "p/dog/a.JPG"):
        draw(name)
    dataset = ImageDataset(tmp_path / "p")
    assert dataset.classes == ["cat", "dog"]
    assert dataset.class_to_idx == {"cat": 0, "dog": 1}
    assert [sample[1:] for sample in (dataset[k] for k in range(3))] == [(0, 0), (1, 1), (1, 2)]
    assert dataset.targets == [0, 1, 1]
    assert dataset[-1][1:] == (1, 2)
    assert [Path(dataset.describe(k)).name for k in range(3)] == ["a.jpg", "a.JPG", "b.jpg"]


def test_a_flat_folder_gives_pairs(draw, tmp_path):
    draw("p/a.jpg")
    dataset = ImageDataset(tmp_path / "p")
    assert len(dataset[0]) == 2
    assert (dataset.classes, dataset.class_to_idx, dataset.targets) == ([], {}, [])


def test_labels_take_the_place_of_classes_and_clear_up_a_mixed_folder(draw, tmp_path):
    draw("p/a.jpg")
    draw("p/cat/b.jpg")
    with pytest.raises(OptionError, match="not clear whether the sub-folders are classes"):
        ImageDataset(tmp_path / "p")
    dataset = ImageDataset(tmp_path / "p", labels=lambda path: Path(path).stem)
    assert [dataset[k][1] for k in range(2)] == ["a", "b"]
    assert dataset.classes == []


def test_negative_indices_count_from_the_end_and_are_named_from_the_start(draw):
    dataset = ImageDataset([draw("a.png"), draw("b.png")])
    image, index = dataset[-1]
    assert index == 1
    assert torch.equal(image, dataset[1][0])
    assert dataset.describe(-2) == dataset.describe(0)


@pytest.mark.parametrize("index", [2, -3])
def test_an_index_out_of_range_is_an_index_error(draw, index):
    dataset = ImageDataset([draw("a.png"), draw("b.png")])
    with pytest.raises(IndexError, match="out of range for 2 images"):
        dataset[index]
    with pytest.raises(IndexError):
        dataset.describe(index)


def test_indices_of_numpy_and_torch_are_indices(draw):
    dataset = ImageDataset([draw("a.png"), draw("b.png")])
    assert dataset[np.int64(1)][1] == 1
    assert dataset[torch.tensor(1)][1] == 1
    assert type(dataset[np.int64(1)][1]) is int


def test_iterating_ends_after_the_last(draw):
    assert [index for _, index in iter(ImageDataset([draw("a.png")] * 3))] == [0, 1, 2]


def test_describe_names_the_path_without_reading_it():
    dataset = ImageDataset(["nowhere/a.jpg"])
    assert dataset.describe(0) == "nowhere/a.jpg"
    assert isinstance(dataset, DescribesSamples)
    with pytest.raises(FileNotFoundError, match=r"nowhere/a\.jpg"):
        dataset[0]


@pytest.mark.skipif(os.name != "posix", reason="file names are bytes on POSIX only")
def test_a_name_that_is_not_utf_8_can_be_read(draw, tmp_path):
    odd = os.fsencode(tmp_path) + b"/\xff\xfe.jpg"
    draw("a.jpg").rename(os.fsdecode(odd))
    dataset = ImageDataset([odd])
    assert dataset[0][0].shape == (3, 12, 20)
    assert os.fsencode(dataset.describe(0)) == odd


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"transform": 3}, "transform=3 cannot be called"),
        ({"mode": "BGR"}, "mode='BGR'"),
        ({"labels": [1, 2]}, "labels has 2 items for 1 images"),
        ({"source": []}, "empty list"),
    ],
)
def test_bad_arguments_are_refused_when_the_dataset_is_made(options, message):
    with pytest.raises(OptionError, match=message):
        ImageDataset(**{"source": ["a.jpg"], **options})


def test_a_missing_pillow_is_one_error_when_the_dataset_is_made(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(MissingExtraError, match="penstock"):
        ImageDataset(["a.jpg"])


def test_a_million_images_travel_in_a_small_pickle():
    dataset = ImageDataset(
        (f"/data/class_{k % 1000:03d}/{k:07d}.jpg" for k in range(1_000_000)),
        labels=np.arange(1_000_000) % 1000,
    )
    data = pickle.dumps(dataset, protocol=5)
    assert len(data) < 28_500_000
    assert data.count(b".jpg") == 1_000_000  # the names, in one block
    copy = pickle.loads(data)
    assert copy.describe(-1) == "/data/class_999/0999999.jpg"


def test_torchs_own_loader_reads_it_in_workers(draw, start_method):
    dataset = ImageDataset([draw(f"{k}.png") for k in range(5)], ResizeCrop(8), labels=range(5))
    loader = DataLoader(dataset, batch_size=2, num_workers=1, multiprocessing_context=start_method)
    batches = list(loader)
    assert torch.cat([index for _, _, index in batches]).tolist() == list(range(5))
    assert torch.equal(torch.cat([image for image, _, _ in batches])[3], dataset[3][0])
    del loader, batches


@pytest.mark.usefixtures("no_descriptor_left")
def test_the_example_photographs_are_fifty_good_ones_and_two_broken_ones():
    dataset = ImageDataset(PHOTOS)
    shapes, broken = set(), {}
    for index in range(len(dataset)):
        try:
            shapes.add(tuple(dataset[index][0].shape))
        except OSError as exc:
            broken[Path(dataset.describe(index)).name] = type(exc)
    assert len(dataset) == 52
    assert broken == {"17_truncated.jpg": OSError, "34_not_a_picture.jpg": UnidentifiedImageError}
    assert len(shapes) > 3
    assert sum(path.stat().st_size for path in PHOTOS.iterdir()) < 2_500_000


def test_every_example_photograph_is_named_in_the_sources():
    text = (PHOTOS / "SOURCES.md").read_text()
    names = [path.stem.split("_", 1)[1] for path in sorted(PHOTOS.glob("*.jpg"))]
    for name in sorted({*names} - {"truncated", "not_a_picture"}):
        assert f"`*_{name}.jpg` ({names.count(name)})" in text
    assert "`17_truncated.jpg`" in text
    assert "`34_not_a_picture.jpg`" in text
