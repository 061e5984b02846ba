"""Other loaders: what each is set up like, as its own documentation advises, in one place.

A peer is a function for each row that it can do. It is given the work and returns something that
can be iterated once for one epoch: batches of 64, made by two workers, in the given order where
the library keeps one. What a peer cannot do is said in its cell. Versions are pinned in
`requirements.txt`.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import default_collate

from benchmarks.row import NotMeasuredError
from benchmarks.timing import BATCH_SIZE, WORKERS, FirstSamples
from benchmarks.workloads.photographs import SIZE, crop_and_flip, to_tensor

Batches = Iterable[Any]


@dataclass(frozen=True)
class Work:
    """What is asked of a peer.

    Attributes:
        dataset: the user's dataset, for loaders that take one.
        paths: the photographs, for those that read files themselves; empty for tensors.
        batches: how many batches an epoch has.
        folder: where a peer may keep what it converts the photographs to.
    """

    dataset: Any
    paths: list[str]
    batches: int
    folder: Path

    @property
    def samples(self) -> int:
        """How many samples an epoch has."""
        return self.batches * BATCH_SIZE

    @property
    def epoch_paths(self) -> Iterator[str]:
        """The photographs of an epoch, over and over if there are fewer."""
        return itertools.islice(itertools.cycle(self.paths), self.samples)


Loader = Callable[[Work], Batches]


@dataclass(frozen=True)
class Peer:
    """A library.

    Attributes:
        name: as in the table.
        package: as on PyPI.
        rows: by number of the row, how the library does it.
        cannot: by number, why it does not.
    """

    name: str
    package: str
    rows: dict[int, Loader] = field(default_factory=dict)
    cannot: dict[int, str] = field(default_factory=dict)


TENSORS, OWN_DATASET, OWN_IMAGES = 2, 5, 6
_NO_IMAGES = {OWN_IMAGES: "has no image path of its own"}
_FILES_ONLY = {TENSORS: "reads files of its own format, not a dataset in memory"}


def _both(loader: Loader) -> dict[int, Loader]:
    """A loader of map-style datasets, whatever is in them."""
    return {TENSORS: loader, OWN_DATASET: loader}


# torchdata: https://pytorch.org/data/0.11/


def stateful_dataloader(work: Work) -> Batches:
    from torchdata.stateful_dataloader import (  # type: ignore[import-untyped]
        StatefulDataLoader,
    )

    sampler = FirstSamples(work.samples)
    loader: Batches = StatefulDataLoader(
        work.dataset, batch_size=BATCH_SIZE, sampler=sampler, num_workers=WORKERS
    )
    return loader


class FetchAndCollate:
    """What the guide to torchdata.nodes has its workers map over batches of indices."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __call__(self, indices: list[int]) -> Any:
        return default_collate([self.dataset[index] for index in indices])


def torchdata_nodes(work: Work) -> Batches:
    from torchdata import nodes  # type: ignore[import-untyped]

    node = nodes.SamplerWrapper(FirstSamples(work.samples))
    node = nodes.Batcher(node, batch_size=BATCH_SIZE, drop_last=False)
    node = nodes.ParallelMapper(
        node,
        map_fn=FetchAndCollate(work.dataset),
        num_workers=WORKERS,
        in_order=True,
        method="process",
    )
    loader: Batches = nodes.Loader(nodes.Prefetcher(node, prefetch_factor=2))
    return loader


# SPDL: https://facebookresearch.github.io/spdl/


def spdl_drop_in(work: Work) -> Batches:
    from spdl.dataloader import get_pytorch_dataloader  # type: ignore[import-not-found]

    loader: Batches = get_pytorch_dataloader(
        work.dataset,
        batch_size=BATCH_SIZE,
        sampler=FirstSamples(work.samples),
        num_workers=WORKERS,
        collate_fn=default_collate,
        in_order=True,
    )
    return loader


def spdl_images(work: Work) -> Batches:
    """Threads decode with FFmpeg. It scales to 224×224; it has no random crop for images."""
    import spdl.io  # type: ignore[import-not-found]
    from spdl.dataloader import DataLoader

    try:
        shape = spdl.io.get_video_filter_desc(
            scale_width=SIZE, scale_height=SIZE, scale_algo="bilinear", pix_fmt="rgb24"
        )
        spdl.io.demux_image(work.paths[0])
    except RuntimeError as error:
        raise NotMeasuredError("needs FFmpeg's libraries: apt-get install ffmpeg") from error

    def decode(path: str) -> Any:
        return spdl.io.decode_packets(spdl.io.demux_image(path), filter_desc=shape)

    def stack(frames: list[Any]) -> torch.Tensor:
        batch: torch.Tensor = spdl.io.to_torch(spdl.io.convert_frames(frames))
        return batch.permute(0, 3, 1, 2)

    loader: Batches = DataLoader(
        list(work.epoch_paths),
        preprocessor=decode,
        batch_size=BATCH_SIZE,
        aggregator=stack,
        num_threads=WORKERS,
        output_order="input",
    )
    return loader


# Grain: https://google-grain.readthedocs.io/


def grain(work: Work) -> Batches:
    import grain  # type: ignore[import-not-found]

    class Source:
        def __len__(self) -> int:
            return work.samples

        def __getitem__(self, index: Any) -> Any:
            return _as_numpy(work.dataset[int(index)])

    # Its batches of NumPy arrays come across in shared memory; others would be pickled.
    dataset = grain.MapDataset.source(Source()).to_iter_dataset().batch(BATCH_SIZE)
    options = grain.multiprocessing.MultiprocessingOptions(num_workers=WORKERS)
    loader: Batches = dataset.mp_prefetch(options)
    return loader


def _as_numpy(sample: Any) -> Any:
    if isinstance(sample, tuple):
        return tuple(_as_numpy(part) for part in sample)
    return sample.numpy() if isinstance(sample, torch.Tensor) else sample


# webdataset: https://github.com/webdataset/webdataset


def _shards(work: Work) -> list[str]:
    """The photographs as tar files, written once: one for each of several turns of the workers."""
    import webdataset  # type: ignore[import-not-found]

    folder = work.folder / f"webdataset-{work.samples}"
    if not folder.is_dir():
        partial = folder.with_suffix(".part")
        partial.mkdir(parents=True, exist_ok=True)
        pattern, size = str(partial / "%05d.tar"), -(-work.samples // (4 * WORKERS))
        with webdataset.ShardWriter(pattern, maxcount=size, verbose=0) as writer:
            for number, path in enumerate(work.epoch_paths):
                writer.write({"__key__": f"{number:08d}", "jpg": Path(path).read_bytes()})
        partial.rename(folder)
    return sorted(str(path) for path in folder.glob("*.tar"))


def _webdataset(work: Work, transform: Callable[[Any], torch.Tensor]) -> Batches:
    import webdataset

    # Batches are made in the workers, as its documentation advises.
    dataset = (
        webdataset.WebDataset(_shards(work), shardshuffle=False)
        .decode("pil")
        .to_tuple("jpg")
        .map_tuple(transform)
        .batched(BATCH_SIZE, partial=True, collation_fn=default_collate)
    )
    loader: Batches = webdataset.WebLoader(dataset, batch_size=None, num_workers=WORKERS)
    return loader


def _scaled(image: Any) -> torch.Tensor:
    """What `workloads.photographs.Photographs` does once a picture is decoded."""
    from PIL import Image

    return to_tensor(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def _augmented(image: Any) -> torch.Tensor:
    """What `workloads.photographs.Augmented` does then."""
    return to_tensor(crop_and_flip(image.convert("RGB")))


# LitData: https://github.com/Lightning-AI/litData


def _litdata(work: Work, transform: Callable[[Any], torch.Tensor]) -> Batches:
    import litdata  # type: ignore[import-not-found]

    folder = work.folder / f"litdata-{work.samples}"
    if not folder.is_dir():
        litdata.optimize(
            fn=_read_bytes,
            inputs=list(work.epoch_paths),
            output_dir=str(folder),
            chunk_bytes="64MB",
            num_workers=WORKERS,
        )

    loader: Batches = litdata.StreamingDataLoader(
        litdata.StreamingDataset(str(folder), shuffle=False),
        batch_size=BATCH_SIZE,
        num_workers=WORKERS,
        collate_fn=DecodeAndStack(transform),
    )
    return loader


def _read_bytes(path: str) -> bytes:
    return Path(path).read_bytes()


class DecodeAndStack:
    """A collate function for samples that are the bytes of files, or have them as `image`."""

    def __init__(self, transform: Callable[[Any], torch.Tensor]) -> None:
        self.transform = transform

    def __call__(self, samples: list[Any]) -> torch.Tensor:
        from PIL import Image

        files = (sample["image"] if isinstance(sample, dict) else sample for sample in samples)
        return torch.stack([self.transform(Image.open(io.BytesIO(file))) for file in files])


# MosaicML's Streaming: https://docs.mosaicml.com/projects/streaming/


def _streaming(work: Work, transform: Callable[[Any], torch.Tensor]) -> Batches:
    from streaming import MDSWriter, StreamingDataset  # type: ignore[import-not-found]
    from torch.utils.data import DataLoader

    folder = work.folder / f"streaming-{work.samples}"
    if not folder.is_dir():
        partial = folder.with_suffix(".part")
        with MDSWriter(out=str(partial), columns={"image": "bytes"}, exist_ok=True) as writer:
            for path in work.epoch_paths:
                writer.write({"image": _read_bytes(path)})
        partial.rename(folder)

    dataset = StreamingDataset(local=str(folder), shuffle=False, batch_size=BATCH_SIZE)
    return DataLoader(
        dataset,
        batch_size=BATCH_SIZE,
        num_workers=WORKERS,
        collate_fn=DecodeAndStack(transform),
    )


# Hugging Face datasets: https://huggingface.co/docs/datasets/use_with_pytorch


def _huggingface(work: Work, transform: Callable[[Any], torch.Tensor]) -> Batches:
    import datasets  # type: ignore[import-not-found]
    from torch.utils.data import DataLoader

    dataset = datasets.Dataset.from_dict({"image": list(work.epoch_paths)})
    dataset = dataset.cast_column("image", datasets.Image())
    dataset = dataset.with_transform(TransformRows(transform))
    return DataLoader(dataset, batch_size=BATCH_SIZE, num_workers=WORKERS)


class TransformRows:
    """What `with_transform` calls for the rows that are asked for."""

    def __init__(self, transform: Callable[[Any], torch.Tensor]) -> None:
        self.transform = transform

    def __call__(self, rows: dict[str, list[Any]]) -> dict[str, list[torch.Tensor]]:
        return {"image": [self.transform(image) for image in rows["image"]]}


# Ray Data: https://docs.ray.io/en/latest/data/working-with-pytorch.html


def _ray(work: Work, transform: Callable[[Any], torch.Tensor]) -> Batches:
    import ray  # type: ignore[import-not-found]
    from PIL import Image

    ray.init(num_cpus=WORKERS, ignore_reinit_error=True, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False

    def read(row: dict[str, Any]) -> dict[str, Any]:
        with Image.open(row["item"]) as image:
            return {"image": transform(image).numpy()}

    dataset = ray.data.from_items(list(work.epoch_paths)).map(read)
    loader: Batches = dataset.iter_torch_batches(
        batch_size=BATCH_SIZE, prefetch_batches=2 * WORKERS
    )
    return loader


def _images(make: Callable[[Work, Callable[[Any], torch.Tensor]], Batches]) -> dict[int, Loader]:
    """A library that reads photographs itself, then with the Pillow code of either row."""
    return {
        OWN_DATASET: lambda work: make(work, _scaled),
        OWN_IMAGES: lambda work: make(work, _augmented),
    }


PEERS = (
    Peer("torchdata StatefulDataLoader", "torchdata", _both(stateful_dataloader), _NO_IMAGES),
    Peer("torchdata.nodes", "torchdata", _both(torchdata_nodes), _NO_IMAGES),
    Peer("SPDL", "spdl", {**_both(spdl_drop_in), OWN_IMAGES: spdl_images}),
    Peer("Grain", "grain", _both(grain), _NO_IMAGES),
    Peer("webdataset", "webdataset", _images(_webdataset), _FILES_ONLY),
    Peer("LitData", "litdata", _images(_litdata), _FILES_ONLY),
    Peer("MosaicML Streaming", "mosaicml-streaming", _images(_streaming), _FILES_ONLY),
    Peer("Hugging Face datasets", "datasets", _images(_huggingface), _FILES_ONLY),
    Peer("Ray Data", "ray", _images(_ray), _FILES_ONLY),
)
