"""Images as a map-style dataset."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, SupportsIndex

from torch.utils.data import Dataset

from penstock.datasets.decode import check_mode, prepare_pillow
from penstock.datasets.labels import LabelSource, LabelTable
from penstock.datasets.paths import PathTable, resolve_index
from penstock.datasets.reading import choose_decoder, load
from penstock.datasets.sources import Source, list_source
from penstock.errors import OptionError


class ImageDataset(Dataset[tuple[Any, ...]]):
    """Images on disk, with labels or without.

    A sample is `(image, index)`, or `(image, label, index)` where there are labels. `index` is the
    number of the sample, never negative. `image` is what `transform` returns for the PIL image,
    or, without a transform, a new contiguous uint8 tensor C×H×W (C = 3 for mode "RGB", 1 for "L",
    4 for "RGBA").

    Labels come from `labels=`, else from the sub-folders if `source` is a folder that has them, as
    in torchvision's `ImageFolder`. A folder with pictures directly in it and no pictures in
    sub-folders has no labels. One with both is refused, since it is not clear what is meant, unless
    `labels=` says so: then all its pictures count.

    The pixels, too, are those of `ImageFolder`: rotation in EXIF data is not applied.

    Paths and labels are kept in a few arrays. A million paths are neither a million objects in a
    worker nor a slow pickle. Files are opened only when a sample is read, and closed at once.

    Args:
        source: a folder (its pictures by extension, sub-folders included, hidden names not), a glob
            (`"photos/**/*.jpg"`; every file it matches, sorted), or paths in any iterable.
        transform: any callable that takes a PIL image of mode `mode`, torchvision's included. For
            `ResizeCrop` and `RandomResizedCrop` no more of a JPEG file is decoded than they use.
        labels: one label per image in their order, or a mapping from path to label, or a function
            from path to label, which is called for each path now. Paths are spelled as
            `describe` returns them.
        mode: "RGB", "L" or "RGBA"; what each image is converted to.
        decoder: "jpeg-turbo" has JPEG files of grey or YCbCr decoded by libjpeg-turbo, with
            Penstock's transforms or without one, and whatever else by Pillow; "pillow" has all
            of them decoded by Pillow. "auto" is "jpeg-turbo" where the extra `penstock[jpeg]` is
            installed. The pixels are the same.

    Attributes:
        decoder: "jpeg-turbo" or "pillow": what "auto" came to. A copy of the dataset in a worker,
            or on another machine, has the same.
        paths: the paths, by index, as `str`.
        classes: the names of the classes, sorted, if they come from sub-folders; else empty.
        class_to_idx: for each name in `classes` its label.

    Raises:
        OptionError: an argument cannot be used: nothing found, labels that do not fit, and so on.
            What is in the files is not looked at.
        MissingExtraError: Pillow, or the decoder that was asked for, is not installed.
    """

    def __init__(
        self,
        source: Source,
        transform: Callable[[Any], Any] | None = None,
        labels: LabelSource | None = None,
        mode: str = "RGB",
        decoder: Literal["auto", "jpeg-turbo", "pillow"] = "auto",
    ) -> None:
        self.mode = check_mode(mode)
        self.decoder = choose_decoder(decoder)
        self.transform = check_transform("transform", transform)
        prepare_pillow()
        listing = list_source(source, by_class=labels is None)
        self.paths: PathTable = listing.paths
        self.classes: list[str] = listing.classes
        self.class_to_idx: dict[str, int] = {name: k for k, name in enumerate(listing.classes)}
        self._labels: LabelTable | None = None
        if labels is not None:
            self._labels = LabelTable.collect(labels, self.paths)
        elif listing.labels is not None:
            self._labels = LabelTable(listing.labels)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: SupportsIndex) -> tuple[Any, ...]:
        """Read one sample.

        Raises:
            IndexError: there is no such sample. Negative numbers count from the end.
            OSError: the file cannot be read or decoded; its type and message say why, the message
                names the path. Among them `FileNotFoundError`, `IsADirectoryError`,
                `PermissionError` and `PIL.UnidentifiedImageError`.
            PIL.Image.DecompressionBombError: the image has more pixels than Pillow's limit.
            Exception: whatever the transform raises, unchanged.
        """
        number = resolve_index(index, len(self.paths))
        image = load(self.paths[number], self.mode, self.transform, self.decoder)
        if self._labels is None:
            return image, number
        return image, self._labels[number], number

    def describe(self, index: SupportsIndex, /) -> str:
        """Return the path of a sample, without reading it.

        Raises:
            IndexError: there is no such sample.
        """
        return self.paths[index]

    @property
    def targets(self) -> list[Any]:
        """The labels of all samples as a new list; empty if there are none."""
        return [] if self._labels is None else [self._labels[k] for k in range(len(self._labels))]

    def __repr__(self) -> str:
        labels = "without labels" if self._labels is None else "with labels"
        classes = f", {len(self.classes)} classes" if self.classes else ""
        return (
            f"{type(self).__name__}({len(self)} images {labels}{classes}, mode={self.mode!r}, "
            f"decoder={self.decoder!r})"
        )


def check_transform(name: str, value: Any) -> Any:
    """Return `value` if it is None or can be called.

    Raises:
        OptionError: it cannot; the message names the argument.
    """
    if value is not None and not callable(value):
        raise OptionError(
            f"{name}={value!r} cannot be called; pass a function, or an object with __call__"
        )
    return value
