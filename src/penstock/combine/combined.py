"""The iterator over several loaders: which of them comes next."""

from __future__ import annotations

import contextlib
import select
import time
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from types import TracebackType
from typing import Any, Generic, TypeVar, overload

from penstock.combine.arguments import (
    Mode,
    Weights,
    check_loader,
    check_mode,
    named_loaders,
    shares_of,
)
from penstock.combine.source import END, Source
from penstock.engines.protocol import ROUND_S
from penstock.errors import ClosedError
from penstock.plan.turns import WeightedTurns

K = TypeVar("K", bound=Hashable)


@overload
def concurrent(
    loaders: Mapping[K, Iterable[Any]], mode: Mode = ..., weights: Weights | None = ...
) -> Combined[K]: ...


@overload
def concurrent(
    loaders: Sequence[Iterable[Any]], mode: Mode = ..., weights: Weights | None = ...
) -> Combined[int]: ...


def concurrent(
    loaders: Mapping[Any, Iterable[Any]] | Sequence[Iterable[Any]],
    mode: Mode = "ready",
    weights: Weights | None = None,
) -> Combined[Any]:
    """Iterates several loaders at once.

        for name, batch in penstock.concurrent({"photos": photos, "text": text}):
            ...

    All loaders begin right here, before the first batch is asked for, so the workers of all of
    them are busy meanwhile. The mode chooses which loader comes next; where a has 3 batches,
    b has 1 and c has 2:

        "round_robin"   a0 b0 c0 a1 c1 a2       in turn, until all have ended
        "shortest"      a0 b0 c0 a1             in turn, until one has no batch at its turn
        "longest"       a0 b0 c0 a1 b0 c1 a2    in turn, until all have ended once; one that has
                                                ended before the others begins again
        "ready"         b0 a0 a1 c0 a2 c1       what is there first, until all have ended

    The first three orders depend on the loaders' lengths alone. `"longest"` ends with the last
    batch that is no repetition, so loaders of equal length give each batch once; to know
    whether such a batch is still to come, it may fetch one before its turn.

    `"ready"` waits for no loader while another has a batch, and leaves the processor to
    the workers while none has. It can look only into loaders of Penstock with workers. All others
    (`num_workers=0`, loaders of torch, lists, generators) make a batch when they are asked, in
    this thread: they count as always ready and are asked last, while none of the former has a
    batch. Where the training loop is slower than the workers, that is at the end.

    Weights are shares of turns. In turn, `weights=[2, 1]` gives a b a, a b a, …: the turns of
    each are evenly spread, ties go to the loader named first, and a loader that has ended is
    passed over. With `"ready"` they share out turns among the loaders which have a
    batch at the time, and, apart from these, among those that are asked last. A loader that has
    none ready when another is chosen gets no more turns later to make up for it.

    A failure in one loader ends all of them: the exception keeps its type, its traceback names the
    loader, and the workers of all are freed. To leave out bad samples and go on, see `on_error` of
    `penstock.DataLoader`. A loader's `timeout` bounds each wait in which that loader has batches
    to come; with `"ready"`, a wait ends with the first batch of any loader.

    Args:
        loaders: by name, or a sequence whose positions are the names. Loaders of Penstock or
            torch, or any other iterables of batches.
        mode: which loader comes next; see above.
        weights: positive numbers, by name or in the order of `loaders`; by default all are equal.

    Returns:
        An iterator of `(name, batch)`, with `len` where all loaders have one. Its workers end with
        it: when all is iterated, when it is dropped, as `break` does, or at `close()`, which
        `with` calls.

    Raises:
        OptionError: an argument cannot be used as given; no worker was started.
        Exception: what a loader raised when it was to begin; those begun before are closed.
    """
    named = named_loaders(loaders)
    check_mode(mode)
    shares = shares_of(weights, [name for name, _ in named])
    for position, (name, loader) in enumerate(named):
        check_loader(name, loader, mode, [other for _, other in named[:position]])
    return Combined(named, mode, shares)


class Combined(Iterator[tuple[K, Any]], Generic[K]):
    """Iterates the batches of several loaders; made by `concurrent`.

    Args:
        loaders: with their names; checked.
        mode: which loader comes next.
        shares: each loader's share of turns.
    """

    def __init__(
        self, loaders: Sequence[tuple[K, Iterable[Any]]], mode: Mode, shares: Sequence[Fraction]
    ) -> None:
        self._mode = mode
        self._turns = WeightedTurns(shares)
        # With "ready", those that are asked last take turns among themselves.
        self._last_turns = WeightedTurns(shares)
        self._sources = [Source(name, loader) for name, loader in loaders]
        self._going = list(range(len(self._sources)))
        self._ended = False
        self._closed = ""
        try:
            for source in self._sources:
                source.begin()
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Combined[K]:
        return self

    def __next__(self) -> tuple[K, Any]:
        """The next batch, with its loader's name.

        Raises:
            StopIteration: the combination has ended.
            ClosedError: it was closed, by `close` or by a failure.
            Exception: what a loader raised, with the loader's name; all of them are closed.
        """
        if self._ended:
            raise StopIteration
        if self._closed:
            raise ClosedError(f"these loaders were closed {self._closed}; combine them again")
        try:
            chosen = self._next_ready() if self._mode == "ready" else self._next_in_turn()
        except BaseException as error:
            self._close(f"when one of them raised {type(error).__name__}")
            raise
        if chosen is None:
            self._ended = True
            self.close()
            raise StopIteration
        source, batch = chosen
        return source.name, batch

    def __len__(self) -> int:
        """Batches in all, whatever was handed over so far.

        Raises:
            TypeError: the length of a loader is not known.
        """
        lengths = [source.length() for source in self._sources]
        before = self._turns.turns_before
        if self._mode == "shortest":
            return min(before(position, length) for position, length in enumerate(lengths))
        if self._mode == "longest":
            return 1 + max(before(position, length - 1) for position, length in enumerate(lengths))
        return sum(lengths)

    def close(self) -> None:
        """Frees all loaders with their workers. Twice does no harm."""
        self._close("by close()")

    def __enter__(self) -> Combined[K]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _close(self, how: str) -> None:
        self._closed = self._closed or how
        # First those of others, whose forked workers hold copies of the pipes to ours.
        order = sorted(self._sources, key=lambda source: source.run is not None)
        with contextlib.ExitStack() as stack:
            for source in reversed(order):
                stack.callback(source.let_go)

    # Which loader comes next.

    def _next_ready(self) -> tuple[Source, Any] | None:
        began = time.perf_counter()
        while self._going:
            watched = [p for p in self._going if self._sources[p].run is not None]
            ready = [p for p in watched if self._sources[p].ready()]
            if ready:
                position = self._turns.choose(ready, absent=set(watched).difference(ready))
            elif len(watched) < len(self._going):
                position = self._last_turns.choose(p for p in self._going if p not in watched)
            else:
                self._wait([self._sources[p] for p in watched], began)
                continue
            source = self._sources[position]
            batch = source.take()
            if batch is not END:
                return source, batch
            self._going.remove(position)
        return None

    def _wait(self, watched: Iterable[Source], began: float) -> None:
        """Waits until a worker of any loader has something to say, or a timeout is over."""
        poll = select.poll()
        wait_s = min([ROUND_S, *(source.watch(poll, began) for source in watched)])
        poll.poll(wait_s * 1000)

    def _next_in_turn(self) -> tuple[Source, Any] | None:
        while self._going:
            position = self._turns.choose(self._going)
            source = self._sources[position]
            if source.ended and not self._has_new():
                return None
            batch = source.take()
            if batch is END:
                if self._mode == "round_robin":
                    self._going.remove(position)
                    continue
                if self._mode == "shortest" or not self._has_new():
                    return None
                batch = source.take_again()
            return source, batch
        return None

    def _has_new(self) -> bool:
        """Whether a batch is still to come that is no repetition."""
        return any(source.look_ahead() for source in self._sources if not source.ended)
