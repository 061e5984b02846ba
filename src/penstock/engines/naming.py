"""What a sample is called in a message."""

from __future__ import annotations

import operator
from collections.abc import Sized
from typing import Any

from torch.utils.data import ConcatDataset, Subset

from penstock.errors import IndexOutOfRangeError


def name_source(dataset: Any, index: object, error: BaseException) -> str:
    """Where a sample comes from: a path if that can be known, else the dataset and index.

    Args:
        dataset: asked for `describe(index)` if it has that; torch's `Subset` and
            `ConcatDataset` are looked through.
        index: the sample.
        error: what it raised; an `OSError` often knows the file.
    """
    try:
        dataset, index = _unwrap(dataset, index)
        describe = getattr(dataset, "describe", None)
        if callable(describe):
            return str(describe(index))
    except Exception as failed:
        # The sample is at fault already; that it cannot be named either must not hide that.
        return f"{type(dataset).__name__}[{index!r}], describe() raised {failed!r}"
    filename = getattr(error, "filename", None)
    if isinstance(filename, (str, bytes)):
        return filename if isinstance(filename, str) else repr(filename)
    return f"{type(dataset).__name__}[{index!r}]"


def none_error(index: object) -> TypeError:
    """What a dataset is told that returns None for a sample."""
    return TypeError(
        f"the dataset returned None for sample {index!r}; return a sample, raise an exception, "
        "or skip such samples with on_error='skip'"
    )


def explain_index_error(error: Exception, dataset: Any, index: object) -> Exception:
    """Says who is wrong about an index that the dataset does not have."""
    if not isinstance(error, (IndexError, KeyError)) or not isinstance(dataset, Sized):
        return error
    try:
        number, length = operator.index(index), len(dataset)  # type: ignore[arg-type]
    except Exception:
        return error
    name = type(dataset).__name__
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
