"""What a sample is called in a message."""

from __future__ import annotations

import operator
from collections.abc import Sized
from typing import Any

from torch.utils.data import ConcatDataset, Subset

from penstock.datasets.describe import DescribesCurrent, DescribesSamples
from penstock.errors import IndexOutOfRangeError


def name_source(dataset: Any, index: object, error: BaseException | None = None) -> str:
    """Where a sample comes from: a path if that can be known, else the dataset and index.

    Args:
        dataset: asked if it is a `DescribesSamples`; torch's `Subset` and `ConcatDataset`
            are looked through.
        index: the sample.
        error: what it raised; an `OSError` often knows the file.
    """
    try:
        dataset, index = _unwrap(dataset, index)
        if isinstance(dataset, DescribesSamples):
            return str(dataset.describe(index))  # type: ignore[arg-type]
    except Exception as failed:
        # The sample is at fault already; that it cannot be named either must not hide that.
        return f"{dataset.__class__.__name__}[{index!r}], describe() raised {failed!r}"
    return _file_of(error) or f"{dataset.__class__.__name__}[{index!r}]"


def name_current(iterator: object, dataset: Any, index: int, error: BaseException) -> str:
    """Where the sample comes from that a stream is at; as `name_source`.

    Args:
        iterator: of the dataset; asked if it is a `DescribesCurrent`.
        dataset: the stream.
        index: the sample's number in it.
        error: what it raised.
    """
    name = f"{dataset.__class__.__name__}, sample {index} of its stream"
    try:
        if isinstance(iterator, DescribesCurrent):
            return str(iterator.describe())
    except Exception as failed:
        return f"{name}, describe() raised {failed!r}"
    return _file_of(error) or name


def _file_of(error: BaseException | None) -> str:
    name = error.filename if isinstance(error, OSError) else None
    if isinstance(name, bytes):
        return repr(name)
    return name if isinstance(name, str) else ""


def none_error(index: object) -> TypeError:
    """What a dataset is told that returns None for a sample."""
    return TypeError(
        f"the dataset returned None for sample {index!r}; return a sample, raise an exception, "
        "or skip such samples with penstock.DataLoader(…, on_error='skip')"
    )


def explain_index_error(error: Exception, dataset: Any, index: object) -> Exception:
    """Says who is wrong about an index that the dataset does not have."""
    if not isinstance(error, (IndexError, KeyError)) or not isinstance(dataset, Sized):
        return error
    try:
        number, length = operator.index(index), len(dataset)  # type: ignore[arg-type]
    except Exception:
        return error
    name = dataset.__class__.__name__
    if -length <= number < length:
        if type(error) is not IndexError:
            return error
        explained: Exception = IndexError(
            f"{error}. If {name} has no sample {number}, its __len__, which says {length}, is too "
            "long"
        )
    else:
        explained = IndexOutOfRangeError(
            f"the sampler asked for sample {number}, and {name} has {length} "
            f"({type(error).__name__}: {error}): the sampler was made for another dataset, or "
            "__len__ is too short"
        )
    explained.__cause__ = error
    return explained.with_traceback(error.__traceback__)


def _unwrap(dataset: Any, index: Any) -> tuple[Any, Any]:
    while True:
        if isinstance(dataset, Subset):
            dataset, index = dataset.dataset, dataset.indices[index]
        elif isinstance(dataset, ConcatDataset):
            if index < 0:
                index += len(dataset)
            for part, end in zip(dataset.datasets, dataset.cumulative_sizes, strict=True):
                if index < end:
                    dataset, index = part, index - end + len(part)  # type: ignore[arg-type]
                    break
            else:
                return dataset, index
        else:
            return dataset, index
