"""Which arguments are refused, in which words, and what is warned about."""

from __future__ import annotations

import os
import re
import warnings
from typing import Any

import pytest
import torch

from tests.conformance.roles import Numbers, Stream, flat, is_torchs

NO_WORKERS = "multi-process loading (num_workers > 0), but got num_workers=0"
# Arguments, and what the message holds of torch's, all of it in this order.
CONSTRUCTORS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "negative-workers": (
        {"num_workers": -1},
        ["num_workers option should be non-negative; use num_workers=0 to disable multiproc"],
    ),
    "negative-timeout": ({"timeout": -1}, ["timeout option should be non-negative"]),
    "prefetch-without-workers": (
        {"prefetch_factor": 2},
        [
            "prefetch_factor option could only be specified in multiprocessing.",
            "let num_workers > 0 to enable multiprocessing, otherwise set prefetch_factor to None",
        ],
    ),
    "negative-prefetch": (
        {"prefetch_factor": -1, "num_workers": 1},
        ["prefetch_factor option should be non-negative"],
    ),
    "persistent-without-workers": (
        {"persistent_workers": True},
        ["persistent_workers option needs num_workers > 0"],
    ),
    "no-batch-size": (
        {"batch_size": 0},
        ["batch_size should be a positive integer value, but got batch_size=0"],
    ),
    "broken-batch-size": (
        {"batch_size": 1.5},
        ["batch_size should be a positive integer value, but got batch_size=1.5"],
    ),
    "sampler-and-shuffle": (
        {"sampler": [1], "shuffle": True},
        ["sampler option is mutually exclusive with shuffle"],
    ),
    "batch-sampler-and-size": (
        {"batch_sampler": [[1]], "batch_size": 2},
        ["batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, and"],
    ),
    "batch-sampler-and-drop-last": (
        {"batch_sampler": [[1]], "drop_last": True},
        ["batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, and"],
    ),
    "no-batches-and-drop-last": (
        {"batch_size": None, "drop_last": True},
        ["batch_size=None option disables auto-batching", "mutually exclusive with drop_last"],
    ),
    "context-without-workers": (
        {"multiprocessing_context": "fork"},
        ["multiprocessing_context can only be used with ", NO_WORKERS],
    ),
    "unknown-start-method": (
        {"multiprocessing_context": "no", "num_workers": 1},
        ["multiprocessing_context option should specify a valid start method"],
    ),
    "nothing-to-shuffle": (
        {"dataset": [], "shuffle": True},
        ["num_samples should be a positive integer value, but got num_samples=0"],
    ),
    "shuffled-stream": (
        {"dataset": Stream(), "shuffle": True},
        ["expected unspecified shuffle option, but got shuffle=True"],
    ),
    "sampled-stream": (
        {"dataset": Stream(), "sampler": [1]},
        ["expected unspecified sampler option, but got sampler=[1]"],
    ),
    "batch-sampled-stream": (
        {"dataset": Stream(), "batch_sampler": [[1]]},
        ["expected unspecified batch_sampler option, but got batch_sampler=[[1]]"],
    ),
}


@pytest.mark.parametrize(("arguments", "words"), CONSTRUCTORS.values(), ids=CONSTRUCTORS)
def test_an_argument_that_cannot_be_used_is_a_value_error_in_known_words(
    loader_class: Any, arguments: dict[str, Any], words: list[str]
) -> None:
    pattern = ".*".join(map(re.escape, words))
    with pytest.raises(ValueError, match=pattern):
        loader_class(**{"dataset": Numbers(), **arguments})


def test_a_context_of_another_type_is_a_type_error(loader_class: Any) -> None:
    with pytest.raises(TypeError, match="multiprocessing_context option should be a valid context"):
        loader_class(Numbers(), num_workers=1, multiprocessing_context=3)


@pytest.mark.parametrize("dataset", [None, "a text", Numbers, {1, 2}], ids=str)
def test_what_has_no_samples_is_refused_early(loader_class: Any, dataset: Any) -> None:
    """torch takes anything, and says what it lacks when it is asked; ours refuses it at once."""
    if is_torchs(loader_class):
        loader_class(dataset)
    else:
        with pytest.raises(ValueError, match="dataset="):
            loader_class(dataset)


def test_too_many_workers_are_warned_about(loader_class: Any) -> None:
    count = len(os.sched_getaffinity(0)) + 1
    words = f"This DataLoader will create {count} worker processes in total"
    with pytest.warns(UserWarning, match=words):
        loader_class(Numbers(), num_workers=count)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is memory to pin it for")
def test_pinning_without_an_accelerator_is_warned_about(loader_class: Any, workers: int) -> None:
    loader = loader_class(Numbers(3), pin_memory=True, num_workers=workers)
    words = "'pin_memory' argument is set as true but no accelerator is found"
    with pytest.warns(UserWarning, match=words):
        batches = iter(loader)
    assert flat(batches) == [0, 1, 2]


def test_nothing_is_warned_about_for_nothing(loader_class: Any, workers: int) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        flat(loader_class(Numbers(), batch_size=5, shuffle=True, num_workers=workers))
    assert caught == []
