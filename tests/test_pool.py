"""Every sample once, made by a pool of workers."""

import gc
import multiprocessing
import os
import random
import signal
from typing import Any

import pytest
import torch
from torch.utils.data import IterableDataset

import penstock
from penstock.errors import ClosedError, OptionError

pytestmark = pytest.mark.usefixtures("no_leaks")


class Numbers:
    def __init__(self, length: int = 50, bad: tuple[int, ...] = ()) -> None:
        self.length = length
        self.bad = frozenset(bad)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        if index in self.bad:
            raise ValueError(f"{index} is bad")
        return index * 10


class Images(Numbers):
    def __getitem__(self, index: int) -> Any:
        return torch.full((3, 100, 100), index)


class Dice(Numbers):
    def __getitem__(self, index: int) -> Any:
        return random.random(), float(torch.rand(()))


def workers_now() -> list[int]:
    return [child.pid or 0 for child in multiprocessing.active_children()]


@pytest.mark.parametrize("workers", [0, 1, 4])
@pytest.mark.parametrize("length", [0, 1, 3, 50, 1001])
def test_no_sample_is_lost_to_division(workers: int, length: int) -> None:
    samples = penstock.iterate(Numbers(length), workers=workers)
    assert len(samples) == length
    assert list(samples) == [(index, index * 10) for index in range(length)]
    assert len(samples) == length


def test_a_sample_has_an_index_and_a_value() -> None:
    sample = next(penstock.iterate(Numbers(), workers=0))
    assert sample == penstock.Sample(index=0, value=0)


def test_it_works_under_every_start_method(start_method: str) -> None:
    samples = penstock.iterate(Images(30), workers=2, multiprocessing_context=start_method)
    assert [(index, int(value[0, 0, 0])) for index, value in samples] == [
        (index, index) for index in range(30)
    ]


def test_completed_order_has_every_sample_once() -> None:
    samples = penstock.iterate(Numbers(500), workers=3, order="completed")
    assert sorted(samples) == [(index, index * 10) for index in range(500)]


def test_completed_order_is_not_held_up_by_a_slow_sample(tmp_path: Any) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    samples = penstock.iterate(Gated(str(gate)), workers=2, order="completed")
    arrived = [next(samples).index for _ in range(20)]
    assert 0 not in arrived
    # The first sample comes once it is let go.
    gate.write_text("go")
    assert sorted([*arrived, *(index for index, _ in samples)]) == list(range(50))


class Gated(Numbers):
    """Its first sample waits until somebody writes to a pipe."""

    def __init__(self, gate: str) -> None:
        super().__init__(50)
        self.gate = gate

    def __getitem__(self, index: int) -> Any:
        if index == 0:
            with open(self.gate) as gate:  # noqa: PTH123
                return gate.read()
        return index


def test_random_samples_do_not_depend_on_the_workers() -> None:
    inline = list(penstock.iterate(Dice(200), workers=0, seed=3))
    assert list(penstock.iterate(Dice(200), workers=3, seed=3)) == inline
    assert list(penstock.iterate(Dice(200), workers=0, seed=4)) != inline


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_samples_are_left_out_and_named(workers: int) -> None:
    samples = penstock.iterate(
        Numbers(bad=(0, 7, 49)), workers=workers, on_error="skip", max_skipped=3
    )
    assert [index for index, _ in samples] == [i for i in range(50) if i not in (0, 7, 49)]
    assert [(error.index, str(error.cause)) for error in samples.skipped] == [
        (0, "0 is bad"),
        (7, "7 is bad"),
        (49, "49 is bad"),
    ]
    assert samples.skipped[1].source == "Numbers[7]"
    assert samples.skipped[1].traceback.count("File") == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_comes_in_its_samples_turn_and_the_others_around_it(workers: int) -> None:
    samples = penstock.iterate(Numbers(500, bad=(321,)), workers=workers)
    before = [next(samples).index for _ in range(321)]
    with pytest.raises(ValueError, match=r"sample 321 \(Numbers\[321\]\): 321 is bad"):
        next(samples)
    assert [*before, *(index for index, _ in samples)] == [i for i in range(500) if i != 321]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_function_may_replace_a_bad_sample(workers: int) -> None:
    samples = penstock.iterate(
        Numbers(bad=(3, 4)),
        workers=workers,
        on_error=lambda error: "skip" if error.index == 3 else "instead",
        max_skipped=1,
    )
    arrived = dict(samples)
    assert arrived[4] == "instead"
    assert 3 not in arrived
    assert len(arrived) == 49


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_bad_samples_stop_it(workers: int) -> None:
    samples = penstock.iterate(Numbers(bad=(1, 2)), workers=workers, on_error="skip")
    with pytest.raises(penstock.TooManySkippedError, match="1 of 50"):
        list(samples)


def test_none_is_a_bad_sample() -> None:
    with pytest.raises(TypeError, match="None for sample 0"):
        next(penstock.iterate([None], workers=0))


def test_a_length_that_lies_is_called_that() -> None:
    class Liar(Numbers):
        def __getitem__(self, index: int) -> Any:
            return [0, 1, 2][index]

    with pytest.raises(IndexError, match="Liar has no sample 3"):
        list(penstock.iterate(Liar(4), workers=1))


def test_a_killed_worker_loses_nothing() -> None:
    samples = penstock.iterate(Images(300), workers=2)
    arrived = []
    for index, value in samples:
        arrived.append((index, int(value[0, 0, 0])))
        if index in (20, 120):
            os.kill(workers_now()[0], signal.SIGKILL)
    assert arrived == [(index, index) for index in range(300)]


def test_break_ends_the_workers() -> None:
    for _ in penstock.iterate(Images(), workers=2):
        break
    assert not workers_now()


def test_close_ends_the_workers_and_says_so_afterwards() -> None:
    with penstock.iterate(Images(), workers=2) as samples:
        next(samples)
    assert not workers_now()
    with pytest.raises(ClosedError):
        next(samples)


def test_what_is_made_ahead_is_bounded_while_the_caller_is_slow(tmp_path: Any) -> None:
    made = tmp_path / "made"
    made.mkdir()
    samples = penstock.iterate(Recorded(str(made)), workers=2)
    next(samples)
    deadline = 200
    while deadline and len(os.listdir(made)) < 4:  # noqa: PTH208
        gc.collect()
        deadline -= 1
    # Samples take 2 ms, so a lease is two or three of them, and each worker has two leases.
    assert len(os.listdir(made)) < 40  # noqa: PTH208


class Recorded(Numbers):
    """Leaves a file for each sample that is made."""

    def __init__(self, folder: str) -> None:
        super().__init__(5000)
        self.folder = folder

    def __getitem__(self, index: int) -> Any:
        signal.sigtimedwait([], 0.002)
        with open(os.path.join(self.folder, str(index)), "w"):  # noqa: PTH118, PTH123
            return index


def test_progress_is_shown_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    list(penstock.iterate(Numbers(bad=(1,)), workers=0, on_error="skip", max_skipped=1,
                          progress=True))  # fmt: skip
    captured = capsys.readouterr()
    assert "50/50" in captured.err
    assert "1 error" in captured.err
    assert not captured.out


class Stream(IterableDataset[int]):
    def __iter__(self) -> Any:
        return iter(range(3))


@pytest.mark.parametrize(("dataset", "options", "message"), [
    (Stream(), {}, "dataset=Stream"),
    (object(), {}, "dataset=object"),
    ("photos", {}, "dataset='photos' is a text"),
    (Numbers, {}, "dataset=Numbers is a class"),
    (Numbers(), {"workers": -1}, "workers=-1"),
    (Numbers(), {"workers": True}, "workers=True"),
    (Numbers(), {"order": "random"}, "order='random'"),
    (Numbers(), {"on_error": "log"}, "on_error='log'"),
    (Numbers(), {"max_skipped": -1}, "max_skipped=-1"),
    (Numbers(), {"seed": "x"}, "seed='x'"),
    (Numbers(), {"workers": 0, "sample_timeout": 3}, "sample_timeout=3 .* with workers=0;"),
    (Numbers(), {"workers": 0, "memory_budget": 1 << 30}, "memory_budget=1073741824 .* workers=0;"),
    (Numbers(), {"multiprocessing_context": "thread"}, "multiprocessing_context='thread'"),
])  # fmt: skip
def test_bad_arguments_are_named(dataset: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        penstock.iterate(dataset, **options)
