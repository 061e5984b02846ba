"""Images as a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from penstock.datasets.decode import check_mode, prepare_pillow
from penstock.datasets.images import check_transform
from penstock.datasets.paths import PathTable
from penstock.datasets.reading import choose_decoder, load
from penstock.datasets.sharded import ShardedStream
from penstock.datasets.sources import Source, list_source
from penstock.datasets.split import Part, check_part
from penstock.errors import OptionError


class ImageStream(ShardedStream[range, tuple[Any, int]]):
    """Images on disk as an iterable dataset that splits itself over ranks and workers.

    A sample is `(image, index)`; `index` is the place of the image in the whole source, whoever
    reads it, and `image` is as in `ImageDataset`.

    The images are dealt like cards. With n parts (ranks, or `num_shards`), part k takes the images
    k, k + n, k + 2n, …, and of those each of w workers takes every w-th. So every image is
    yielded exactly once, parts differ by at most one image, and so do workers; where there are
    fewer images than readers, the last ones have none. A loader with `batch_size=None` that
    takes from its workers in turn sees the images of its part in ascending order, whatever the
    number of workers.

    `len` is the number of images of this part, of all its workers together.

    Args:
        source: as in `ImageDataset`. The sub-folders of a folder mean nothing here: all its
            pictures count, in the order that `ImageDataset` gives them.
        transform: any callable that takes a PIL image of mode `mode`.
        num_shards: how many shards the source is dealt into. By default as many as there are ranks.
        shard: read this one shard, from 0, whatever the rank. It goes with `num_shards`. Only with
            `transform_for` may it be left out: then all shards are read, split over ranks and
            workers like a stream without these two, each image once in all.
        transform_for: a function from the number of a shard to its transform (or None for uint8
            tensors), instead of `transform`. Image i belongs to shard `i % num_shards`, whoever
            reads it, so which transform an image gets depends on i and the number of shards
            alone, not on workers, and if `num_shards` is given, not on ranks. Called in the
            worker, at most once for each shard that it meets.
        mode: "RGB", "L" or "RGBA".
        decoder: as in `ImageDataset`.

    Raises:
        OptionError: an argument cannot be used, both `transform` and `transform_for` are given, or
            `num_shards` with neither `shard` nor `transform_for`. What is in the files is not
            looked at.
        MissingExtraError: Pillow, or the decoder that was asked for, is not installed.
    """

    def __init__(
        self,
        source: Source,
        transform: Callable[[Any], Any] | None = None,
        num_shards: int | None = None,
        shard: int | None = None,
        transform_for: Callable[[int], Callable[[Any], Any] | None] | None = None,
        mode: str = "RGB",
        decoder: Literal["auto", "jpeg-turbo", "pillow"] = "auto",
    ) -> None:
        # With a transform for each, the shards mean something even where all of them are read.
        only_numbering = transform_for is not None and shard is None
        super().__init__(None if only_numbering else num_shards, shard)
        self.num_shards, _ = check_part(num_shards, shard)
        self.mode = check_mode(mode)
        self.decoder = choose_decoder(decoder)
        self.transform = check_transform("transform", transform)
        self.transform_for = check_transform("transform_for", transform_for)
        if transform is not None and transform_for is not None:
            raise OptionError(
                "transform= and transform_for= exclude each other; let transform_for return the "
                "common transform for the shards that have no other"
            )
        prepare_pillow()
        self.paths: PathTable = list_source(source, by_class=False).paths
        self._transforms: dict[int, Callable[[Any], Any] | None] = {}

    def shards(self) -> Sequence[range]:
        """Return the whole source as one range; `assigned` cuts it image by image."""
        return [range(len(self.paths))]

    def shards_of(self, part: Part) -> Sequence[range]:
        """Return the images of one part as one range of indices."""
        return [range(len(self.paths))[part.number :: part.count]]

    def assigned(self, worker: Part) -> Sequence[range]:
        """Return the images that one worker reads as one range of indices."""
        return [images[worker.number :: worker.count] for images in self.shards_of(self.part())]

    def shard_length(self, shard: range) -> int:
        """Return the number of images of a range."""
        return len(shard)

    def read(self, shard: range, start: int) -> Iterator[tuple[Any, int]]:
        """Yield `(image, index)` for the indices of a range from its position `start` on.

        Raises:
            Exception: as `ImageDataset.__getitem__`.
            OptionError: `transform_for` returned something that is no transform.
        """
        for index in shard[start:]:
            transform = self._transform_of(index)
            yield load(self.paths[index], self.mode, transform, self.decoder), index

    def describe_sample(self, shard: range, position: int) -> str:
        """Return the path of the image at a position of a range."""
        # A watcher may ask while the reader is finding out that it is at the end.
        return self.paths[shard[position]] if position < len(shard) else f"the end of {shard}"

    def _transform_of(self, index: int) -> Callable[[Any], Any] | None:
        if self.transform_for is None:
            transform: Callable[[Any], Any] | None = self.transform
            return transform
        number = index % (self.num_shards or self.part().count)
        if number not in self._transforms:
            made = self.transform_for(number)
            self._transforms[number] = check_transform(f"transform_for({number})", made)
        return self._transforms[number]

    def __getstate__(self) -> dict[str, Any]:
        # What transform_for made here may not serialise; a worker makes its own.
        return {**super().__getstate__(), "_transforms": {}}

    def __repr__(self) -> str:
        part = self.part()
        return (
            f"{type(self).__name__}({len(self)} of {len(self.paths)} images: "
            f"part {part.number} of {part.count}, mode={self.mode!r}, decoder={self.decoder!r})"
        )
