"""Rows 5 to 7: samples that take processor time: no loader can be faster than the cores."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader as TorchDataLoader

import penstock
from benchmarks.limits import independent_processes_s
from benchmarks.row import (
    LIMIT,
    MS_A_BATCH,
    PENSTOCK,
    TORCH,
    Case,
    Contestant,
    Part,
    Row,
    Setting,
    at_least,
)
from benchmarks.timing import BATCH_SIZE, seconds_a_batch
from benchmarks.workloads.photographs import SIZE, Augmented, Photographs, find_photographs
from benchmarks.workloads.text import Lines, generate_lines, pad, train_tokenizer

_LIMIT = (
    "The limit is two independent processes that do half the work each, with no loader, and "
    "hand nothing over."
)


@dataclass(frozen=True)
class Work:
    """What the contestants do.

    Attributes:
        torch: the dataset that torch's loader reads.
        penstock: the one that Penstock reads, and the limit.
        collate: the user's own collate function; part of the limit's work.
    """

    torch: Any
    penstock: Any
    collate: Callable[[list[Any]], Any] | None = None


def _part(make: Callable[[Setting], Work], case: Case, *, full: int, quick: int) -> Part:
    @contextlib.contextmanager
    def prepare(setting: Setting) -> Iterator[Mapping[str, Contestant]]:
        work, batches = make(setting), setting.size(full, quick)

        def contestant(loader_class: Callable[..., Any], dataset: Any) -> Contestant:
            return lambda: {
                case.name: seconds_a_batch(loader_class, dataset, batches, collate_fn=work.collate)
            }

        yield {
            TORCH: contestant(TorchDataLoader, work.torch),
            PENSTOCK: contestant(penstock.DataLoader, work.penstock),
            LIMIT: lambda: {
                case.name: independent_processes_s(work.penstock, batches, work.collate)
            },
        }

    return Part((case,), prepare)


def _own_dataset(setting: Setting) -> Work:
    dataset = Photographs(find_photographs(setting))
    return Work(dataset, dataset)


class Repeated:
    """A dataset of as many samples as are asked for: its own, over and over."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index % len(self.dataset)]


def _image_dataset(setting: Setting) -> Work:
    paths = find_photographs(setting)
    return Work(Augmented(paths), image_dataset(paths))


def image_dataset(paths: Sequence[str]) -> Any:
    """The project's own image path: random crop, scaling, flip, and uint8 until the device."""
    from penstock.datasets import ImageDataset, RandomResizedCrop

    # The layout that its documentation says is the quicker one, as `Normalize` takes either.
    return Repeated(ImageDataset(paths, transform=RandomResizedCrop(SIZE, layout="HWC")))


def _lines(setting: Setting) -> Work:
    lines = generate_lines()
    dataset = Lines(lines, train_tokenizer(lines[:2000]))
    return Work(dataset, dataset, pad)


PHOTOGRAPHS = Row(
    5,
    "photographs, the user's own dataset",
    "How near to the processor's limit is a loader with the dataset that most people have?",
    f"Pillow decodes JPEGs of about 500×375, scales to {BATCH_SIZE}×3×224×224 and makes float32. "
    f"{_LIMIT}",
    (
        _part(
            _own_dataset,
            Case("", MS_A_BATCH, at_least(1.25), at_least(0.95)),
            full=100,
            quick=6,
        ),
    ),
)
IMAGE_DATASET = Row(
    6,
    "photographs, ImageDataset",
    "What does the project's own image path bring?",
    "The same photographs with random crop, scaling to 224×224 and flip: ImageDataset with uint8 "
    "until the device, against torch with Pillow and the code of torchvision's transforms, "
    f"which ends in float32. {_LIMIT}",
    (
        _part(
            _image_dataset,
            Case("", MS_A_BATCH, at_least(3), at_least(0.95)),
            full=100,
            quick=6,
        ),
    ),
)
TEXT = Row(
    7,
    "lines of text, tokenised",
    "How near to the limit is a loader with short samples that are lists?",
    f"A trained BPE tokenizer encodes lines of 4 to 32 words; the collate function pads to the "
    f"longest. {_LIMIT} Its share includes the collate function.",
    (
        _part(
            _lines,
            Case("", MS_A_BATCH, at_least(1.5), at_least(0.95)),
            full=1000,
            quick=200,
        ),
    ),
)
