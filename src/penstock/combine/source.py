"""One of the loaders that are iterated at once, and how far it is."""

from __future__ import annotations

import math
import select
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from penstock.errors import DatasetError, PenstockError
from penstock.options import length_of

# Stands for the end of a loader, where None may be a batch.
END = object()


@runtime_checkable
class Run(Protocol):
    """An iterator that can be asked whether it would wait: `penstock.epoch.EpochRun` says how."""

    def ready(self) -> bool:
        """Whether `next()` would not wait."""

    def look_ahead(self) -> bool:
        """Whether another batch, or an error, is to come; waits to know, and hands nothing over."""

    def wait_handles(self) -> list[int]:
        """Descriptors of which one can be read, or written, when that may have changed."""

    def left_s(self, began: float) -> float | None:
        """How much longer a wait may last that began then; None: for ever."""

    def close(self) -> None:
        """Frees what it uses."""


class Source:
    """One loader, and how far it is.

    Args:
        name: what the user calls it.
        loader: what is iterated.

    Attributes:
        run: the iterator, while it is one that has workers to wait for.
        ended: whether all its batches were taken, once.
    """

    def __init__(self, name: Any, loader: Iterable[Any]) -> None:
        self.name = name
        self.run: Run | None = None
        self.ended = False
        self._loader: Iterable[Any] | None = loader
        self._iterator: Iterator[Any] = iter(())
        self._ahead: Any = END

    def begin(self) -> None:
        """Begins the loader, or begins it again."""
        with _naming(self.name):
            self._iterator = iter(self._loader if self._loader is not None else ())
            if isinstance(self._iterator, Run) and self._iterator.wait_handles():
                self.run = self._iterator

    def ready(self) -> bool:
        """Whether `take` would not wait."""
        with _naming(self.name):
            return self.run is None or self.run.ready()

    def watch(self, poll: select.poll, began: float) -> float:
        """Adds to a poll what to wait for, and returns the seconds that the wait may last.

        Args:
            poll: reports when `ready` may have changed.
            began: when the wait began.

        Raises:
            BatchTimeoutError: it has lasted too long.
        """
        if self.run is None:
            return 0.0
        with _naming(self.name):
            left_s = self.run.left_s(began)
            for handle in self.run.wait_handles():
                # Each is an end of a pipe, and ready for either, not both.
                poll.register(handle, select.POLLIN | select.POLLOUT)
        return math.inf if left_s is None else left_s

    def take(self) -> Any:
        """The next batch, or `END`."""
        batch, self._ahead = self._ahead, END
        if batch is not END:
            return batch
        with _naming(self.name):
            batch = next(self._iterator, END)
        if batch is END:
            self.ended = True
            self._drop_iterator()
        return batch

    def take_again(self) -> Any:
        """The first batch, after the loader has ended."""
        self.begin()
        batch = self.take()
        if batch is END:
            raise DatasetError(
                f"loader {self.name!r} has no batch to repeat until the longest loader has ended: "
                "it is empty, or it can be iterated only once, as generators can. Leave it out, "
                "give something that can be iterated again, or choose another mode"
            )
        return batch

    def look_ahead(self) -> bool:
        """Whether there is another batch; waits for it and keeps it for `take`."""
        if self._ahead is not END:
            return True
        if isinstance(self._iterator, Run):
            # It keeps the batch itself, so that its loader's state does not count it yet.
            with _naming(self.name):
                if self._iterator.look_ahead():
                    return True
        self._ahead = self.take()
        return self._ahead is not END

    def length(self) -> int:
        """Batches of the loader.

        Raises:
            TypeError: that is not known.
        """
        length = length_of(self._loader)
        if length is None:
            raise TypeError(f"the length of loader {self.name!r} is not known")
        return length

    def let_go(self) -> None:
        """Frees what the iterator has, now."""
        if self.run is not None:
            self.run.close()
        elif isinstance(self._iterator, _MultiProcessingDataLoaderIter):
            _free_torch(self._iterator)
        if self._iterator is self._loader:
            self._loader = None
        self._ahead = END
        self._drop_iterator()

    def _drop_iterator(self) -> None:
        self.run = None
        self._iterator = iter(())


def _free_torch(iterator: _MultiProcessingDataLoaderIter) -> None:
    """Ends torch's workers, unless they are to live on with their loader.

    torch has no public way. An iterator that is merely dropped stays for as long as the
    traceback of what it raised does, and its workers with it.
    """
    if not iterator._persistent_workers:
        iterator._shutdown_workers()


@contextmanager
def _naming(name: object) -> Iterator[None]:
    """Adds a loader's name to the exceptions it raises."""
    try:
        yield
    except Exception as error:
        text = f"raised by loader {name!r} of those iterated concurrently"
        if sys.version_info >= (3, 11):
            error.add_note(text)
        else:
            _add_root_cause(error, text)
        raise


def _add_root_cause(error: BaseException, text: str) -> None:
    """Puts a text at the head of the traceback that is printed, where notes are not.

    Python 3.10 prints causes and no notes. What is printed first is the far end of the chain of
    causes: there one more does not displace any.
    """
    chain = [error]
    while True:
        end = chain[-1]
        before = end.__cause__
        if before is None and not end.__suppress_context__:
            before = end.__context__
        if before is None or any(before is known for known in chain):
            break
        chain.append(before)
    end.__cause__ = PenstockError(text)
