"""How a dataset tells a loader what a sample is called: two methods, both optional.

A loader that has to name a sample, because it failed or because a worker died over it, asks the
dataset. One without these methods gets its samples named by its class and their index.

The answer is for people. It may hold surrogate escapes where a path is not valid in the file
system's encoding; whoever prints it to a strict stream has to escape them.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class DescribesSamples(Protocol):
    """A map-style dataset that can name its samples.

    `describe` is called in the process that holds the dataset, for samples that failed only. It
    must not read the sample.
    """

    def describe(self, index: int, /) -> str:
        """Return where sample `index` comes from, such as its path."""
        ...


@runtime_checkable
class DescribesCurrent(Protocol):
    """An iterator of an iterable dataset that can name the sample it is at, and go on after it.

    Having this method is also a promise: when `__next__` raises an `Exception` other than
    `StopIteration`, only that one sample is lost, and the next call is about the sample behind it.
    """

    def describe(self) -> str:
        """Return where the sample comes from that the latest `__next__` was about.

        That is so while `__next__` runs, after it returned, and after it raised.
        """
        ...
