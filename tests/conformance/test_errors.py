"""What is raised, with which type and which words, and what can be had behind it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.conformance.roles import (
    Calls,
    Fails,
    Numbers,
    as_it_is,
    end,
    error_of,
    flat,
    is_torchs,
)


class WithCode(Exception):
    """Carries more than its text."""

    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text)
        self.code = code


class NeedsTwo(Exception):
    """Cannot be made of a text alone, and does not say how it can be."""

    def __init__(self, name: str, number: int) -> None:
        super().__init__(f"{name} has {number}")


ERRORS: list[Callable[[], Exception]] = [
    lambda: ValueError("bad"),
    lambda: KeyError("missing"),
    lambda: IndexError("out"),
    lambda: FileNotFoundError(2, "No such file", "a.jpg"),
    lambda: AssertionError(),
    lambda: NotImplementedError("not yet"),
    lambda: WithCode("with code", 5),
    lambda: MemoryError("too big"),
]


@pytest.mark.parametrize("make", ERRORS, ids=lambda make: type(make()).__name__)
def test_what_a_sample_raises_is_raised_with_its_type(
    loader_class: Any, workers: int, make: Callable[[], Exception]
) -> None:
    error = error_of(loader_class(Fails(make), batch_size=2, num_workers=workers))
    assert type(error) is type(make())
    assert str(make()) in str(error)
    if workers:
        # Worker 0 makes the first and the third batch.
        name = type(make()).__name__
        assert str(error).startswith(f"Caught {name} in DataLoader worker process 0.\n")
        assert "Traceback (most recent call last)" in str(error)
        assert "in __getitem__" in str(error)


def test_an_error_travels_under_every_start_method(loader_class: Any, start_method: str) -> None:
    loader = loader_class(
        Fails(make_code, at=0), num_workers=1, multiprocessing_context=start_method
    )
    error = error_of(loader)
    assert type(error) is WithCode
    assert str(error).startswith("Caught WithCode in DataLoader worker process 0.\n")


def make_code() -> Exception:
    return WithCode("with code", 5)


def test_the_lines_of_a_key_errors_text_are_lines(loader_class: Any) -> None:
    error = error_of(loader_class(Fails(lambda: KeyError("missing")), num_workers=1))
    assert len(str(error).splitlines()) > 3
    assert str(error).splitlines()[0] == "Caught KeyError in DataLoader worker process 0."


def test_without_workers_the_sample_is_named_beside_what_it_raised(loader_class: Any) -> None:
    """torch raises the very exception; ours one like it, that says which sample it was."""
    error = error_of(loader_class(Fails(lambda: WithCode("broken", 5))))
    assert isinstance(error, WithCode)
    assert error.code == 5
    if is_torchs(loader_class):
        assert error.args == ("broken",)
    else:
        assert str(error).startswith("WithCode at sample 5 (Fails[5]): broken")
        assert error.__cause__.cause.args == ("broken",)  # type: ignore[union-attr]


def test_attributes_of_an_exception_arrive_from_a_worker(loader_class: Any) -> None:
    """torch makes a new exception of the text alone; ours has the attributes as well."""
    error = error_of(loader_class(Fails(lambda: WithCode("broken", 5)), num_workers=1))
    assert isinstance(error, WithCode)
    assert error.code == (0 if is_torchs(loader_class) else 5)


def test_an_exception_that_cannot_be_made_of_a_text_becomes_a_runtime_error(
    loader_class: Any,
) -> None:
    error = error_of(loader_class(Fails(lambda: NeedsTwo("it", 2)), num_workers=1))
    assert type(error) is RuntimeError
    assert str(error).startswith("Caught NeedsTwo in DataLoader worker process 0.\n")
    assert "it has 2" in str(error)


def test_an_exception_that_can_be_sent_as_it_is_keeps_its_type(loader_class: Any) -> None:
    """torch makes a `RuntimeError` of what takes other arguments than a text, such as this."""

    def decode(index: int) -> str:
        return b"\xff".decode()

    def parse(index: int) -> Any:
        return json.loads("[")

    for function, kind in ((decode, UnicodeDecodeError), (parse, json.JSONDecodeError)):
        error = error_of(loader_class(Calls(function), num_workers=1))
        # Without notes, which are Python 3.11's, there is no room for the worker's story.
        kept = not is_torchs(loader_class) and hasattr(error, "add_note")
        assert type(error) is (kind if kept else RuntimeError)


@pytest.mark.parametrize("batched", [True, False], ids=["batches", "samples"])
def test_an_error_stands_for_its_batch_and_those_behind_it_come(
    loader_class: Any, workers: int, batched: bool
) -> None:
    options: dict[str, Any] = {"batch_size": 3} if batched else {"batch_size": None}
    dataset = Fails(lambda: ValueError("bad"), at=4, length=8)
    batches = iter(loader_class(dataset, num_workers=workers, **options))
    arrived: list[Any] = []
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            break
        except ValueError:
            arrived.append("error")
        else:
            arrived.append(batch.tolist() if batched else batch)
    end(batches)
    if batched:
        assert arrived == [[0, 1, 2], "error", [6, 7]]
    else:
        assert arrived == [0, 1, 2, 3, "error", 5, 6, 7]


def test_a_stop_iteration_of_a_sample_ends_the_epoch(loader_class: Any, workers: int) -> None:
    dataset = Fails(StopIteration, at=5)
    loader = loader_class(dataset, batch_size=2, num_workers=workers)
    for _ in range(2):
        batches = iter(loader)
        assert flat(batches) == [0, 1, 2, 3]
        end(batches)


def test_an_index_that_is_not_there_is_an_index_error(loader_class: Any, workers: int) -> None:
    """Ours is an `IndexOutOfRangeError`, which is one, and says whose fault it seems to be."""
    error = error_of(loader_class([1, 2, 3], sampler=[7], num_workers=workers))
    assert isinstance(error, IndexError)
    assert "list index out of range" in str(error)
    assert (type(error) is IndexError) == is_torchs(loader_class)


def test_what_a_collate_function_raises_is_raised_with_its_type(
    loader_class: Any, workers: int
) -> None:
    def fail(samples: list[int]) -> Any:
        raise LookupError(f"cannot collate {samples}")

    error = error_of(loader_class(Numbers(2), collate_fn=fail, num_workers=workers))
    assert type(error) is LookupError
    assert "cannot collate [0]" in str(error)


def test_what_worker_init_fn_raises_is_raised_with_its_type(loader_class: Any) -> None:
    def fail(worker: int) -> None:
        raise LookupError(f"no licence for worker {worker}")

    error = error_of(loader_class(Numbers(), num_workers=1, worker_init_fn=fail))
    assert type(error) is LookupError
    assert str(error).startswith("Caught LookupError in DataLoader worker process 0.\n")
    assert "no licence for worker 0" in str(error)


def failing_order() -> Any:
    yield from [0, 1, 2]
    raise LookupError("the sampler lost its way")


def test_what_a_sampler_raises_comes_behind_its_batches(loader_class: Any, workers: int) -> None:
    """torch, with workers, raises it when it looks ahead; ours once the batches before were had."""
    arrived = []

    def run() -> Any:
        for batch in loader_class(Numbers(), sampler=failing_order(), num_workers=workers):
            arrived.append(int(batch))
            yield batch

    error = error_of(run())
    assert type(error) is LookupError
    assert str(error) == "the sampler lost its way"
    assert arrived == ([] if workers and is_torchs(loader_class) else [0, 1, 2])


# Workers that die.


def kill_oneself(index: int) -> int:
    if index == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return index


def test_a_sample_that_kills_its_worker_ends_the_loop_in_known_words(loader_class: Any) -> None:
    error = error_of(loader_class(Calls(kill_oneself), collate_fn=as_it_is, num_workers=1))
    assert isinstance(error, RuntimeError)
    text = str(error)
    assert "DataLoader worker (pid" in text
    assert "exited unexpectedly" in text or "is killed by signal: Killed" in text


def leave(index: int) -> int:
    os._exit(3)


def test_a_sample_that_ends_its_worker_ends_the_loop_in_known_words(loader_class: Any) -> None:
    error = error_of(loader_class(Calls(leave), collate_fn=as_it_is, num_workers=1))
    assert isinstance(error, RuntimeError)
    assert "DataLoader worker (pid" in str(error)
    assert "exited unexpectedly" in str(error)


def test_a_worker_that_is_killed_once_is_replaced(loader_class: Any) -> None:
    """torch's loop ends; ours goes on with another worker, and every sample comes once."""
    read, write = os.pipe()
    os.write(write, b"once")

    os.set_blocking(read, False)

    def take_turn(index: int) -> int:
        if index == 2:
            try:
                os.read(read, 4)
            except BlockingIOError:
                return index
            os.kill(os.getpid(), signal.SIGKILL)
        return index

    loader = loader_class(
        Calls(take_turn), collate_fn=as_it_is, num_workers=1, multiprocessing_context="fork"
    )
    if is_torchs(loader_class):
        assert "DataLoader worker (pid" in str(error_of(loader))
    else:
        assert flat(loader) == list(range(12))
    os.close(read)
    os.close(write)
