"""Several loaders at once."""

from __future__ import annotations

import contextlib
import gc
import itertools
import multiprocessing
import os
import time
import traceback
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset, IterableDataset

import penstock
from penstock.combine.arguments import Mode
from penstock.combine.source import _add_root_cause
from penstock.errors import BatchTimeoutError, ClosedError, DatasetError, OptionError
from tests.support.split import own_part

MODES: tuple[Mode, ...] = ("ready", "round_robin", "longest", "shortest")

# Where nothing is wrong nothing waits this long: it turns a hang into a failure.
PATIENCE_S = 40.0


class Numbers(Dataset[int]):
    def __init__(self, count: int, first: int = 0) -> None:
        self.count = count
        self.first = first

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        return self.first + index


class Failing(Numbers):
    def __getitem__(self, index: int) -> int:
        if index == self.count - 1:
            raise ArithmeticError(f"no sample {index}")
        return super().__getitem__(index)


class Gate:
    """A named pipe: whoever passes waits for somebody to open it, and the other way round."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        os.mkfifo(path)

    def pass_through(self) -> None:
        os.close(os.open(self.path, os.O_RDONLY))

    def open(self) -> None:
        os.close(os.open(self.path, os.O_WRONLY))


class Gated(Numbers):
    """Some samples do something first."""

    def __init__(self, count: int, before: dict[int, list[Callable[[], None]]]) -> None:
        super().__init__(count)
        self.before = before

    def __getitem__(self, index: int) -> int:
        for step in self.before.get(index, []):
            step()
        return super().__getitem__(index)


class Words(Dataset[int]):
    """Is asked for samples by long words."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, word: str) -> int:
        return len(word)


class Streamed(IterableDataset[int]):
    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Iterator[int]:
        return iter(own_part(self.count))


class Sized(Streamed):
    def __len__(self) -> int:
        return self.count


class Run:
    """Stands for an iterator with workers: the test says when a batch is ready."""

    def __init__(self, batches: int) -> None:
        self.batches = iter(range(batches))
        self.is_ready = True
        self.closed = False
        self.reader, self.writer = os.pipe()

    def __iter__(self) -> Run:
        return self

    def __next__(self) -> int:
        assert self.is_ready, "asked while it had nothing"
        return next(self.batches)

    def ready(self) -> bool:
        return self.is_ready

    def look_ahead(self) -> bool:
        raise AssertionError("only one mode asks")

    def wait_handles(self) -> list[int]:
        return [self.reader]

    def left_s(self, began: float) -> float | None:
        return None

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            os.close(self.reader)
            os.close(self.writer)


class Uniterable(list[int]):
    def __iter__(self) -> Iterator[int]:
        raise AssertionError("this loader must not begin")


def loader(dataset: Any, method: str | None = None, **options: Any) -> Any:
    options = {"batch_size": 2, "num_workers": 1, "timeout": PATIENCE_S, **options}
    if not options["num_workers"]:
        options["timeout"] = 0
    return penstock.DataLoader(dataset, multiprocessing_context=method, **options)


def flat(combined: Any) -> list[tuple[Any, int]]:
    return [(name, number) for name, batch in combined for number in batch.tolist()]


def spelled(combined: Any) -> str:
    return " ".join(f"{name}{batch}" for name, batch in combined)


# Each sample of each loader.


@pytest.mark.usefixtures("no_leaks")
def test_every_mode_gives_each_sample_of_each_loader(start_method: str) -> None:
    loaders = {
        "a": loader(Numbers(11), start_method, num_workers=2, persistent_workers=True),
        "b": loader(Numbers(3, 100), start_method, persistent_workers=True),
        "c": loader(Streamed(8), start_method, persistent_workers=True),
        "d": loader(Numbers(6, 200), num_workers=0),
    }
    each = Counter(
        [("a", n) for n in range(11)]
        + [("b", 100 + n) for n in range(3)]
        + [("c", n) for n in range(8)]
        + [("d", 200 + n) for n in range(6)]
    )
    for mode in ("ready", "round_robin"):
        assert Counter(flat(penstock.concurrent(loaders, mode))) == each, mode
    longest = Counter(flat(penstock.concurrent(loaders, "longest")))
    assert set(longest) == set(each)
    assert all(longest["a", n] == 1 for n in range(11))
    shortest = flat(penstock.concurrent(loaders, "shortest"))
    assert Counter(shortest) <= each
    assert Counter(name for name, _ in shortest) == {"a": 6, "b": 3, "c": 4, "d": 4}


def test_turns_are_as_documented() -> None:
    lists = {"a": range(3), "b": range(1), "c": range(2)}
    pictures: dict[Mode, str] = {
        "round_robin": "a0 b0 c0 a1 c1 a2",
        "shortest": "a0 b0 c0 a1",
        "longest": "a0 b0 c0 a1 b0 c1 a2",
    }
    for mode, picture in pictures.items():
        assert spelled(penstock.concurrent(lists, mode)) == picture
    weighted = penstock.concurrent({"a": range(4), "b": range(2)}, "round_robin", [2, 1])
    assert spelled(weighted) == "a0 b0 a1 a2 b1 a3"


def test_longest_gives_loaders_of_equal_length_once() -> None:
    assert spelled(penstock.concurrent({"a": "xy", "b": "pq"}, "longest")) == "ax bp ay bq"


def test_weights_may_be_named() -> None:
    combined = penstock.concurrent(
        {"a": range(2), "b": range(4)}, "round_robin", {"b": 0.2, "a": 0.1}
    )
    assert spelled(combined) == "b0 a0 b1 b2 a1 b3"


def test_positions_are_the_names_of_a_sequence() -> None:
    assert list(penstock.concurrent(["x", "yz"], "round_robin")) == [(0, "x"), (1, "y"), (1, "z")]


@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=4),
    st.data(),
    st.sampled_from(MODES),
)
def test_the_length_is_that_of_what_comes(
    lengths: list[int], data: st.DataObject, mode: Any
) -> None:
    weights = data.draw(
        st.none() | st.lists(st.integers(1, 9), min_size=len(lengths), max_size=len(lengths))
    )
    combined = penstock.concurrent([range(n) for n in lengths], mode, weights)
    claimed = len(combined)
    came = list(combined)
    assert claimed == len(came) == len(combined)
    for position, length in enumerate(lengths):
        own = [batch for name, batch in came if name == position]
        assert own == [n % length for n in range(len(own))]
        if mode in ("ready", "round_robin"):
            assert len(own) == length
        elif mode == "shortest":
            assert len(own) <= length
        else:
            assert len(own) >= length
    if mode == "longest":
        last, _ = came[-1]
        assert sum(name == last for name, _ in came) == lengths[last]


# All at once.


@pytest.mark.usefixtures("no_leaks")
def test_all_loaders_work_while_one_is_awaited(tmp_path: Path) -> None:
    """The first sample of each meets the first of the next: one alone would wait for ever."""
    ab, bc, ca = (Gate(tmp_path / name) for name in ("ab", "bc", "ca"))
    meetings = ([ab.open, ca.pass_through], [ab.pass_through, bc.open], [bc.pass_through, ca.open])
    loaders = [loader(Gated(2, {0: meeting}), persistent_workers=True) for meeting in meetings]
    for mode in MODES:
        assert sorted(flat(penstock.concurrent(loaders, mode))) == [
            (name, number) for name in range(3) for number in range(2)
        ]


@pytest.mark.usefixtures("no_leaks")
def test_ready_does_not_wait_for_a_slow_loader(tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    slow = loader(Gated(4, {0: [gate.pass_through]}))
    fast = loader(Numbers(20))
    combined = penstock.concurrent({"slow": slow, "fast": fast})
    assert [name for name, _ in itertools.islice(combined, 10)] == ["fast"] * 10
    gate.open()
    assert flat(combined) == [("slow", n) for n in range(4)]


@pytest.mark.usefixtures("no_leaks")
def test_ready_does_not_wait_where_nothing_is_left_of_a_batch(tmp_path: Path) -> None:
    """The first batch of `a` is empty, and the second waits until that of `b` was used."""
    behind, gate = Gate(tmp_path / "behind"), Gate(tmp_path / "gate")
    a = loader(
        Gated(4, {0: [_fail], 1: [_fail], 2: [behind.open, gate.pass_through]}),
        batch_size=1,
        batch_sampler=[[0, 1], [2, 3]],
        on_error="skip",
        max_skipped=None,
        timeout=5,
    )
    b = loader(Gated(2, {0: [behind.pass_through]}))
    combined = penstock.concurrent({"a": a, "b": b})
    assert next(combined)[0] == "b"
    gate.open()
    assert flat(combined) == [("a", 2), ("a", 3)]


@pytest.mark.usefixtures("no_leaks")
def test_ready_goes_on_sending_what_did_not_fit_into_a_pipe(tmp_path: Path) -> None:
    """Orders of 1 MB, to a worker whose pipe holds 64 KB, while the other loader is silent."""
    gate = Gate(tmp_path / "gate")
    words = ["a" * (1 << 20), "b" * (1 << 21), "c"]
    asked = loader(Words(), sampler=words, batch_size=1, timeout=10)
    silent = loader(Gated(1, {0: [gate.pass_through]}))
    combined = penstock.concurrent([asked, silent])
    assert [batch.tolist() for _, batch in itertools.islice(combined, 3)] == [
        [len(word)] for word in words
    ]
    gate.open()
    assert flat(combined) == [(1, 0)]


@pytest.mark.usefixtures("no_leaks")
def test_ready_ends_a_stream_that_may_fetch_nothing_ahead() -> None:
    loaders = [loader(Streamed(n), prefetch_factor=1) for n in (0, 1, 5)]
    assert sorted(flat(penstock.concurrent(loaders))) == [(1, 0), *((2, n) for n in range(5))]


@pytest.mark.usefixtures("no_leaks")
def test_ready_survives_the_death_of_a_worker(tmp_path: Path) -> None:
    """Its worker leaves once; nobody else has anything to say meanwhile."""
    gate = Gate(tmp_path / "gate")
    dying = loader(Gated(6, {3: [LeaveOnce(tmp_path / "left")]}))
    silent = loader(Gated(1, {0: [gate.pass_through]}))
    combined = penstock.concurrent([dying, silent])
    assert flat(itertools.islice(combined, 3)) == [(0, n) for n in range(6)]
    gate.open()
    assert flat(combined) == [(1, 0)]


@pytest.mark.usefixtures("no_leaks")
def test_the_timeout_of_a_loader_bounds_the_wait_for_all(tmp_path: Path) -> None:
    never = Gate(tmp_path / "gate")
    bounded = loader(Gated(1, {0: [never.pass_through]}), timeout=0.2)
    unbounded = loader(Gated(1, {0: [never.pass_through]}), timeout=0)
    with pytest.raises(BatchTimeoutError, match=r"0\.2 seconds") as caught:
        next(penstock.concurrent({"u": unbounded, "b": bounded}))
    assert "loader 'b'" in printed(caught.value)


# Who is asked, where several are ready.


def test_ready_takes_fair_turns_among_those_that_are_ready() -> None:
    a, b, c = Run(9), Run(9), Run(9)
    with penstock.concurrent({"a": a, "b": b, "c": c}) as combined:
        assert names(combined, 6) == "abcabc"
        b.is_ready = False
        assert names(combined, 4) == "acac"
        b.is_ready = True
        # The next turn is its own, and those that it was not there for are lost.
        assert names(combined, 6) == "babcab"


def test_ready_shares_out_turns_by_weight() -> None:
    with penstock.concurrent({"a": Run(9), "b": Run(9)}, weights={"a": 1, "b": 2}) as combined:
        assert names(combined, 9) == "babbabbab"


def test_those_that_cannot_be_polled_are_asked_last() -> None:
    run = Run(4)
    with penstock.concurrent({"l": range(3), "r": run, "m": range(2)}) as combined:
        assert names(combined, 2) == "rr"
        run.is_ready = False
        assert names(combined, 3) == "lml"
        run.is_ready = True
        assert names(combined, 2) == "rr"
        assert "".join(name for name, _ in combined) in ("ml", "lm")


def test_ready_waits_for_a_word_and_asks_again() -> None:
    run = Run(1)
    asked = []

    def ready() -> bool:
        asked.append(True)
        run.is_ready = len(asked) > 3
        os.write(run.writer, b"!")
        return run.is_ready

    run.is_ready = False
    run.ready = ready  # type: ignore[method-assign]
    with penstock.concurrent([run]) as combined:
        assert next(combined) == (0, 0)
    assert len(asked) == 4


def test_nothing_is_asked_while_no_worker_has_a_word() -> None:
    """Without a word to come, one wait lasts until the run's limit is over."""
    run = Run(1)
    run.is_ready = False
    asked = []

    def ready() -> bool:
        asked.append(True)
        return False

    def left_s(began: float) -> float | None:
        left_s = began + 0.1 - time.perf_counter()
        if left_s <= 0:
            raise TimeoutError
        return left_s

    run.ready = ready  # type: ignore[method-assign]
    run.left_s = left_s  # type: ignore[method-assign]
    with pytest.raises(TimeoutError):
        next(penstock.concurrent([run]))
    assert len(asked) <= 3


def names(combined: Any, count: int) -> str:
    return "".join(name for name, _ in itertools.islice(combined, count))


# What fails says where.


@pytest.mark.usefixtures("no_leaks")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_names_its_loader_and_keeps_its_type(mode: Any, workers: int) -> None:
    loaders = {"good": loader(Numbers(4)), "bad": loader(Failing(4), num_workers=workers)}
    combined = penstock.concurrent(loaders, mode)
    with pytest.raises(ArithmeticError, match="no sample 3") as caught:
        list(combined)
    assert "loader 'bad'" in printed(caught.value)
    assert "loader 'good'" not in printed(caught.value)


@pytest.mark.usefixtures("no_leaks")
def test_an_error_ends_all_loaders(start_method: str) -> None:
    before = workers()
    combined = penstock.concurrent(
        [
            loader(Numbers(100), start_method),
            torch.utils.data.DataLoader(
                Failing(1), num_workers=1, multiprocessing_context=start_method
            ),
        ],
        "round_robin",
    )
    next(combined)
    # The traceback, which holds on to frames, is kept.
    with pytest.raises(ArithmeticError) as caught:
        next(combined)
    assert workers() == before
    assert "loader 1" in printed(caught.value)
    with pytest.raises(ClosedError, match="ArithmeticError"):
        next(combined)


@pytest.mark.usefixtures("no_leaks")
def test_an_interrupt_ends_all_loaders_and_is_nobodys() -> None:
    before = workers()
    combined = penstock.concurrent([loader(Numbers(100)), Interrupting()], "round_robin")
    next(combined)
    with pytest.raises(KeyboardInterrupt) as caught:
        next(combined)
    assert workers() == before
    assert "loader" not in "".join(traceback.format_exception_only(caught.value))


@pytest.mark.usefixtures("no_leaks")
def test_a_loader_that_cannot_begin_closes_those_before_it() -> None:
    before = workers()
    third = loader(Numbers(4), sampler=BrokenSampler())
    loaders = [loader(Numbers(4)), loader(Numbers(4)), Unready(), third]
    with pytest.raises(OSError, match="disk") as caught:
        penstock.concurrent(loaders)
    assert workers() == before
    assert "loader 2" in printed(caught.value)


def test_the_name_is_printed_where_notes_are_not() -> None:
    """As Python 3.10 needs it; the causes that were there stay."""
    try:
        try:
            raise KeyError("deepest")
        except KeyError as error:
            raise ValueError("outer") from error
    except ValueError as error:
        _add_root_cause(error, "raised by loader 'b'")
        lines = printed(error)
    assert lines.index("raised by loader 'b'") < lines.index("deepest") < lines.index("outer")


def test_a_circle_of_causes_is_walked_once() -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__context__, two.__context__ = two, one
    _add_root_cause(one, "raised by loader 'b'")
    assert "raised by loader 'b'" in printed(one)


def printed(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


# What is freed, and when.


def workers() -> int:
    return len(multiprocessing.active_children())


@contextlib.contextmanager
def no_collector() -> Iterator[None]:
    """What a cycle of references holds stays."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.mark.usefixtures("no_leaks")
def test_break_frees_the_workers_of_all_at_once() -> None:
    loaders = [loader(Numbers(1000)) for _ in range(2)]
    with no_collector():
        for _ in penstock.concurrent(loaders):
            assert workers() == 2
            break
        assert workers() == 0


@pytest.mark.usefixtures("no_leaks")
def test_dropping_it_frees_it_without_the_collector() -> None:
    with no_collector():
        combined = penstock.concurrent([loader(Numbers(1000)), range(5)], "longest")
        for _ in range(20):
            next(combined)
        reference = weakref.ref(combined)
        del combined
        assert reference() is None
        assert not workers()


@pytest.mark.usefixtures("no_leaks")
def test_close_and_with_free_the_workers() -> None:
    combined = penstock.concurrent([loader(Numbers(1000)), loader(Numbers(1000))])
    with combined:
        next(combined)
        assert workers()
    assert not workers()
    combined.close()
    with pytest.raises(ClosedError, match="close"):
        next(combined)


@pytest.mark.usefixtures("no_leaks")
@pytest.mark.parametrize("mode", MODES)
def test_the_end_frees_the_workers_and_stays_the_end(mode: Any) -> None:
    combined = penstock.concurrent([loader(Numbers(8)), loader(Numbers(2))], mode)
    for _ in combined:
        pass
    assert not workers()
    assert list(combined) == []
    combined.close()
    assert list(combined) == []


@pytest.mark.usefixtures("no_leaks")
def test_persistent_workers_stay_with_their_loader() -> None:
    kept = loader(Numbers(4), persistent_workers=True)
    once = loader(Numbers(4))
    assert len(list(penstock.concurrent([kept, once]))) == 4
    before = workers()
    assert before == 1
    for _ in penstock.concurrent([kept, once]):
        break
    assert workers() == before
    assert len(list(kept)) == 2


def test_an_iterator_is_let_go_with_the_combination() -> None:
    count = iter(Tracked())
    reference = weakref.ref(count)
    combined = penstock.concurrent([count])
    del count
    combined.close()
    assert reference() is None


def test_a_batch_fetched_ahead_is_let_go_too() -> None:
    references = []

    class Watched:
        def __iter__(self) -> Iterator[Tracked]:
            for _ in range(3):
                batch = Tracked()
                references.append(weakref.ref(batch))
                yield batch
                del batch

    combined = penstock.concurrent({"short": [0], "long": Watched()}, "longest")
    assert names(combined, 3) == "shortlongshort"
    assert len(references) == 2
    combined.close()
    assert [reference() for reference in references] == [None, None]


# What can be combined.


@pytest.mark.usefixtures("no_leaks")
def test_loaders_of_torch_and_plain_lists_take_part() -> None:
    loaders = {
        "penstock": loader(Numbers(6)),
        "torch": torch.utils.data.DataLoader(Numbers(6), batch_size=2, num_workers=1),
        "inline": torch.utils.data.DataLoader(Numbers(6), batch_size=2),
        "list": [torch.tensor([0, 1]), torch.tensor([2, 3]), torch.tensor([4, 5])],
        "generator": (torch.tensor([n, n + 1]) for n in (0, 2, 4)),
    }
    each = Counter((name, n) for name in loaders for n in range(6))
    assert Counter(flat(penstock.concurrent(loaders))) == each


@pytest.mark.usefixtures("no_leaks")
def test_samples_of_a_pool_take_part() -> None:
    pools = [penstock.iterate(Numbers(20), workers=1), penstock.iterate(Numbers(10), workers=1)]
    came = list(penstock.concurrent(pools))
    assert Counter((name, sample.value) for name, sample in came) == Counter(
        [(0, n) for n in range(20)] + [(1, n) for n in range(10)]
    )


def test_a_loader_may_be_there_twice() -> None:
    one = loader(Numbers(4), num_workers=0)
    assert sorted(flat(penstock.concurrent([one, one]))) == [
        (p, n) for p in (0, 1) for n in range(4)
    ]


def test_none_is_a_batch() -> None:
    assert list(penstock.concurrent([[None, None]], "longest")) == [(0, None), (0, None)]


def test_there_is_no_length_where_a_loader_has_none() -> None:
    for unsized in ((n for n in range(2)), loader(Streamed(4), num_workers=0)):
        combined = penstock.concurrent({"a": [1], "b": unsized})
        with pytest.raises(TypeError, match="loader 'b'"):
            len(combined)
        assert len(list(combined)) == 3


def test_a_stream_is_not_asked_for_its_length_unbidden() -> None:
    stream = loader(Sized(4), num_workers=0)
    for _ in penstock.concurrent([stream], "longest"):
        assert stream._IterableDataset_len_called is None


@pytest.mark.parametrize("empty", [iter([]), loader(Streamed(0), num_workers=0)])
def test_longest_refuses_to_repeat_nothing(empty: Any) -> None:
    combined = penstock.concurrent({"full": range(5), "empty": empty}, "longest")
    with pytest.raises(DatasetError, match=r"'empty'.*no batch to repeat"):
        list(combined)


def test_longest_says_so_if_a_loader_cannot_begin_again() -> None:
    combined = penstock.concurrent([range(5), iter(range(2))], "longest")
    with pytest.raises(DatasetError, match=r"loader 1 .*iterated only once"):
        list(combined)


@pytest.mark.parametrize(
    ("loaders", "options", "words"),
    [
        ({}, {}, ["loaders={}", "at least one"]),
        ([], {}, [r"loaders=\[\]", "at least one"]),
        ("ab", {}, ["loaders=str", "as a list"]),
        (iter([[1]]), {}, ["loaders=list_iterator", "as a list"]),
        (loader(Numbers(2)), {}, ["loaders=DataLoader", "as a list"]),
        ({"a": Uniterable(), "b": Numbers(2)}, {}, [r"loaders\['b'\]=Numbers", "DataLoader"]),
        ([Uniterable(), 3], {}, [r"loaders\[1\]=int", "cannot be iterated"]),
        ([Uniterable()], {"mode": "fastest"}, ["mode='fastest'", "'ready'", "'shortest'"]),
        ([Uniterable()], {"mode": None}, ["mode=None", "'ready'"]),
        ([Uniterable()], {"weights": [1, 2]}, [r"weights=\[1, 2\]", "2 for 1"]),
        ([Uniterable()], {"weights": []}, [r"weights=\[\]", "0 for 1"]),
        ([Uniterable()], {"weights": 2}, ["weights=2", "as a list"]),
        ([Uniterable()], {"weights": "1"}, ["weights='1'", "as a list"]),
        ({"a": Uniterable()}, {"weights": {"b": 1}}, ["'b': 1", r"\['a'\]", "same names"]),
        ({"a": Uniterable()}, {"weights": {"a": 1, "b": 1}}, [r"\['a'\]", "same names"]),
        ([Uniterable()], {"weights": [0]}, [r"weights\[0\]=0", "positive"]),
        ({"a": Uniterable()}, {"weights": [-1.5]}, [r"weights\['a'\]=-1.5", "positive"]),
        ([Uniterable()], {"weights": [float("nan")]}, ["=nan", "positive"]),
        ([Uniterable()], {"weights": [float("inf")]}, ["=inf", "positive"]),
        ([Uniterable()], {"weights": [True]}, ["=True", "positive"]),
        ([Uniterable()], {"weights": ["2"]}, ["='2'", "positive"]),
        ([Uniterable([1]), []], {"mode": "longest"}, [r"loaders\[1\]=list", "empty"]),
    ],
)
def test_what_cannot_be_combined_is_refused_before_any_loader_begins(
    loaders: Any, options: Any, words: list[str]
) -> None:
    for word in words:
        with pytest.raises(OptionError, match=word):
            penstock.concurrent(loaders, **options)


@pytest.mark.parametrize("make", [penstock.DataLoader, torch.utils.data.DataLoader])
def test_a_persistent_loader_is_refused_twice(make: Any) -> None:
    twice = make(Numbers(4), num_workers=1, persistent_workers=True)
    with pytest.raises(OptionError, match=r"loaders\['c'\]=DataLoader.*persistent_workers"):
        penstock.concurrent({"a": twice, "b": [1], "c": twice})
    assert not workers()


# States: each loader has its own.


@pytest.mark.usefixtures("no_leaks")
@pytest.mark.parametrize("mode", ["ready", "round_robin", "shortest"])
def test_each_loader_goes_on_from_its_own_state(mode: Any) -> None:
    def make() -> dict[str, Any]:
        return {
            "shuffled": loader(Numbers(14), shuffle=True, seed=3),
            "stream": loader(Streamed(12), num_workers=2, persistent_workers=True),
            "inline": loader(Numbers(10, 100), num_workers=0, shuffle=True, seed=4),
        }

    whole = {name: flat([(name, batch) for batch in each]) for name, each in make().items()}
    # So few that none comes to its end, behind which its state is that of the next epoch.
    for taken in (0, 1, 4):
        loaders = make()
        combined = penstock.concurrent(loaders, mode)
        came = flat(itertools.islice(combined, taken))
        states = {name: each.state_dict() for name, each in loaders.items()}
        combined.close()
        others = make()
        for name, other in others.items():
            other.load_state_dict(states[name])
        came += flat(penstock.concurrent(others))
        for name, expected in whole.items():
            assert [sample for sample in came if sample[0] == name] == expected, (name, taken)


@pytest.mark.usefixtures("no_leaks")
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("keeps", [False, True], ids=["fleeting", "persistent"])
def test_a_batch_that_was_only_looked_for_is_not_in_the_state(workers: int, keeps: bool) -> None:
    def make(length: int) -> Any:
        settings = {"num_workers": workers, "persistent_workers": keeps and workers > 0}
        return loader(Numbers(length), batch_size=1, **settings)

    # Where the short one has ended, a look tells whether the long one has a batch left.
    long, short = make(6), make(2)
    combined = penstock.concurrent({"long": long, "short": short}, "longest")
    came = flat(itertools.islice(combined, 6))
    state = long.state_dict()
    combined.close()
    other = make(6)
    other.load_state_dict(state)
    first = [sample for name, sample in came if name == "long"]
    assert first == [0, 1, 2]
    assert [sample for _, sample in flat([("long", batch) for batch in other])] == [3, 4, 5]


class Tracked:
    def __iter__(self) -> Tracked:
        return self

    def __next__(self) -> int:
        return 0


class Interrupting:
    def __iter__(self) -> Iterator[int]:
        raise_it = True
        if raise_it:
            raise KeyboardInterrupt
        yield 0


class Unready:
    def __iter__(self) -> Iterator[int]:
        raise OSError("no disk")


class BrokenSampler:
    def __iter__(self) -> Iterator[int]:
        raise AssertionError("the one before it failed")


class LeaveOnce:
    """Ends the process that calls it, the first time."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __call__(self) -> None:
        if not self.mark.exists():
            self.mark.touch()
            os._exit(3)


def _fail() -> None:
    raise OSError("unreadable")
